//! deploy.sh, as a person runs it, and what it left in the cluster.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use everflame_kubernetes::plane::NODE_NAME;
use everflame_kubernetes::{Plane, tools};
use everflame_tests::machine::{self, wait_for};
use everflame_tests::{Api, Skip};
use serde_json::{Value, json};

use crate::stage::Stage;

/// Longest time for the cluster to do a thing.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs the script from a directory that is not its own.
pub fn script(plane: &Plane, arguments: &[&str]) -> Output {
    let kubectl = plane.kubectl();
    let mut command = Command::new(machine::repository().join("deploy/deploy.sh"));
    command.args(arguments).current_dir("/").env("PATH", path(plane)).env("KUBECONFIG", &kubectl.kubeconfig);
    machine::finish(&mut command)
}

/// Where programs are found: the cluster's own kubectl, and kustomize and helm where they were built.
pub fn path(plane: &Plane) -> String {
    let rest = std::env::var("PATH").unwrap_or_default();
    let tools = tools::folder().map(|folder| format!("{}:", folder.display())).unwrap_or_default();
    format!("{}:{tools}{rest}", plane.kubectl().program.parent().unwrap().display())
}

/// Both streams of an output.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// Everflame on the cluster, installed by the script unless it is there.
pub fn installed() -> Result<Stage, Skip> {
    let stage = Stage::open()?;
    if stage.kubectl().get(&["daemonset", "everflame-agent", "--namespace", "everflame"]).is_none() {
        volume(&stage);
        let output = script(&stage, &[]);
        assert!(output.status.success(), "{}\n{}", said(&output), state(&stage));
        println!("{}", said(&output));
    }
    Ok(stage)
}

/// A cluster with nothing of Everflame but a volume for its server, for who installs it in another way.
pub fn cleared() -> Result<Stage, Skip> {
    let stage = Stage::open()?;
    quiet(&stage);
    if stage.kubectl().get(&["namespace", "everflame"]).is_some() {
        script(&stage, &["--uninstall"]);
        stage.kubectl().run(&["delete", "namespace", "everflame", "--ignore-not-found"]);
    }
    volume(&stage);
    Ok(stage)
}

/// Ends what burns for other tests: it only takes time from those that follow.
pub fn quiet(plane: &Plane) {
    let end = ["--ignore-not-found", "--wait=false"];
    plane.kubectl().run(&[&["delete", "namespace", "shop", "pay"][..], &end].concat());
    for namespace in ["shop", "pay"] {
        plane.kubectl().run(&[&["delete", "pods", "--all", "--now", "-n", namespace][..], &end].concat());
    }
}

/// A volume for the server's claim: this cluster has nobody who makes one. An earlier one belongs to
/// a claim that is gone, and is of no use to another.
pub fn volume(plane: &Plane) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    plane.kubectl().run(&["delete", "persistentvolume", "test", "--ignore-not-found"]);
    let folder = plane.folder().join(format!("volume-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir_all(&folder).unwrap();
    machine::output(Command::new("chown").arg("65532:65532").arg(&folder));
    plane.kubectl().apply(&[json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "test"},
        "spec": {
            "capacity": {"storage": "20Gi"}, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": folder},
        },
    })]);
}

/// The server's API, by the address of its pod, for whoever has the first token.
pub fn api(plane: &Plane) -> Api {
    let template = "go-template={{.data.token | base64decode}}";
    let token = plane.kubectl().run(&["get", "secret", "everflame-admin", "--namespace", "everflame", "-o", template]);
    stranger(plane).with_token(&token)
}

/// The same for one who has no token.
pub fn stranger(plane: &Plane) -> Api {
    let pod = pod(plane, "everflame-server");
    Api::new(&format!("http://{}:4040", pod["status"]["podIP"].as_str().expect("an address")))
}

/// The agent's own figures, by the address of its pod.
pub fn agent(plane: &Plane) -> Api {
    let pod = pod(plane, "everflame-agent");
    Api::new(&format!("http://{}:4041", pod["status"]["podIP"].as_str().expect("an address")))
}

/// The only running pod of an application of ours.
pub fn pod(plane: &Plane, app: &str) -> Value {
    let label = format!("app={app}");
    let arguments = ["pods", "--namespace", "everflame", "-l", &label, "--field-selector", "status.phase=Running"];
    wait_for(app, Duration::from_secs(60), || {
        let mut pods = plane.kubectl().get(&arguments)?["items"].as_array()?.clone();
        pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        (pods.len() == 1).then(|| pods.remove(0))
    })
}

/// Waits for an answer; the state of the cluster says why there is none.
pub fn patiently<T>(plane: &Plane, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(answer) = ask() {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("{what}: not within {PATIENCE:?}:\n{}", state(plane));
}

/// What there is to see of pods that do not start.
pub fn state(plane: &Plane) -> String {
    let look = |arguments: &[&str]| String::from_utf8_lossy(&plane.kubectl().try_run(arguments).stdout).into_owned();
    let log = plane.log("kubelet");
    let lines: Vec<&str> = log.lines().filter(|line| line.starts_with('E')).collect();
    [
        look(&["get", "pods", "-A", "-o", "wide"]),
        look(&["describe", "pods", "--namespace", "everflame"]),
        look(&["describe", "node", NODE_NAME]),
        lines[lines.len().saturating_sub(20)..].join("\n"),
    ]
    .join("\n")
}
