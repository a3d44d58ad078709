//! The dashboard and the alerts name only metrics that the program has: it is asked.

use std::collections::BTreeSet;

use everflame_kubernetes::objects;
use everflame_tests::machine::repository;

/// Names in an expression of PromQL that are ours.
fn metrics(text: &str) -> BTreeSet<String> {
    let name = regex::Regex::new(r"\beverflame_[a-z0-9_]+").unwrap();
    name.find_iter(text).map(|found| found.as_str().to_owned()).collect()
}

fn dashboard() -> serde_json::Value {
    let path = repository().join("deploy/monitoring/dashboard.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The names that the sources of agent and server give to their metrics. (That these come out
/// of a running program is for the test of the cluster.)
#[test]
fn alerts_and_panels_are_whole() {
    let rules = objects::of_file("monitoring/rules.yaml");
    let groups = rules[0]["spec"]["groups"].as_array().unwrap();
    let alerts: Vec<_> = groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert!(alerts.len() >= 8);
    for alert in alerts {
        for part in ["summary", "description"] {
            assert!(alert["annotations"][part].is_string(), "{alert}");
        }
        assert!(!metrics(alert["expr"].as_str().unwrap()).is_empty(), "{alert}");
    }
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() >= 10);
    let mut places = BTreeSet::new();
    for panel in panels {
        assert!(places.insert(panel["gridPos"].to_string()), "two panels at one place: {}", panel["title"]);
        for target in panel["targets"].as_array().unwrap() {
            assert!(!metrics(target["expr"].as_str().unwrap()).is_empty(), "{target}");
        }
    }
}
