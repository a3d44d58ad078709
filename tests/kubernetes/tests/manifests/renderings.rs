//! What the deploy script prints for each set of options, without a cluster.

use std::process::Command;

use everflame_kubernetes::objects;
use everflame_tests::machine::{output, repository};
use serde_json::Value;

fn dry_run(options: &[&str]) -> Vec<Value> {
    let script = repository().join("deploy/deploy.sh");
    objects::parse(&output(Command::new(script).arg("--dry-run").args(options).current_dir("/")))
}

/// Without options the script applies the very files, in an order in which each object has
/// what it needs.
#[test]
fn the_script_applies_the_files() {
    let (mut rendered, mut files) = (dry_run(&[]), objects::of_folder("kubernetes"));
    assert_eq!(rendered[0]["kind"], "Namespace");
    let at = |kind: &str| rendered.iter().position(|o| o["kind"] == kind).unwrap();
    assert!(at("ServiceAccount") < at("StatefulSet") && at("ClusterRoleBinding") < at("DaemonSet"));
    assert!(at("ConfigMap") < at("StatefulSet") && at("PriorityClass") < at("DaemonSet"));
    rendered.sort_by_key(objects::id);
    files.sort_by_key(objects::id);
    assert_eq!(rendered, files);
}

/// Names, addresses and images go everywhere where they are said.
#[test]
fn options_reach_every_place() {
    let options = [
        "--namespace",
        "seen",
        "--endpoint",
        "http://elsewhere.example:4040",
        "--image",
        "registry.example/everflame:2",
    ];
    let rendered = dry_run(&options);
    for object in &rendered {
        let namespace = &object["metadata"]["namespace"];
        assert!(namespace.is_null() || namespace == "seen", "{}", objects::id(object));
        assert!(!object.to_string().contains("everflame-server.everflame"), "{}", objects::id(object));
    }
    objects::find(&rendered, "Namespace", "seen");
    assert_eq!(objects::find(&rendered, "ClusterRoleBinding", "everflame-agent")["subjects"][0]["namespace"], "seen");
    let settings = &objects::find(&rendered, "ConfigMap", "everflame-agent")["data"];
    assert_eq!(settings["EVERFLAME_ENDPOINT"], "http://elsewhere.example:4040");
    for (kind, name) in [("DaemonSet", "everflame-agent"), ("StatefulSet", "everflame-server")] {
        let image = &objects::find(&rendered, kind, name)["spec"]["template"]["spec"]["containers"][0]["image"];
        assert_eq!(image, "registry.example/everflame:2");
    }
    let binding = objects::find(&rendered, "ValidatingAdmissionPolicyBinding", "everflame-pods");
    let labels = &binding["spec"]["matchResources"]["namespaceSelector"]["matchLabels"];
    assert_eq!(labels["kubernetes.io/metadata.name"], "seen");
}
