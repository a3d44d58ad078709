//! The chart: installed, changed and removed by the commands of `deploy/README.md` and by those that the
//! chart itself prints.

use std::time::Duration;

use everflame_kubernetes::{Plane, tools};
use everflame_tests::Outcome;
use everflame_tests::api::residual;
use everflame_tests::machine::wait_for;
use serde_json::Value;

use crate::deployment::{api, cleared, patiently, pod};
use crate::install::left;
use crate::reader::{Reader, block};

const PAGE: &str = "deploy/README.md";

/// From nothing to samples, another rate, and back to nothing.
pub fn the_chart() -> Outcome {
    tools::folder()?;
    let stage = cleared()?;
    let reader = Reader::new(&stage);
    let text = reader.run(&block(PAGE, "helm install"));
    let notes = text.split_once("NOTES:\n").unwrap_or_else(|| panic!("no notes:\n{text}")).1;
    let commands = |wanted: &dyn Fn(&str) -> bool| -> String {
        let lines = notes.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| wanted(line));
        lines.map(|line| format!("{line}\n")).collect()
    };
    // A forward runs until it is ended, and nobody can check itself before it is there.
    reader.run(&commands(&|line| !line.contains("port-forward") && !line.contains("doctor")));
    reader.run("kubectl -n everflame rollout status daemonset/everflame-agent --timeout=120s");
    let checked = reader.run(&commands(&|line| line.contains("doctor")));
    assert!(checked.contains("ok    sampler"), "{checked}");
    let server = api(&stage);
    let samples = patiently(&stage, "samples", || Some(server.samples("")).filter(|samples| *samples >= 50));
    assert_eq!(rate(&stage), 19);

    let before = pod(&stage, "everflame-server")["metadata"]["uid"].clone();
    reader.run(&block(PAGE, "helm upgrade"));
    let changed = patiently(&stage, "the other rate", || Some(rate(&stage)).filter(|rate| *rate != 19));
    assert_eq!(pod(&stage, "everflame-server")["metadata"]["uid"], before, "the server's settings are as they were");
    let after = patiently(&stage, "more samples", || Some(server.samples("")).filter(|after| *after >= samples + 50));
    let accounts = server.accounting();
    for account in &accounts {
        assert_eq!(residual(account), 0, "{account}");
    }
    println!("{samples} samples at 19 Hz, {after} with those at {changed} Hz, of {} instances", accounts.len());

    let uninstall = block(PAGE, "helm uninstall");
    let (uninstall, namespace) = uninstall.split_once('\n').expect("two commands");
    reader.run(uninstall);
    // What helm did not make stays until its namespace goes: tokens, and the profiles.
    let kept = [
        "namespace/everflame",
        "persistentvolumeclaim/data-everflame-server-0",
        "secret/everflame-admin",
        "secret/everflame-agent",
    ];
    wait_for("the end of what helm made", Duration::from_secs(120), || {
        let mut left = left(&stage);
        left.retain(|name| !kept.contains(&name.as_str()));
        left.is_empty().then_some(())
    });
    reader.run(namespace);
    let left = left(&stage);
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

/// The rate of the newest agent, as the server knows it.
fn rate(plane: &Plane) -> u64 {
    let nodes = api(plane).json("/api/v1/nodes", &[])["nodes"].as_array().cloned().unwrap_or_default();
    nodes.first().and_then(|newest| newest["rate"].as_u64()).unwrap_or_else(|| panic!("{:?}", Value::from(nodes)))
}
