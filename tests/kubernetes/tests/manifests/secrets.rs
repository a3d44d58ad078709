//! The ways of a secret to the agent: they lead to the very file that it reads, the role may do one
//! thing, and no value is in a ConfigMap, an argument or an environment.

use everflame_kubernetes::objects;
use everflame_tests::machine::repository;
use serde_json::{Value, json};

const SECRET: &str = "istio/otel-collector/elastic";

fn document(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(repository().join("deploy/secrets").join(name)).unwrap()).unwrap()
}

/// The file that the overlay's agent reads, by its volume.
fn key_file() -> (String, String) {
    let agent = objects::of_file("overlays/elastic/agent.yaml");
    let pod = objects::find(&agent, "DaemonSet", "everflame-agent")["spec"]["template"]["spec"].clone();
    let container = &pod["containers"][0];
    let variable = container["env"].as_array().unwrap().iter().find(|v| v["name"] == "ELASTIC_API_KEY_FILE").unwrap();
    let mount = &container["volumeMounts"][0];
    let file = variable["value"].as_str().unwrap().strip_prefix(mount["mountPath"].as_str().unwrap()).unwrap();
    assert_eq!(mount["name"], pod["volumes"][0]["name"]);
    (file.trim_start_matches('/').to_owned(), pod["volumes"][0]["secret"]["secretName"].as_str().unwrap().to_owned())
}

#[test]
fn operators_make_the_file_that_the_agent_reads() {
    let all = objects::of_folder("secrets");
    let (file, secret) = key_file();
    let external = &objects::find(&all, "ExternalSecret", "everflame-elastic")["spec"];
    assert_eq!(external["target"]["name"], secret);
    assert_eq!(external["data"][0]["secretKey"], file);
    assert_eq!(external["data"][0]["remoteRef"], json!({"key": SECRET, "property": "apiKey"}));
    objects::find(&all, external["secretStoreRef"]["kind"].as_str().unwrap(), "everflame");
    let class = &objects::find(&all, "SecretProviderClass", "everflame-elastic")["spec"];
    let parameters = objects::parse(&format!("list:\n{}", class["parameters"]["objects"].as_str().unwrap()));
    let object = &parameters[0]["list"][0];
    assert_eq!(object["objectName"], SECRET);
    assert_eq!(object["jmesPath"], json!([{"path": "apiKey", "objectAlias": file}]));
    let patch = &objects::find(&all, "DaemonSet", "everflame-agent")["spec"]["template"]["spec"]["volumes"][0];
    assert_eq!(patch["csi"]["volumeAttributes"]["secretProviderClass"], "everflame-elastic");
    for object in &all {
        assert_eq!(object["metadata"]["namespace"], "everflame", "{}", objects::id(object));
    }
}

#[test]
fn the_role_may_read_one_secret() {
    let policy = document("iam-policy.json");
    let statements = policy["Statement"].as_array().unwrap();
    assert_eq!(statements.len(), 1);
    assert_eq!(statements[0]["Action"], "secretsmanager:GetSecretValue");
    let resource = statements[0]["Resource"].as_str().unwrap();
    assert!(resource.ends_with(&format!(":secret:{SECRET}-??????")) && !resource.contains('*'), "{resource}");
    let account = "everflame:everflame-agent";
    let irsa = &document("trust-irsa.json")["Statement"][0];
    assert_eq!(irsa["Action"], "sts:AssumeRoleWithWebIdentity");
    let subject = &irsa["Condition"]["StringEquals"]["OIDC_PROVIDER:sub"];
    assert_eq!(*subject, format!("system:serviceaccount:{account}"));
    let pods = &document("trust-pod-identity.json")["Statement"][0];
    assert_eq!(pods["Principal"]["Service"], "pods.eks.amazonaws.com");
    let tags = &pods["Condition"]["StringEquals"];
    let tag = |name: &str| tags[format!("aws:RequestTag/kubernetes-{name}")].as_str().unwrap().to_owned();
    assert_eq!(format!("{}:{}", tag("namespace"), tag("service-account")), account);
}

/// What the overlay puts into the cluster names the secret and holds nothing of it.
#[test]
fn the_overlay_names_the_secret_only() {
    let overlay = repository().join("deploy/overlays/aws-secret");
    let settings = std::fs::read_to_string(overlay.join("endpoint.yaml")).unwrap();
    assert!(settings.contains(&format!("value: aws-sm://{SECRET}")), "{settings}");
    let documentation = std::fs::read_to_string(repository().join("docs/secrets.md")).unwrap();
    for file in std::fs::read_dir(repository().join("deploy/secrets")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(documentation.contains(&name), "docs/secrets.md says nothing of {name}");
    }
}
