//! What the script, the overlays and the chart make of the manifests, without a cluster.
//!
//! helm and kustomize are what `scripts/kubernetes.sh tools` leaves; without them their tests
//! are skipped, aloud.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::{Command, ExitCode};

use everflame_kubernetes::{objects, tools};
use everflame_tests::machine::{finish, output, repository};
use everflame_tests::{Outcome, Skip, runner};
use serde_json::{Value, json};

fn main() -> ExitCode {
    runner::run(&[
        ("renderings::the_script_applies_the_files", the_script_applies_the_files),
        ("renderings::settings_replace_the_pods", settings_replace_the_pods),
        ("renderings::options_reach_every_place", options_reach_every_place),
        ("renderings::overlays", overlays),
        ("renderings::the_chart_is_the_manifests", the_chart_is_the_manifests),
        ("renderings::the_chart_is_the_overlay_of_tls", the_chart_is_the_overlay_of_tls),
        ("renderings::the_chart_on_an_older_cluster", the_chart_on_an_older_cluster),
        ("renderings::the_charts_values", the_charts_values),
        ("renderings::the_chart_sends_as_well", the_chart_sends_as_well),
        ("renderings::the_schema_refuses", the_schema_refuses),
    ])
}

fn sorted(mut objects: Vec<Value>) -> Vec<Value> {
    objects.sort_by_key(objects::id);
    objects
}

/// The chart with settings, in a namespace.
fn chart(namespace: &str, settings: &[&str]) -> Result<std::process::Output, Skip> {
    let mut command = Command::new(tools::folder()?.join("helm"));
    command.args(["template", "everflame"]).arg(repository().join("deploy/helm/everflame"));
    command.args(["--namespace", namespace, "--kube-version", "1.33"]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    Ok(finish(&mut command))
}

fn charted(namespace: &str, settings: &[&str]) -> Result<Vec<Value>, Skip> {
    let output = chart(namespace, settings)?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(sorted(objects::parse(&String::from_utf8_lossy(&output.stdout))))
}

fn dry_run(options: &[&str]) -> Vec<Value> {
    let script = repository().join("deploy/deploy.sh");
    let path =
        format!("{}:{}", tools::folder().unwrap_or_default().display(), std::env::var("PATH").unwrap_or_default());
    objects::parse(&output(Command::new(script).arg("--dry-run").args(options).env("PATH", path).current_dir("/")))
}

/// The image of which the admission policy lets agents be.
fn admitted_image(objects: &[Value]) -> Value {
    let policy = objects::find(objects, "ValidatingAdmissionPolicy", "everflame-pods");
    let variables = policy["spec"]["variables"].as_array().unwrap();
    variables.iter().find(|variable| variable["name"] == "image").unwrap()["expression"].clone()
}

/// Without options the script applies the very files, in an order in which each object has
/// what it needs.
fn the_script_applies_the_files() -> Outcome {
    let (rendered, files) = (dry_run(&[]), objects::of_folder("kubernetes"));
    assert_eq!(rendered[0]["kind"], "Namespace");
    let at = |kind: &str| rendered.iter().position(|o| o["kind"] == kind).unwrap();
    assert!(at("ServiceAccount") < at("StatefulSet") && at("ClusterRoleBinding") < at("DaemonSet"));
    assert!(at("ConfigMap") < at("StatefulSet") && at("PriorityClass") < at("DaemonSet"));
    assert_eq!(undigested(sorted(rendered)), sorted(files));
    Ok(())
}

/// The digest of an application's settings in the template of its pods.
fn digest(object: &mut Value) -> Option<&mut Value> {
    object.pointer_mut("/spec/template/metadata/annotations/everflame.io~1settings")
}

/// The digests of settings taken out again: in the files the application's name stands in their place.
fn undigested(mut objects: Vec<Value>) -> Vec<Value> {
    let mut seen = 0;
    for object in &mut objects {
        let name = object["metadata"]["name"].clone();
        if let Some(digest) = digest(object) {
            assert_ne!(*digest, name, "no digest");
            *digest = name;
            seen += 1;
        }
    }
    assert_eq!(seen, 2, "agent and server have digests");
    objects
}

/// Pods are replaced by who changes their settings, and by nobody else: there is a digest of these in
/// the template of the pods, and of no other settings.
fn settings_replace_the_pods() -> Outcome {
    let of = |mut objects: Vec<Value>| -> (String, String) {
        let mut of = |kind: &str| {
            let object = objects.iter_mut().find(|object| object["kind"] == kind).unwrap();
            digest(object).unwrap().as_str().expect("text").to_owned()
        };
        (of("DaemonSet"), of("StatefulSet"))
    };
    let (agent, server) = of(dry_run(&[]));
    assert_eq!(of(dry_run(&["--image", "registry.example/everflame:2"])), (agent.clone(), server.clone()));
    let elsewhere = of(dry_run(&["--endpoint", "http://elsewhere.example:4040"]));
    assert!(elsewhere.0 != agent && elsewhere.1 == server, "{elsewhere:?}");
    tools::folder()?;
    let as_well = |port| of(dry_run(&["--overlay", "also-collector", "--endpoint", &format!("http://there:{port}")])).0;
    assert_ne!(as_well(4317), as_well(4318));
    let (agent, server) = of(charted("everflame", &[])?);
    let rated = of(charted("everflame", &["agent.rate=49"])?);
    assert!(rated.0 != agent && rated.1 == server, "{rated:?}");
    let kept = of(charted("everflame", &["server.retentionHours=2"])?);
    assert!(kept.0 == agent && kept.1 != server, "{kept:?}");
    Ok(())
}

/// Names, addresses and images go everywhere where they are said.
fn options_reach_every_place() -> Outcome {
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
    assert_eq!(admitted_image(&rendered), "'registry.example/everflame:2'");
    let binding = objects::find(&rendered, "ValidatingAdmissionPolicyBinding", "everflame-pods");
    let labels = &binding["spec"]["matchResources"]["namespaceSelector"]["matchLabels"];
    assert_eq!(labels["kubernetes.io/metadata.name"], "seen");
    // The agents are let out to where they are told to send.
    let policy = objects::find(&rendered, "NetworkPolicy", "everflame-agent-endpoint");
    assert_eq!(policy["spec"]["egress"], json!([{"ports": [{"port": 4040, "protocol": "TCP"}]}]));
    Ok(())
}

/// What kustomize makes of a folder.
fn built(folder: &str) -> Result<Vec<Value>, Skip> {
    let kustomize = tools::folder()?.join("kustomize");
    let folder = repository().join("deploy").join(folder);
    Ok(sorted(objects::parse(&output(Command::new(kustomize).arg("build").arg(folder)))))
}

/// Each overlay is the manifests but for what it says.
fn overlays() -> Outcome {
    tools::folder()?;
    let build = |folder: &str| built(folder).unwrap();
    let files = sorted(objects::of_folder("kubernetes"));
    assert_eq!(build("kubernetes"), files, "the kustomization lists every file");
    let is_servers = |object: &Value| object["metadata"]["name"] == "everflame-server";
    let agents: Vec<String> = files.iter().filter(|object| !is_servers(object)).map(objects::id).collect();
    for overlay in ["collector", "elastic", "aws-secret"] {
        let built = build(&format!("overlays/{overlay}"));
        assert_eq!(built.iter().map(objects::id).collect::<Vec<_>>(), agents, "{overlay}");
    }
    let collector = build("overlays/collector");
    let settings = &objects::find(&collector, "ConfigMap", "everflame-agent")["data"];
    assert_eq!(settings["EVERFLAME_ENDPOINT"], "http://otel-collector.observability:4317");
    assert_eq!(settings["EVERFLAME_RATE"], "19");
    let policy = &objects::find(&collector, "NetworkPolicy", "everflame-agent")["spec"]["egress"];
    assert_eq!(policy.as_array().unwrap().len(), 3);
    assert!(!policy.to_string().contains("4040") && policy[2].to_string().contains("4317"), "{policy}");

    let elastic = build("overlays/elastic");
    let settings = &objects::find(&elastic, "ConfigMap", "everflame-agent")["data"];
    assert!(settings["EVERFLAME_ENDPOINT"].is_null() && settings["ELASTIC_ENDPOINT"].is_string(), "{settings}");
    let pod = &objects::find(&elastic, "DaemonSet", "everflame-agent")["spec"]["template"]["spec"];
    let secret = pod["volumes"].as_array().unwrap().iter().find(|v| v["secret"].is_object()).unwrap();
    assert_eq!(secret["secret"], json!({"secretName": "everflame-elastic", "defaultMode": 0o400}));
    let file = pod["containers"][0]["env"].as_array().unwrap().iter().find(|e| e["name"] == "ELASTIC_API_KEY_FILE");
    assert_eq!(file.unwrap()["value"], "/etc/everflame/elastic/apiKey");
    assert_eq!(pod["hostPID"], true, "the rest of the pod is as it was");

    // What names a secret stands in the cluster, what it holds does not.
    let aws = build("overlays/aws-secret");
    let settings = &objects::find(&aws, "ConfigMap", "everflame-agent")["data"];
    assert!(settings["EVERFLAME_ENDPOINT"].is_null(), "it would go before the secret's");
    assert_eq!(settings["EVERFLAME_SECRET"], "aws-sm://istio/otel-collector/elastic");
    let pod = &objects::find(&aws, "DaemonSet", "everflame-agent")["spec"]["template"]["spec"];
    for variable in pod["containers"][0]["env"].as_array().unwrap() {
        // A token's file beside the secret would be one too many, and the agent would refuse both.
        let name = variable["name"].as_str().unwrap();
        assert!(!["TOKEN", "KEY", "SECRET"].iter().any(|word| name.contains(word)), "{name}");
    }
    let account = &objects::find(&aws, "ServiceAccount", "everflame-agent")["metadata"]["annotations"];
    assert!(account["eks.amazonaws.com/role-arn"].as_str().unwrap().starts_with("arn:aws:iam::"), "{account}");
    let policy = &objects::find(&aws, "NetworkPolicy", "everflame-agent")["spec"]["egress"];
    assert!(policy[2].to_string().contains("443") && policy[3].to_string().contains("169.254.170.23/32"), "{policy}");

    as_well_as(&files, build);

    let named = dry_run(&["--overlay", "tls", "--image", "registry.example/everflame:2"]);
    assert_eq!(admitted_image(&named), "'registry.example/everflame:2'");
    let tls = build("overlays/tls");
    assert_eq!(tls.iter().map(objects::id).collect::<Vec<_>>(), files.iter().map(objects::id).collect::<Vec<_>>());
    let settings = &objects::find(&tls, "ConfigMap", "everflame-agent")["data"];
    assert_eq!(settings["EVERFLAME_ENDPOINT"], "https://everflame-server:4040");
    let agent = objects::find(&tls, "DaemonSet", "everflame-agent").to_string();
    assert!(agent.contains("ca.crt") && !agent.contains("tls.key"), "agents see no key: {agent}");
    let server = &objects::find(&tls, "StatefulSet", "everflame-server")["spec"]["template"]["spec"]["containers"][0];
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(server[probe]["httpGet"]["scheme"], "HTTPS", "{probe}");
        assert_eq!(server[probe]["httpGet"]["port"], "http", "{probe}");
    }

    let chosen = build("overlays/profiling-nodes");
    let selector = &objects::find(&chosen, "DaemonSet", "everflame-agent")["spec"]["template"]["spec"]["nodeSelector"];
    assert_eq!(*selector, json!({"kubernetes.io/os": "linux", "everflame.io/profile": "true"}));
    let monitoring: Vec<String> = build("monitoring").iter().map(objects::id).collect();
    assert_eq!(monitoring.len(), 4, "{monitoring:?}");
    Ok(())
}

/// What sends to somebody else as well is the manifests, with nothing taken away.
fn as_well_as(files: &[Value], build: impl Fn(&str) -> Vec<Value>) {
    for (overlay, also) in [
        ("also-collector", "http://otel-collector.observability:4317"),
        ("also-elastic", "http://elastic-otel-collector.observability:4317?api-key-file=/etc/everflame/elastic/apiKey"),
    ] {
        let mut built = build(&format!("overlays/{overlay}"));
        for (object, file) in built.iter_mut().zip(files) {
            assert_eq!(objects::id(object), objects::id(file), "{overlay}");
            match (object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap()) {
                ("ConfigMap", "everflame-agent") => {
                    let said = object["data"].as_object_mut().unwrap().remove("EVERFLAME_ALSO");
                    assert_eq!(said.unwrap(), also);
                }
                ("NetworkPolicy", "everflame-agent") => {
                    let more = object["spec"]["egress"].as_array_mut().unwrap().pop().unwrap();
                    assert_eq!(more["ports"][0]["port"], 4317);
                }
                ("DaemonSet", _) if overlay == "also-elastic" => {
                    let pod = &mut object["spec"]["template"]["spec"];
                    let mut added = |list: &str| {
                        let list = pod.pointer_mut(list).unwrap().as_array_mut().unwrap();
                        let at = list.iter().position(|one| one["name"] == "elastic").unwrap();
                        list.remove(at)
                    };
                    let volume = added("/volumes");
                    assert_eq!(volume["secret"], json!({"secretName": "everflame-elastic", "defaultMode": 0o400}));
                    assert_eq!(added("/containers/0/volumeMounts")["mountPath"], "/etc/everflame/elastic");
                }
                _ => {}
            }
            assert_eq!(object, file, "{overlay}: the rest is as it was");
        }
        // The script's address takes the place of the other one, and the key's file stays.
        let rendered = dry_run(&["--overlay", overlay, "--endpoint", "https://there.example:8443"]);
        let settings = &objects::find(&rendered, "ConfigMap", "everflame-agent")["data"];
        let parameters = also.split_once('?').map_or(String::new(), |(_, file)| format!("?{file}"));
        assert_eq!(settings["EVERFLAME_ALSO"], format!("https://there.example:8443{parameters}"));
        assert_eq!(settings["EVERFLAME_ENDPOINT"], "http://everflame-server:4040");
        let policy = objects::find(&rendered, "NetworkPolicy", "everflame-agent-endpoint");
        assert_eq!(policy["spec"]["egress"][0]["ports"][0]["port"], 8443);
    }
}

/// With its own values the chart renders the very objects of the manifests.
fn the_chart_is_the_manifests() -> Outcome {
    let chart = undigested(charted("everflame", &["createNamespace=true"])?);
    let files = sorted(objects::of_folder("kubernetes"));
    assert_eq!(chart.iter().map(objects::id).collect::<Vec<_>>(), files.iter().map(objects::id).collect::<Vec<_>>());
    for (chart, file) in chart.iter().zip(&files) {
        assert_eq!(chart, file, "{}", objects::id(file));
    }
    Ok(())
}

/// With the name of a Secret it renders those of the overlay `tls`.
fn the_chart_is_the_overlay_of_tls() -> Outcome {
    let charted = undigested(charted("everflame", &["createNamespace=true", "tlsSecret=everflame-tls"])?);
    for (chart, overlay) in charted.into_iter().zip(built("overlays/tls")?) {
        assert_eq!(in_order(chart), in_order(overlay));
    }
    Ok(())
}

/// Lists of what has names, by name: an overlay adds at the other end than the chart.
fn in_order(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, in_order(value))).collect(),
        Value::Array(mut items) => {
            if items.iter().all(|item| item["name"].is_string()) {
                items.sort_by_key(|item| item["name"].to_string());
            }
            items.into_iter().map(in_order).collect()
        }
        other => other,
    }
}

/// A cluster of an older version gets what it knows, as deploy.sh does it too.
fn the_chart_on_an_older_cluster() -> Outcome {
    let output = finish(
        Command::new(tools::folder()?.join("helm"))
            .args(["template", "everflame"])
            .arg(repository().join("deploy/helm/everflame"))
            .args(["--namespace", "everflame", "--kube-version", "1.20"]),
    );
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let kinds: Vec<String> = objects::parse(&said).iter().map(|object| object["kind"].to_string()).collect();
    for kind in ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "PodDisruptionBudget"] {
        assert!(!kinds.iter().any(|other| other.contains(kind)), "{kind}: {kinds:?}");
    }
    assert!(
        !said.contains("appArmorProfile:") && said.contains("container.apparmor.security.beta.kubernetes.io/agent")
    );
    Ok(())
}

/// What else the chart can be told.
fn the_charts_values() -> Outcome {
    let settings = [
        "server.enabled=false",
        "agent.endpoint=http://collector.example:4317",
        "agent.nodeSelector.pool=busy",
        "image.repository=registry.example/everflame",
        "image.tag=v2",
        "admissionPolicy=false",
        r#"agent.allow[0]=\{namespace="shop"\}"#,
        r#"agent.allow[1]=\{process=~"a.*"\, pid!="1"\}"#,
    ];
    let objects = charted("seen", &settings)?;
    let of_server: Vec<String> = objects.iter().map(objects::id).filter(|id| id.contains("server")).collect();
    assert!(of_server.is_empty(), "{of_server:?}");
    assert!(!objects.iter().any(|o| o["kind"] == "Namespace" || o["kind"] == "ValidatingAdmissionPolicy"));
    let agent = objects::find(&objects, "DaemonSet", "everflame-agent");
    assert_eq!(agent["metadata"]["namespace"], "seen");
    let pod = &agent["spec"]["template"]["spec"];
    assert_eq!(pod["nodeSelector"], json!({"kubernetes.io/os": "linux", "pool": "busy"}));
    assert_eq!(pod["containers"][0]["image"], "registry.example/everflame:v2");
    let charted = charted("seen", &["image.repository=registry.example/everflame", "image.tag=v2"])?;
    assert_eq!(admitted_image(&charted), "'registry.example/everflame:v2'");
    let told = &objects::find(&objects, "ConfigMap", "everflame-agent")["data"];
    assert_eq!(told["EVERFLAME_ENDPOINT"], "http://collector.example:4317");
    assert_eq!(told["EVERFLAME_ALLOW"], r#"{namespace="shop"}, {process=~"a.*", pid!="1"}"#);
    assert_eq!(told["EVERFLAME_DENY"], "");
    let policy = &objects::find(&objects, "NetworkPolicy", "everflame-agent")["spec"]["egress"];
    assert_eq!(policy[2], json!({"ports": [{"port": 4317, "protocol": "TCP"}]}));
    Ok(())
}

/// Further destinations: their address, their keys as files, and the way out to them.
fn the_chart_sends_as_well() -> Outcome {
    let settings = [
        "agent.also[0].endpoint=https://collector.example",
        "agent.also[0].apiKeySecret=everflame-elastic",
        "agent.also[0].name=elastic",
        "agent.also[1].endpoint=http://second.example:4040",
        "agent.also[1].tokenSecret=second",
        "agent.also[2].endpoint=aws-sm://istio/otel-collector/elastic?region=eu-west-1",
        "agent.also[2].name=third",
    ];
    let objects = charted("everflame", &settings)?;
    let settings = &objects::find(&objects, "ConfigMap", "everflame-agent")["data"];
    let urls: Vec<&str> = settings["EVERFLAME_ALSO"].as_str().unwrap().split(',').collect();
    assert_eq!(
        urls,
        [
            "https://collector.example?name=elastic&api-key-file=/etc/everflame/also-0/apiKey",
            "http://second.example:4040?token-file=/etc/everflame/also-1/token",
            "aws-sm://istio/otel-collector/elastic?region=eu-west-1&name=third",
        ]
    );
    assert_eq!(settings["EVERFLAME_ENDPOINT"], "http://everflame-server:4040");
    let pod = &objects::find(&objects, "DaemonSet", "everflame-agent")["spec"]["template"]["spec"];
    let volume = |name: &str| pod["volumes"].as_array().unwrap().iter().find(|v| v["name"] == name);
    assert_eq!(volume("also-0").unwrap()["secret"], json!({"secretName": "everflame-elastic", "defaultMode": 0o400}));
    assert_eq!(volume("also-1").unwrap()["secret"]["secretName"], "second");
    assert!(volume("also-2").is_none());
    let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
    let mount = mounts.iter().find(|mount| mount["name"] == "also-1").unwrap();
    assert_eq!(mount["mountPath"], "/etc/everflame/also-1");
    let policy = objects::find(&objects, "NetworkPolicy", "everflame-agent")["spec"]["egress"].as_array().unwrap();
    let ports: Vec<&Value> = policy[3..].iter().map(|rule| &rule["ports"][0]["port"]).collect();
    assert_eq!(ports, [443, 4040, 443]);
    Ok(())
}

/// A value that is misspelt or out of range is refused, with its name.
fn the_schema_refuses() -> Outcome {
    for (setting, name) in [
        ("agent.rat=19", "rat"),
        ("agent.rate=5000", "rate"),
        ("agent.deny[0]=vault", "deny"),
        ("server.storage=lots", "storage"),
        ("agent.also[0].endpoint=collector", "also"),
        ("agent.also[0].apiKeySecret=x", "endpoint"),
    ] {
        let output = chart("everflame", &[setting])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(name), "{setting}: {said}");
    }
    Ok(())
}
