//! Pods that come and go by the minute, and whether each of their samples says whose it is.

use std::time::{Duration, Instant};

use everflame_kubernetes::Plane;
use everflame_kubernetes::images::Image;
use everflame_kubernetes::plane::NODE_NAME;
use everflame_tests::target::built;
use everflame_tests::{Api, Outcome};
use serde_json::{Value, json};

use crate::deployment::{agent, api, installed, patiently, pod};
use crate::pods::namespaces;
use crate::stage::Stage;

/// Samples a second and CPU: enough of them in a minute to judge a thousandth.
const RATE: u32 = 197;
/// Pods that come and go in each namespace, and how many at a time.
const PODS: u32 = 36;
const AT_ONCE: u32 = 4;
/// What they run, by a name that nothing else on the machine has.
const PROGRAM: &str = "churning";
const NAMESPACES: [&str; 2] = ["market", "bank"];

/// Two namespaces with workloads of the same names: one that stays, and one whose pods live for a
/// second. The truth is what the API server says of their containers.
pub fn identity() -> Outcome {
    let stage = installed()?;
    let kubectl = stage.kubectl();
    stage.import(&Image::new("churn:1", &[(PROGRAM, &built("truth_musl")?)], &[&format!("/{PROGRAM}")]));
    sample_at(&stage, Some(RATE));
    let (agent, metrics) = (pod(&stage, "everflame-agent"), agent(&stage));
    let cpu = || metrics.figure("everflame_agent_process_cpu_seconds_total");
    let (start, cpu_before) = (Instant::now(), cpu());
    namespaces(&stage, &NAMESPACES);
    let template = |seconds: &str, policy: &str| {
        json!({
            "metadata": {"labels": {"app": "churn"}},
            "spec": {"restartPolicy": policy, "terminationGracePeriodSeconds": 0, "containers": [
                {"name": "work", "image": "churn:1", "imagePullPolicy": "Never", "args": [seconds]},
            ]},
        })
    };
    let objects = NAMESPACES.iter().flat_map(|namespace| {
        let meta = |name: &str| json!({"name": name, "namespace": namespace});
        [
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta("steady"),
                "spec": {"selector": {"matchLabels": {"app": "churn"}}, "template": template("600", "Always")},
            }),
            json!({
                "apiVersion": "batch/v1", "kind": "Job", "metadata": meta("sweep"),
                "spec": {"completions": PODS, "parallelism": AT_ONCE, "template": template("1", "Never")},
            }),
        ]
    });
    kubectl.apply(&objects.collect::<Vec<_>>());
    for namespace in NAMESPACES {
        patiently(&stage, "the end of all pods of the job", || {
            let job = kubectl.get(&["job", "sweep", "-n", namespace])?;
            (job["status"]["succeeded"] == PODS).then_some(())
        });
    }
    let containers: Vec<Container> = NAMESPACES.iter().flat_map(|namespace| containers(&stage, namespace)).collect();
    assert!(containers.len() > 2 * PODS as usize, "{} containers", containers.len());
    println!(
        "{} pods made, {:.0} a minute; the agent: {:.2} s of CPU time in {:.0} s, {:.1} MB",
        containers.len(),
        pace(&containers),
        cpu() - cpu_before,
        start.elapsed().as_secs_f64(),
        metrics.figure("everflame_agent_process_resident_bytes") / 1e6
    );
    let api = api(&stage);
    api.settle(&format!("{{process=\"{PROGRAM}\",workload=\"sweep\"}}"), Duration::from_secs(7));
    for namespace in NAMESPACES {
        kubectl.run(&["delete", "deployment", "steady", "-n", namespace]);
    }
    let all = api.settle(&format!("{{process=\"{PROGRAM}\"}}"), Duration::from_secs(7));
    let right: Vec<u64> = containers.iter().map(|container| container.samples(&api)).collect();
    let unseen = right.iter().filter(|samples| **samples == 0).count();
    let wrong = all - right.iter().sum::<u64>();
    println!("{all} samples of {} containers, {unseen} of them without any, {wrong} not named right", right.len());
    if wrong > 0 {
        println!("wrong: {:?}", wrong_by_kind(&api, &containers));
    }
    assert!(all > 10_000, "too few samples to judge by: {all}");
    assert!(wrong * 1000 <= all, "{wrong} of {all} samples do not say whose they are");
    assert_eq!(unseen, 0, "containers were not seen");
    let now = pod(&stage, "everflame-agent");
    assert_eq!(now["metadata"]["name"], agent["metadata"]["name"], "the agent was replaced");
    for namespace in NAMESPACES {
        kubectl.run(&["delete", "namespace", namespace, "--wait=false"]);
    }
    sample_at(&stage, None);
    Ok(())
}

/// Has the agent sample at another rate, or again at that of its configuration.
fn sample_at(stage: &Stage, rate: Option<u32>) {
    let set = rate.map_or_else(|| "EVERFLAME_RATE-".to_owned(), |rate| format!("EVERFLAME_RATE={rate}"));
    let agent = ["daemonset/everflame-agent", "--namespace", "everflame"];
    stage.kubectl().run(&[&["set", "env"], &agent[..], &["-c", "agent", &set]].concat());
    stage.kubectl().run(&[&["rollout", "status", "--timeout=120s"], &agent[..]].concat());
}

/// A container as the API server knows it.
struct Container {
    id: String,
    namespace: String,
    pod: String,
    workload: &'static str,
    /// Seconds of its day.
    started: Option<f64>,
}

impl Container {
    /// Samples that say all that is true of it.
    fn samples(&self, api: &Api) -> u64 {
        let Self { id, namespace, pod, workload, .. } = self;
        api.samples(&format!(
            "{{process=\"{PROGRAM}\",\"container.id\"=\"{id}\",namespace=\"{namespace}\",pod=\"{pod}\",\
             container=\"work\",workload=\"{workload}\",node=\"{NODE_NAME}\"}}"
        ))
    }
}

/// What samples lack or have wrong; one may lack several things.
fn wrong_by_kind(api: &Api, containers: &[Container]) -> [(&'static str, u64); 6] {
    let ids: Vec<&str> = containers.iter().map(|container| container.id.as_str()).collect();
    let strange = format!("{{process=\"{PROGRAM}\",\"container.id\"!~\"{}\"}}", ids.join("|"));
    let other = |key: &'static str, wanted: &dyn Fn(&Container) -> String| {
        let query = |container: &Container| {
            let (id, value) = (&container.id, wanted(container));
            format!("{{process=\"{PROGRAM}\",\"container.id\"=\"{id}\",{key}!=\"{value}\"}}")
        };
        (key, containers.iter().map(|container| api.samples(&query(container))).sum())
    };
    [
        ("container.id", api.samples(&strange)),
        other("namespace", &|container| container.namespace.clone()),
        other("pod", &|container| container.pod.clone()),
        other("container", &|_| "work".to_owned()),
        other("workload", &|container| container.workload.to_owned()),
        other("node", &|_| NODE_NAME.to_owned()),
    ]
}

fn containers(plane: &Plane, namespace: &str) -> Vec<Container> {
    let pods = plane.kubectl().get(&["pods", "-n", namespace]).unwrap();
    let pods = pods["items"].as_array().unwrap().iter();
    let container = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        let name = pod["metadata"]["name"].as_str().unwrap();
        Container {
            id: status["containerID"].as_str().unwrap().trim_start_matches("containerd://").to_owned(),
            namespace: namespace.to_owned(),
            pod: name.to_owned(),
            workload: if name.starts_with("sweep-") { "sweep" } else { "steady" },
            started: status["state"]["terminated"]["startedAt"].as_str().map(seconds_of_day),
        }
    };
    pods.map(container).collect()
}

/// Pods a minute, over the time in which they started.
fn pace(containers: &[Container]) -> f64 {
    let started: Vec<f64> = containers.iter().filter_map(|container| container.started).collect();
    let (first, last) = started.iter().fold((f64::MAX, f64::MIN), |(a, b), t| (a.min(*t), b.max(*t)));
    (started.len() - 1) as f64 * 60.0 / (last - first).max(1.0)
}

/// Of `2026-01-31T12:34:56Z`.
fn seconds_of_day(time: &str) -> f64 {
    let clock = time.split_once('T').unwrap().1.trim_end_matches('Z');
    clock.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap())
}
