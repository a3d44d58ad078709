//! The agent's account: what it may, and the API server's 403 for everything beyond.

use everflame_kubernetes::plane::NODE_NAME;
use everflame_kubernetes::plane::api_url;
use everflame_tests::Outcome;
use serde_json::Value;

use crate::deployment::installed;

const ACCOUNT: &str = "system:serviceaccount:everflame:everflame-agent";

/// With the token that the agent's pod has, over the API as the agent speaks it.
pub fn account() -> Outcome {
    let stage = installed()?;
    let kubectl = stage.kubectl();
    let secrets = kubectl.get(&["secrets", "--namespace", "everflame"]).unwrap();
    let secret =
        secrets["items"].as_array().unwrap().iter().find(|secret| {
            secret["metadata"]["annotations"]["kubernetes.io/service-account.name"] == "everflame-agent"
        });
    let secret = secret.expect("a token of the account")["metadata"]["name"].as_str().unwrap().to_owned();
    let token = kubectl.run(&[
        "get",
        "secret",
        &secret,
        "--namespace",
        "everflame",
        "-o",
        "go-template={{.data.token | base64decode}}",
    ]);
    let ask = |path: &str| -> Value {
        let bearer = format!("Bearer {token}");
        let authority = stage.folder().join("ca.crt");
        let url = api_url() + path;
        let mut command = std::process::Command::new("curl");
        command
            .args(["-s", "--max-time", "20", "-H", &format!("Authorization: {bearer}"), "--cacert"])
            .arg(authority)
            .arg(url);
        serde_json::from_slice(&everflame_tests::machine::finish(&mut command).stdout).unwrap()
    };
    // What it is for: the pods of its node, by name or all of them.
    let pods = ask(&format!("/api/v1/pods?fieldSelector=spec.nodeName={NODE_NAME}"));
    assert_eq!(pods["kind"], "PodList", "{pods}");
    assert!(!pods["items"].as_array().unwrap().is_empty());
    for path in [
        "/api/v1/namespaces/everflame/secrets",
        "/api/v1/namespaces/everflame/configmaps",
        "/api/v1/nodes",
        "/api/v1/namespaces",
    ] {
        assert_eq!(ask(path)["code"], 403, "{path}");
    }
    // Every verb on every kind, but for what the role names.
    let agent = kubectl.as_other(ACCOUNT);
    let allowed = |verb: &str, resource: &str| agent.try_run(&["auth", "can-i", verb, resource, "-A"]).status.success();
    let may =
        [("get", "pods"), ("list", "pods"), ("watch", "pods"), ("get", "replicasets.apps"), ("get", "jobs.batch")];
    for (verb, resource) in may {
        assert!(allowed(verb, resource), "{verb} {resource}");
    }
    let verbs = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
    let listed = agent.run(&["auth", "can-i", "--list", "--no-headers"]);
    let rules: Vec<&str> =
        listed.lines().filter(|line| !line.contains("selfsubject") && !line.starts_with(' ')).collect();
    assert_eq!(rules.len(), 3, "{listed}");
    for resource in
        ["pods", "nodes", "secrets", "configmaps", "daemonsets.apps", "clusterroles.rbac.authorization.k8s.io"]
    {
        for verb in verbs.iter().filter(|verb| !may.contains(&(**verb, resource))) {
            assert!(!allowed(verb, resource), "may {verb} {resource}");
        }
    }
    for (verb, part) in [("create", "exec"), ("create", "attach"), ("get", "log"), ("create", "ephemeralcontainers")] {
        let part = format!("--subresource={part}");
        let asked = agent.try_run(&["auth", "can-i", verb, "pods", &part, "-A"]);
        assert!(!asked.status.success(), "reaches into pods: {verb} {part}");
    }
    Ok(())
}
