//! The second opinion on a full machine: every stack of a zoo that the budget allows is walked
//! again by an independent unwinder, and the two agree.

use std::time::Duration;

use everflame_tests::Everflame;
use everflame_tests::machine::{need_root, wait_for};
use everflame_tests::runner::Outcome;
use everflame_tests::zoo::Zoo;
use serde_json::Value;

/// Seconds of sampling.
const SECONDS: u32 = 25;

pub fn two_walks_agree() -> Outcome {
    need_root()?;
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let log = "info,everflame_agent::opinion=debug";
    let rest = ["--data", data.to_str().unwrap(), "--rate", "199", "--second-opinion", "1", "--log", log];
    let up = Everflame::start(&[&["up", "--listen", "127.0.0.1:0"][..], &rest].concat(), scratch);
    let zoo = Zoo::open(SECONDS);
    std::thread::sleep(Duration::from_secs(SECONDS.into()));
    drop(zoo);
    // What waits is looked at and reported.
    let opinion = wait_for("a thousand second opinions in /api/v1/nodes", Duration::from_secs(120), || {
        std::thread::sleep(Duration::from_secs(1));
        let nodes = up.api().try_json("/api/v1/nodes")?;
        Some(nodes["nodes"][0]["second_opinion"].clone()).filter(|o| o["agree"].as_u64() > Some(1000))
    });
    let log = up.stop();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("second opinion of process")).collect();
    told.iter().take(20).for_each(|line| println!("{line}"));
    println!("{}", serde_json::to_string_pretty(&opinion).unwrap());

    let figure = |value: &Value| value.as_u64().unwrap_or_default();
    let [agree, differ, shorter] = ["agree", "differ", "shorter"].map(|key| figure(&opinion[key]));
    assert_eq!(figure(&opinion["every"]), 1);
    assert!(differ * 1000 <= agree, "{differ} of {agree} stacks differ: see above");
    // Threads that are sampled while the page they stand on is fetched have no code to look at,
    // and say so: one stack in a thousand on a machine full of compilers.
    assert!(shorter * 200 <= agree, "{shorter} of {agree} stacks end early: see above");
    assert!(told.len() as u64 >= differ, "each disagreement is told");
    // A report names the sixteen that most is said of, whatever else runs on this machine.
    let known = ["envoy", "python3", "node", "libjvm", "truth_", "libc.so.6", "ld-musl"];
    let named = opinion["executables"].as_array().unwrap().iter().filter(|executable| {
        let name = executable["name"].as_str().unwrap();
        figure(&executable["agree"]) > 50 && known.iter().any(|known| name.starts_with(known))
    });
    assert!(named.count() >= 4, "little is said of what the zoo runs: {opinion}");
    Ok(())
}
