//! deploy.sh, as a person runs it, and what it left in the cluster.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use everflame_kubernetes::Plane;
use everflame_kubernetes::plane::NODE_NAME;
use everflame_tests::machine::{self, wait_for};
use everflame_tests::{Api, Skip};
use serde_json::{Value, json};

use crate::stage::Stage;

/// Longest time for the cluster to do a thing.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs the script from a directory that is not its own.
pub fn script(plane: &Plane, arguments: &[&str]) -> Output {
    let kubectl = plane.kubectl();
    let path = format!("{}:{}", kubectl.program.parent().unwrap().display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(machine::repository().join("deploy/deploy.sh"));
    command.args(arguments).current_dir("/").env("PATH", path).env("KUBECONFIG", &kubectl.kubeconfig);
    machine::finish(&mut command)
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

/// A volume for the server's claim: this cluster has nobody who makes one.
pub fn volume(plane: &Plane) {
    let folder = plane.folder().join("volume");
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
