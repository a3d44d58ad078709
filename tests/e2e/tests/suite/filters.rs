//! Processes that are not to be profiled: nothing of them arrives, and every sample of theirs is
//! counted as filtered.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use everflame_tests::api::{number, residual, sum, unix_now};
use everflame_tests::machine::{free_port, need_root, wait_for};
use everflame_tests::target::built;
use everflame_tests::{Api, Everflame, Outcome, Skip, Target};
use serde_json::{Value, json};

/// Where there are control groups of version 2.
const HIERARCHIES: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
/// How long the API server is away at first.
const AWAY: Duration = Duration::from_secs(3);

pub fn denied_by_executable() -> Outcome {
    need_root()?;
    let (storm, truth, other) = (built("storm")?, built("truth_cpp")?, built("truth_rust")?);
    let scene = Scene::new();
    let server = scene.server();
    let before = Target::start(&scene.copy(&other, "secret_before"), &["8"]);
    let agent = scene.agent(&["--deny", r#"{process=~"secret_.*"}, {process_executable_path=~".*/storm"}"#]);
    server.api().wait_for_samples("", 50);
    // Many that are over before anybody could ask them who they were, and one that comes later.
    let targets = [
        before,
        Target::start(&scene.copy(&other, "secret_later"), &["4"]),
        Target::start(&storm, &["300"]),
        Target::start(&scene.copy(&truth, "in_view"), &["4"]),
    ];
    let _ = targets.map(Target::truth);
    agent.stop();
    let processes = values(server.api(), "process");
    let mappings = mappings(server.api());
    assert!(processes.iter().any(|name| name == "in_view"), "{processes:?}");
    for name in ["secret_before", "secret_later", "storm"] {
        assert!(!processes.iter().chain(&mappings).any(|seen| seen == name), "{name} is seen");
    }
    let indexes = server.api().json("/api/v1/symbols", &[]).to_string();
    assert!(indexes.contains("\"in_view\""), "{indexes}");
    assert!(!indexes.contains("storm") && !indexes.contains("secret_"), "{indexes}");
    filtered(server.api(), 199 * 10);
    Ok(())
}

pub fn allowed_by_executable() -> Outcome {
    need_root()?;
    let truth = built("truth_cpp")?;
    let scene = Scene::new();
    let server = scene.server();
    let agent = scene.agent(&["--allow", r#"{process="in_view"},{process="denied"}"#, "--deny", r#"process="denied""#]);
    let targets = ["in_view", "denied", "other"].map(|name| Target::start(&scene.copy(&truth, name), &["4"]));
    let _ = targets.map(Target::truth);
    agent.stop();
    assert_eq!(values(server.api(), "process"), ["in_view"], "no kernel thread either");
    let graph = server.api().graph("");
    println!("filters: {} samples of the one that is allowed, {:?}", graph.samples, graph.incomplete);
    assert!(graph.samples > 500 && graph.count(|path| path.has_chain(&["main", "descend"])) > 500);
    filtered(server.api(), 199 * 6);
    Ok(())
}

/// Pods in control groups of their own, and an API server that is away when the first samples come.
pub fn by_namespace_and_label() -> Outcome {
    need_root()?;
    let truth = built("truth_cpp")?;
    let scene = Scene::new();
    let groups = Groups::new()?;
    let pods =
        [("cart", "shop", "silver"), ("gold", "shop", "gold"), ("vault", "bank", "silver"), ("untold", "shop", "")];
    let told: Vec<Value> =
        (1..).zip(&pods[..3]).map(|(number, (name, space, tier))| pod(number, name, space, tier)).collect();
    let server = scene.server();
    let config = scene.api_server(json!({"kind": "PodList", "metadata": {"resourceVersion": "7"}, "items": told}));
    let agent = scene.agent(&[
        "--kubeconfig",
        config.to_str().unwrap(),
        "--node",
        "node-1",
        "--deny",
        r#"{namespace="bank"}, {"k8s.pod.label.tier"="gold"}"#,
    ]);
    let targets = (1..).zip(pods).map(|(number, (name, ..))| groups.start(number, &scene.copy(&truth, name)));
    let targets: Vec<Target> = targets.chain([Target::start(&scene.copy(&truth, "host"), &["6"])]).collect();
    let _: Vec<Value> = targets.into_iter().map(Target::truth).collect();
    // One that nobody tells of waits for ten seconds, each of its samples for itself.
    std::thread::sleep(Duration::from_secs(8));
    wait_for("the last that wait", Duration::from_secs(30), || {
        (agent.api().figure("everflame_agent_filter_samples_waiting") == 0.0).then_some(())
    });
    let metrics = agent.api().get("/metrics", &[]).1;
    agent.stop();
    let processes = values(server.api(), "process");
    assert!(["cart", "host"].iter().all(|name| processes.iter().any(|p| p == name)), "{processes:?}");
    assert!(!["gold", "vault", "untold"].iter().any(|name| processes.iter().any(|p| p == name)), "{processes:?}");
    assert_eq!(values(server.api(), "namespace"), ["shop"]);
    assert_eq!(values(server.api(), "k8s_pod_label_tier"), ["silver"]);
    // Those from before it was told whose they were are there: two CPUs, five busy processes.
    let cart = server.api().samples(r#"{process="cart", namespace="shop", pod="cart"}"#);
    let host = server.api().samples(r#"{process="host"}"#);
    println!("filters: {cart} samples of the pod in view, {host} of the host's process");
    assert!(cart * 10 >= host * 8 && host > 200, "{cart} samples of the pod in view, {host} of the host's process");
    let line = r#"everflame_agent_filter_samples_unjudged_total{cause="unknown"} "#;
    let unknown = metrics.lines().find_map(|text| text.strip_prefix(line)).expect("a figure");
    assert!(unknown.parse::<u64>().unwrap() * 10 >= host * 8, "{unknown} samples that nobody told of");
    filtered(server.api(), host * 2);
    Ok(())
}

/// At least so many samples were filtered, and the account is even.
fn filtered(api: &Api, least: u64) {
    let instances = api.accounting();
    assert_eq!(instances.len(), 1, "{instances:?}");
    println!("filters: {}", instances[0]);
    assert_eq!(residual(&instances[0]), 0, "{}", instances[0]);
    assert_eq!(sum(&instances[0]["in_flight"]), 0, "{}", instances[0]);
    let filtered = number(&instances[0]["dropped"]["filtered"]) as u64;
    assert!(filtered >= least, "{filtered} samples are filtered, not {least}");
}

fn values(api: &Api, label: &str) -> Vec<String> {
    let answer = api.json(&format!("/api/v1/labels/{label}/values"), &[("from", "now-1h"), ("until", &until())]);
    let values = answer["values"].as_array().unwrap();
    let mut values: Vec<String> = values.iter().map(|v| v["value"].as_str().unwrap().to_owned()).collect();
    values.retain(|value| !value.is_empty());
    values.sort();
    values
}

/// `until` is exclusive.
fn until() -> String {
    (unix_now() + 1).to_string()
}

fn mappings(api: &Api) -> Vec<String> {
    let answer = api.json("/api/v1/flamegraph", &[("from", "now-1h"), ("until", &until()), ("max_nodes", "0")]);
    answer["mappings"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

struct Scene {
    folder: tempfile::TempDir,
    port: u16,
}

impl Scene {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), port: free_port() }
    }

    fn server(&self) -> Everflame {
        Everflame::server(self.port, &self.folder.path().join("data"))
    }

    fn agent(&self, filters: &[&str]) -> Everflame {
        Everflame::agent_in(None, self.port, 199, &self.folder.path().join("spool"), filters)
    }

    /// A program under another name.
    fn copy(&self, program: &Path, name: &str) -> PathBuf {
        let copy = self.folder.path().join(name);
        std::fs::copy(program, &copy).unwrap();
        copy
    }

    /// An API server that has one list, is away at first, and then watches in silence; and the file
    /// that says where it is.
    fn api_server(&self, list: Value) -> PathBuf {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            std::thread::sleep(AWAY);
            for stream in listener.incoming().flatten() {
                let list = list.to_string();
                std::thread::spawn(move || answer(&stream, &list));
            }
        });
        let path = self.folder.path().join("kubeconfig");
        let text = format!(
            "{{current-context: c, contexts: [{{name: c, context: {{cluster: c}}}}], clusters: [{{name: c, cluster: {{server: \"{url}\"}}}}]}}"
        );
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn answer(mut stream: &TcpStream, list: &str) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    if request.contains("watch=1") {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n");
        std::thread::sleep(Duration::from_secs(120));
        return;
    }
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", list.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(list.as_bytes()));
}

fn uid(number: usize) -> String {
    format!("2c48913c-b29f-11e7-9350-{number:012}")
}

fn pod(number: usize, name: &str, namespace: &str, tier: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": namespace, "uid": uid(number), "labels": {"tier": tier}},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
        "status": {"containerStatuses": [{"name": "app", "containerID": format!("containerd://{number:064x}")}]},
    })
}

/// Control groups as a kubelet makes them.
struct Groups(PathBuf);

impl Groups {
    fn new() -> Result<Self, Skip> {
        let hierarchy = HIERARCHIES
            .iter()
            .find(|path| Path::new(path).join("cgroup.controllers").try_exists().is_ok_and(|there| there));
        let hierarchy = hierarchy.ok_or_else(|| Skip("needs control groups of version 2".into()))?;
        let path = Path::new(hierarchy).join(format!("everflame-pods-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|e| Skip(format!("needs a control group to make: {e}")))?;
        Ok(Self(path))
    }

    /// Runs a program in the container of a pod.
    fn start(&self, number: usize, program: &Path) -> Target {
        let group = self.0.join(format!("pod{}", uid(number))).join(format!("{number:064x}"));
        std::fs::create_dir_all(&group).unwrap();
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$0\" 6", group.display());
        Target::spawn(Command::new("sh").args(["-c", &script]).arg(program))
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for pod in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
            for container in std::fs::read_dir(pod.path()).into_iter().flatten().flatten() {
                let _ = std::fs::remove_dir(container.path());
            }
            let _ = std::fs::remove_dir(pod.path());
        }
        let _ = std::fs::remove_dir(&self.0);
    }
}
