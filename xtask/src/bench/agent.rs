//! The agent: what it costs at 20 and 97 Hz with 300 processes and both cores busy, in a storm
//! of new ones, by depth, in memory, and how soon it shows the first stack; beside it `perf`.

use std::time::{Duration, Instant};

use anyhow::Result;
use everflame_tests::kernel::RunCounts;
use everflame_tests::machine::free_port;
use everflame_tests::target::built;
use everflame_tests::zoo::Zoo;
use everflame_tests::{Everflame, Target};
use serde_json::{Value, json};

use super::baseline;
use super::cost::{self, Window, longest_us};
use super::load::{Crowd, Storm};
use super::process;

const DEPTHS: [u32; 5] = [10, 30, 100, 300, 1_000];
/// Longest that the zoo is needed, seconds.
const ZOO_SECONDS: u32 = 600;

/// Measures everything.
pub fn measure() -> Result<Value> {
    let _counts = RunCounts::enable();
    let look = |rate, settle, window| Window {
        rate,
        settle: Duration::from_secs(settle),
        window: Duration::from_secs(window),
    };
    let start_idle = starts(3);
    let idle = cost::measure(look(20, 15, 20), &[]);
    let crowd = Crowd::open(300, 20)?;
    let zoo = Zoo::open(ZOO_SECONDS);
    println!("{} animals in the zoo, 300 sleepers beside it", zoo.animals.len());
    std::thread::sleep(Duration::from_secs(5));
    let busy = cost::measure(look(20, 20, 30), &zoo.pids());
    let fast = cost::measure(look(97, 15, 20), &zoo.pids());
    let storm = Storm::open(10);
    let stormy = cost::measure(look(20, 15, 30), &[]);
    drop(storm);
    let start_busy = starts(3);
    let perf = json!({"20": baseline::measure(20, 12, true), "97": baseline::measure(97, 8, false)});
    drop(crowd);
    let crowd = Crowd::open(500, 300)?;
    let crowded = cost::measure(look(20, 20, 20), &[]);
    drop((crowd, zoo));
    let depths: Vec<Value> = DEPTHS.into_iter().filter_map(by_depth).collect();
    Ok(json!({
        "idle": idle, "busy": busy, "fast": fast, "storm": stormy, "crowded": crowded, "perf": perf,
        "start_idle": start_idle, "start_busy": start_busy, "by_depth": depths,
    }))
}

/// The median of several starts.
fn starts(rounds: usize) -> Value {
    let mut all: Vec<Value> = (0..rounds).map(|_| start_up(20)).collect();
    let shown = |v: &Value| v["first_complete_shown_s"].as_f64().unwrap_or(f64::MAX);
    all.sort_by(|a, b| shown(a).total_cmp(&shown(b)));
    let slowest = all.last().map_or(f64::NAN, shown);
    let mut median = all.swap_remove(rounds / 2);
    median["slowest_s"] = slowest.into();
    median
}

/// From the start of `up` to the first sample and the first whole stack, as they can be read.
fn start_up(rate: u32) -> Value {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let (start, unix) = (Instant::now(), everflame_tests::api::unix_now_seconds());
    let arguments = ["up", "--listen", "127.0.0.1:0", "--rate", &rate.to_string(), "--data", &data.to_string_lossy()];
    let up = Everflame::start(&arguments, tempfile::tempdir().expect("a temporary folder"));
    let ready = start.elapsed();
    let (mut sample, mut complete) = (None, None);
    while complete.is_none() && start.elapsed() < Duration::from_secs(60) {
        let graph = up.api().graph("");
        let now = start.elapsed();
        sample = sample.or((graph.samples > 0).then_some(now));
        complete = complete.or((graph.complete > 0).then_some(now));
        std::thread::sleep(Duration::from_millis(20));
    }
    // When the first sample was taken, not when it arrived.
    let processes = up.api().json("/api/v1/processes", &[]);
    let first = processes["processes"].as_array().into_iter().flatten().filter_map(|p| seconds_of(&p["first_seen"]));
    let first = first.fold(f64::MAX, f64::min) - unix;
    up.stop();
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    json!({
        "ready_s": ready.as_secs_f64(),
        "first_sample_taken_s": first,
        "first_sample_shown_s": seconds(sample),
        "first_complete_shown_s": seconds(complete),
    })
}

fn seconds_of(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

/// Kernel time a sample where both cores stand at a depth.
fn by_depth(depth: u32) -> Option<Value> {
    let path = built("deep").ok()?;
    let folder = tempfile::tempdir().ok()?;
    let port = free_port();
    let _server = Everflame::server(port, &folder.path().join("data"));
    let agent = Everflame::agent(port, 97, &folder.path().join("spool"));
    let text = depth.to_string();
    let _load = [0, 1].map(|_| Target::start(&path, &["60", "0", &text]));
    std::thread::sleep(Duration::from_secs(4));
    let before = process::programs(agent.pid());
    std::thread::sleep(Duration::from_secs(4));
    let after = process::programs(agent.pid());
    let runs = after.sampler_runs - before.sampler_runs;
    let ns = after.sampler_ns - before.sampler_ns;
    let us = ns as f64 / 1e3 / runs.max(1) as f64;
    let figures = json!({"depth": depth, "us_per_sample": us, "samples": runs, "longest_us": longest_us(&agent)});
    agent.stop();
    Some(figures)
}
