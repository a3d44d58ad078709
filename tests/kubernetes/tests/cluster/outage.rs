//! An API server that is away while pods run: what is known stays, and what comes meanwhile is
//! named as far as it can be.

use std::time::{Duration, Instant};

use everflame_tests::Outcome;
use everflame_tests::machine::wait_for;
use serde_json::json;

use crate::deployment::{agent, api, installed, patiently};
use crate::pods::{burner, container_id, named, namespaces};

/// How long it is away: `EVERFLAME_OUTAGES=all` has five minutes.
const AWAY: Duration = Duration::from_secs(30);
const AWAY_LONG: Duration = Duration::from_secs(300);
/// A container that ends after so many seconds; the kubelet starts it again by itself.
const LIVES: &str = "10";

/// A pod that runs all the time, and one whose container is started anew while nobody tells of it.
pub fn api_server_away() -> Outcome {
    let mut stage = installed()?;
    let all = std::env::var("EVERFLAME_OUTAGES").is_ok_and(|value| value == "all");
    namespaces(&stage, &["dock"]);
    let pod_of = |name: &str, seconds: &str| {
        let mut container = burner(name);
        container["args"] = json!([seconds]);
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "dock"},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
        })
    };
    stage.kubectl().apply(&[pod_of("crane", "600"), pod_of("ferry", LIVES)]);
    let [crane, ferry] = ["crane", "ferry"].map(|name| container_id(&stage, "dock", name, name));
    let uid = stage.kubectl().get(&["pod", "ferry", "-n", "dock"]).unwrap()["metadata"]["uid"].clone();
    let uid = format!("\"k8s.pod.uid\"={uid}");
    let agent = agent(&stage);
    let connected = || agent.figure("everflame_agent_kubernetes_connected") as u32;
    let api = api(&stage);
    let of = |id: &str| format!("{{\"container.id\"=\"{id}\"}}");
    api.wait_for_samples(&of(&ferry), 10);
    assert_eq!(connected(), 1);

    // It may have been started anew by now; such a container was told of.
    let told = [ferry, container_id(&stage, "dock", "ferry", "ferry")].join("|");
    let (start, before) = (Instant::now(), api.samples(&of(&crane)));
    stage.end_api_server();
    wait_for("the agent to notice", Duration::from_secs(60), || (connected() == 0).then_some(()));
    let noticed = start.elapsed();
    // The kubelet starts it again, and tells nobody.
    let again = format!("{{{uid},\"container.id\"!~\"{told}\"}}");
    let restarted = patiently(&stage, "samples of the container that was started meanwhile", || {
        Some(api.samples(&again)).filter(|samples| *samples >= 20)
    });
    std::thread::sleep(if all { AWAY_LONG } else { AWAY }.saturating_sub(start.elapsed()));
    let meanwhile = api.samples(&of(&crane)) - before;
    assert_eq!(connected(), 0, "it was away all the time");
    stage.start_api_server();
    let back = Instant::now();
    println!(
        "away for {:.0} s, noticed after {:.1} s: {meanwhile} samples of a pod that ran on, {restarted} of a container that came",
        start.elapsed().as_secs_f64(),
        noticed.as_secs_f64()
    );
    assert!(meanwhile >= 50, "a pod that was known is sampled on: {meanwhile}");
    named(&stage, &of(&crane), "dock", "crane", "crane");
    // Of the container that came nobody told the name; its pod was known.
    let other = format!("{},namespace=\"dock\",pod=\"ferry\",workload=\"ferry\"}}", again.trim_end_matches('}'));
    let (came, right) = (api.samples(&again), api.samples(&other));
    println!("{came} samples of containers that nobody told of, {right} under the name of their pod");
    assert!((came - right) * 1000 <= came, "{right} of {came} samples say which pod it was");

    patiently(&stage, "the agent to be told again", || (connected() == 1).then_some(()));
    println!("told again {:.1} s after the return", back.elapsed().as_secs_f64());
    stage.kubectl().apply(&[pod_of("buoy", "600")]);
    let buoy = container_id(&stage, "dock", "buoy", "buoy");
    api.wait_for_samples(&of(&buoy), 20);
    let told = agent.get("/metrics", &[]).1;
    let told = told.lines().filter(|line| line.starts_with("everflame_agent_kubernetes_"));
    println!("{}", told.collect::<Vec<_>>().join("\n"));
    named(&stage, &of(&buoy), "dock", "buoy", "buoy");
    stage.kubectl().run(&["delete", "namespace", "dock", "--wait=false"]);
    Ok(())
}
