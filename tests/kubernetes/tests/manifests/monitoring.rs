//! The dashboard and the alerts are whole. That the metrics exist is for the cluster's tests,
//! which ask the running program.

use std::collections::BTreeSet;

use everflame_kubernetes::monitoring::metrics;
use everflame_kubernetes::objects;
use everflame_tests::machine::repository;

fn dashboard() -> serde_json::Value {
    let path = repository().join("deploy/monitoring/dashboard.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Each alert says what to do, each panel has its place, and both ask for something of ours.
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
