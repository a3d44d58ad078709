//! The agent: what it costs at 20 Hz, by depth, and how soon it sees.

use std::time::{Duration, Instant};

use anyhow::Result;
use everflame_tests::kernel::RunCounts;
use everflame_tests::machine::{free_port, wait_for};
use everflame_tests::target::built;
use everflame_tests::zoo::Zoo;
use everflame_tests::{Everflame, Target};
use serde_json::{Value, json};

use super::process;

const SETTLE: Duration = Duration::from_secs(20);
const WINDOW: Duration = Duration::from_secs(40);
const DEPTHS: [u32; 5] = [10, 30, 100, 300, 1_000];

/// Measures everything.
pub fn measure() -> Result<Value> {
    let _counts = RunCounts::enable();
    let idle = cost(20);
    let zoo = Zoo::open(240);
    println!("{} animals in the zoo", zoo.animals.len());
    std::thread::sleep(Duration::from_secs(5));
    let busy = cost(20);
    let start = start_up(20);
    drop(zoo);
    let depths: Vec<Value> = DEPTHS.into_iter().filter_map(by_depth).collect();
    Ok(json!({"idle": idle, "busy": busy, "start": start, "by_depth": depths}))
}

/// What an agent at this rate costs over a window, after it has settled.
fn cost(rate: u32) -> Value {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let port = free_port();
    let _server = Everflame::server(port, &folder.path().join("data"));
    let agent = Everflame::agent(port, rate, &folder.path().join("spool"));
    std::thread::sleep(SETTLE);
    let (cpu, programs, start) = (process::cpu_seconds(agent.pid()), process::programs(agent.pid()), Instant::now());
    let wire = shipped(&agent);
    std::thread::sleep(WINDOW);
    let seconds = start.elapsed().as_secs_f64();
    let (cpu, after) = (process::cpu_seconds(agent.pid()) - cpu, process::programs(agent.pid()));
    let wire_after = shipped(&agent);
    let ns = after.sampler_ns - programs.sampler_ns;
    let runs = after.sampler_runs - programs.sampler_runs;
    let (rss, peak) = process::memory(agent.pid());
    let figures = json!({
        "user_percent_of_a_core": cpu * 100.0 / seconds,
        "bpf_percent_of_a_core": ns as f64 / 1e9 * 100.0 / seconds,
        "other_bpf_percent_of_a_core": (after.other_ns - programs.other_ns) as f64 / 1e9 * 100.0 / seconds,
        "samples": runs,
        "us_per_sample": ns as f64 / 1e3 / runs.max(1) as f64,
        "rss_bytes": rss,
        "peak_rss_bytes": peak,
        "map_bytes": process::map_bytes(agent.pid()),
        "wire_bytes_per_sample": (wire_after.0 - wire.0) / (wire_after.1 - wire.1).max(1.0),
        "longest_us": longest_us(&agent),
    });
    agent.stop();
    figures
}

/// Compressed bytes and samples of the batches that an agent has made.
fn shipped(agent: &Everflame) -> (f64, f64) {
    let text = agent.api().get("/metrics", &[]).1;
    (
        metric(&text, "everflame_agent_batch_compressed_bytes_total"),
        metric(&text, "everflame_agent_batch_samples_total"),
    )
}

/// The agent's own figure of its longest time in the interrupt.
fn longest_us(agent: &Everflame) -> f64 {
    metric(&agent.api().get("/metrics", &[]).1, "everflame_agent_program_longest_seconds") * 1e6
}

/// Sum of a metric over its labels.
fn metric(text: &str, name: &str) -> f64 {
    text.lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
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
    wait_for("a whole stack", Duration::from_secs(120), || {
        let graph = up.api().graph("");
        let now = start.elapsed();
        if graph.samples > 0 {
            sample.get_or_insert(now);
        }
        if graph.complete > 0 {
            complete.get_or_insert(now);
        }
        complete.map(|_| ())
    });
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
    std::thread::sleep(Duration::from_secs(6));
    let before = process::programs(agent.pid());
    std::thread::sleep(Duration::from_secs(6));
    let after = process::programs(agent.pid());
    let runs = after.sampler_runs - before.sampler_runs;
    let ns = after.sampler_ns - before.sampler_ns;
    let figures = json!({"depth": depth, "us_per_sample": ns as f64 / 1e3 / runs.max(1) as f64, "samples": runs, "longest_us": longest_us(&agent)});
    agent.stop();
    Some(figures)
}
