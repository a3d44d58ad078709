//! The faults that directories like this one are known for, each looked for in ours.

use everflame_kubernetes::objects;
use everflame_tests::machine::repository;
use serde_json::{Value, json};

const OURS: [&str; 6] = ["BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH", "SYSLOG", "CHECKPOINT_RESTORE"];

fn all() -> Vec<Value> {
    objects::of_folder("kubernetes")
}

fn pod(kind: &str, name: &str) -> Value {
    objects::find(&all(), kind, name)["spec"]["template"]["spec"].clone()
}

fn agent() -> Value {
    pod("DaemonSet", "everflame-agent")
}

/// Every file below deploy/, with its text.
fn files() -> Vec<(String, String)> {
    fn below(folder: &std::path::Path, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => below(&entry.path(), found),
                false => {
                    found.push((entry.path().display().to_string(), std::fs::read_to_string(entry.path()).unwrap()))
                }
            }
        }
    }
    let mut found = Vec::new();
    below(&repository().join("deploy"), &mut found);
    found
}

/// The agent's pod runs the sampler itself, nothing has to be switched on.
#[test]
fn the_image_profiles() {
    let container = &agent()["containers"][0];
    assert_eq!(container["args"], json!(["agent"]));
    assert!(container["image"].as_str().unwrap().starts_with("everflame:"));
    let version = env!("CARGO_PKG_VERSION");
    for (kind, name) in [("DaemonSet", "everflame-agent"), ("StatefulSet", "everflame-server")] {
        let image = pod(kind, name)["containers"][0]["image"].clone();
        assert_eq!(image, format!("everflame:{version}"), "of this version, never latest");
    }
}

/// It sees the processes of its node, and nothing else of it.
#[test]
fn the_host_is_seen_and_no_more() {
    let agent = agent();
    assert_eq!(agent["hostPID"], true);
    for field in ["hostNetwork", "hostIPC"] {
        assert!(agent[field].is_null() || agent[field] == false, "{field}");
    }
    let volumes = agent["volumes"].as_array().unwrap();
    let of_host: Vec<&Value> = volumes.iter().map(|v| &v["hostPath"]["path"]).filter(|path| !path.is_null()).collect();
    assert_eq!(of_host, ["/sys/fs/bpf"]);
}

/// Six capabilities by name, a seccomp profile, AppArmor and SELinux said, a read-only root.
#[test]
fn nothing_is_privileged() {
    let (pod, container) = (agent(), agent()["containers"][0]["securityContext"].clone());
    assert_eq!(container["privileged"], false);
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(container["readOnlyRootFilesystem"], true);
    assert_eq!(container["capabilities"], json!({"drop": ["ALL"], "add": OURS}));
    assert_eq!(container["appArmorProfile"]["type"], "Unconfined");
    assert_eq!(container["seLinuxOptions"]["type"], "spc_t");
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let security = std::fs::read_to_string(repository().join("docs/security.md")).unwrap();
    for name in OURS {
        assert!(security.contains(&format!("`CAP_{name}`")), "docs/security.md says what CAP_{name} is for");
    }
    // The older form says the same as the newer one.
    let annotations =
        objects::find(&all(), "DaemonSet", "everflame-agent")["spec"]["template"]["metadata"]["annotations"].clone();
    assert_eq!(annotations["container.apparmor.security.beta.kubernetes.io/agent"], "unconfined");
}

/// The server's pod fits the profile `restricted`.
#[test]
fn the_server_is_restricted() {
    let pod = pod("StatefulSet", "everflame-server");
    for field in ["hostNetwork", "hostIPC", "hostPID"] {
        assert!(pod[field].is_null(), "{field}");
    }
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert!(pod["securityContext"]["runAsUser"].as_u64().unwrap() > 0);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    for container in pod["containers"].as_array().unwrap() {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
        assert_eq!(context["readOnlyRootFilesystem"], true);
    }
    let allowed = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
        "name",
    ];
    for volume in pod["volumes"].as_array().into_iter().flatten() {
        assert!(volume.as_object().unwrap().keys().all(|kind| allowed.contains(&kind.as_str())), "{volume}");
    }
    assert_eq!(pod["automountServiceAccountToken"], false);
}

/// What a DaemonSet for every node needs.
#[test]
fn every_node_has_one() {
    let agent = agent();
    assert_eq!(agent["tolerations"], json!([{"operator": "Exists"}]));
    assert_eq!(agent["nodeSelector"], json!({"kubernetes.io/os": "linux"}));
    assert_eq!(agent["priorityClassName"], "everflame-agent");
    let container = &agent["containers"][0];
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"], "status", "{probe}");
    }
    // A listener on the loopback interface is out of the kubelet's reach.
    let listen = container["env"].as_array().unwrap().iter().find(|e| e["name"] == "EVERFLAME_LISTEN").unwrap();
    assert_eq!(listen["value"], format!("0.0.0.0:{}", container["ports"][0]["containerPort"]));
    for part in ["requests", "limits"] {
        for resource in ["cpu", "memory"] {
            assert!(container["resources"][part][resource].is_string(), "{part} {resource}");
        }
    }
    assert_eq!(
        objects::find(&all(), "DaemonSet", "everflame-agent")["spec"]["updateStrategy"]["type"],
        "RollingUpdate"
    );
}

/// Reading pods and finding their owners: nothing else, and nothing that changes anything.
#[test]
fn the_role_reads_pods_and_owners() {
    let all = all();
    let rules = &objects::find(&all, "ClusterRole", "everflame-agent")["rules"];
    let expected = json!([
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["apps"], "resources": ["replicasets"], "verbs": ["get"]},
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get"]},
    ]);
    assert_eq!(*rules, expected);
    let roles = all.iter().filter(|o| o["kind"].as_str().is_some_and(|kind| kind.contains("Role"))).count();
    assert_eq!(roles, 2, "one role and its binding");
}

/// Whatever a pod refers to is in the same directory under the same name, and is not optional:
/// what is missing must not be missed silently.
#[test]
fn references_hold() {
    let all = all();
    for (kind, name) in [("DaemonSet", "everflame-agent"), ("StatefulSet", "everflame-server")] {
        let pod = pod(kind, name);
        objects::find(&all, "ServiceAccount", pod["serviceAccountName"].as_str().unwrap());
        for container in pod["containers"].as_array().unwrap() {
            for source in container["envFrom"].as_array().into_iter().flatten() {
                objects::find(&all, "ConfigMap", source["configMapRef"]["name"].as_str().unwrap());
            }
        }
    }
    for (path, text) in files() {
        assert!(!text.contains("optional: true"), "{path}: an optional reference hides what is missing");
    }
    // Secrets are made by the script, and each pod waits for its own.
    let script = std::fs::read_to_string(repository().join("deploy/deploy.sh")).unwrap();
    for (kind, name, secret, variable) in [
        ("DaemonSet", "everflame-agent", "everflame-agent", "EVERFLAME_TOKEN_FILE"),
        ("StatefulSet", "everflame-server", "everflame-admin", "EVERFLAME_ADMIN_TOKEN_FILE"),
    ] {
        let pod = pod(kind, name);
        let volume = pod["volumes"].as_array().unwrap().iter().find(|v| v["secret"]["secretName"] == secret).unwrap();
        assert!(script.contains(&format!("{secret} ")), "{secret}");
        let container = &pod["containers"][0];
        let mounts = container["volumeMounts"].as_array().unwrap();
        let mount = mounts.iter().find(|mount| mount["name"] == volume["name"]).unwrap();
        let variable = container["env"].as_array().unwrap().iter().find(|e| e["name"] == variable).unwrap();
        assert_eq!(variable["value"], format!("{}/token", mount["mountPath"].as_str().unwrap()));
        assert_eq!(mount["readOnly"], true);
    }
    let agent = objects::find(&all, "ConfigMap", "everflame-agent");
    let service = objects::find(&all, "Service", "everflame-server");
    let endpoint = format!("http://everflame-server:{}", service["spec"]["ports"][0]["port"]);
    assert_eq!(agent["data"]["EVERFLAME_ENDPOINT"], endpoint);
    // The server answers to every name under which the cluster knows it.
    let hosts =
        objects::find(&all, "ConfigMap", "everflame-server")["data"]["EVERFLAME_ALLOWED_HOSTS"].as_str().unwrap();
    for name in ["everflame-server", "everflame-server.everflame.svc", "everflame-server.everflame.svc.cluster.local"] {
        assert!(hosts.split(',').any(|host| host == name), "{name}");
    }
}

/// Secrets are files: in no ConfigMap, environment, argument, and none is in the repository.
#[test]
fn secrets_are_files() {
    let secret = regex::Regex::new(r"(?i)(token|api_?key|password|secret)").unwrap();
    for object in all() {
        for (name, _) in object["data"].as_object().into_iter().flatten().filter(|_| object["kind"] == "ConfigMap") {
            assert!(!secret.is_match(name), "{}: {name}", objects::id(&object));
        }
        assert_ne!(object["kind"], "Secret", "{}", objects::id(&object));
    }
    // Keys as the clouds write them, and long words that only a machine makes.
    let made = regex::Regex::new(r#"AKIA[0-9A-Z]{16}|[A-Za-z0-9+/]{40,}={0,2}["'\s]|eyJ[A-Za-z0-9_-]{20,}"#).unwrap();
    for (path, text) in files() {
        assert!(!text.contains("secretKeyRef"), "{path}: a secret in an environment is seen by whoever sees the pod");
        let found = made.find(&text).map(|found| found.as_str());
        assert_eq!(found, None, "{path}");
    }
}

/// Prometheus finds pods by what they are, and no address stands in any file.
#[test]
fn no_address_of_a_pod() {
    let address = regex::Regex::new(r"\b(\d{1,3}\.){3}\d{1,3}\b").unwrap();
    // All interfaces, loopback, and where NodeLocal DNS and EKS Pod Identity listen on every node.
    let known = ["0.0.0.0", "127.0.0.1", "169.254.20.10", "169.254.170.23"];
    for (path, text) in files() {
        let found = address.find_iter(&text).map(|found| found.as_str()).find(|found| !known.contains(found));
        assert_eq!(found, None, "{path}");
    }
    // (The server's figures are for those with a token: its monitor says which.)
    let template = objects::find(&all(), "DaemonSet", "everflame-agent")["spec"]["template"].clone();
    let port = template["spec"]["containers"][0]["ports"][0]["containerPort"].to_string();
    let annotations = &template["metadata"]["annotations"];
    assert_eq!(annotations["prometheus.io/scrape"], "true");
    assert_eq!(annotations["prometheus.io/port"], port.as_str());
    assert_eq!(annotations["prometheus.io/path"], "/metrics");
}

/// Nothing is fetched when a pod starts: there are no init containers and no shells.
#[test]
fn pods_are_what_their_image_is() {
    for (kind, name) in [("DaemonSet", "everflame-agent"), ("StatefulSet", "everflame-server")] {
        let pod = pod(kind, name);
        assert!(pod["initContainers"].is_null() && pod["containers"].as_array().unwrap().len() == 1, "{name}");
        assert!(pod["containers"][0]["command"].is_null(), "{name}");
    }
}

/// Labels by which people look for the pods and their logs.
#[test]
fn labels_for_kubectl() {
    for (kind, name) in [("DaemonSet", "everflame-agent"), ("StatefulSet", "everflame-server")] {
        let object = objects::find(&all(), kind, name).clone();
        assert_eq!(object["spec"]["template"]["metadata"]["labels"]["app"], name);
        assert_eq!(object["spec"]["selector"]["matchLabels"], json!({"app": name}));
    }
    let namespace = objects::find(&all(), "Namespace", "everflame").clone();
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "privileged");
}

/// What the documents and the types of profile promise is there: no memory profiles, Linux 5.10.
#[test]
fn promises_are_kept() {
    for (path, text) in files() {
        let lower = text.to_lowercase();
        assert!(!lower.contains("memory profile") && !lower.contains("allocation profile"), "{path}");
        assert!(!text.contains("4.9") && !text.contains("4.19"), "{path}: Linux 5.10 is what the agent needs");
    }
}
