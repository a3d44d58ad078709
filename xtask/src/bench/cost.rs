//! What an agent costs over a window, whatever runs beside it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use everflame_tests::Everflame;
use everflame_tests::machine::free_port;
use serde_json::{Value, json};

use super::process;

/// How to look.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub rate: u32,
    pub settle: Duration,
    pub window: Duration,
}

/// What an agent costs over a window, after it has settled; with the processes of `watched`
/// its samples are compared with their CPU time.
pub fn measure(look: Window, watched: &[u32]) -> Value {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let port = free_port();
    let server = Everflame::server(port, &folder.path().join("data"));
    let agent = Everflame::agent(port, look.rate, &folder.path().join("spool"));
    let pid = agent.pid();
    let steady = steady(&agent, look.settle);
    let start_cpu = process::cpu_seconds(pid);
    let read = || (process::cpu_seconds(pid), process::programs(pid), process::switches(pid), sent(pid));
    let (used, from) = (used_by(watched), everflame_tests::api::unix_now_seconds());
    let (start, wire) = (Instant::now(), shipped(&agent));
    let (cpu, programs, switches, socket) = read();
    std::thread::sleep(look.window);
    let (cpu_after, after, switches_after, socket_after) = read();
    let wire_after = shipped(&agent);
    let seconds = start.elapsed().as_secs_f64();
    let (used_after, until) = (used_by(watched), everflame_tests::api::unix_now_seconds());
    let user = (cpu_after - cpu) * 1e3 / seconds;
    let bpf = (after.sampler_ns - programs.sampler_ns) as f64 / 1e6 / seconds;
    let other = (after.other_ns - programs.other_ns) as f64 / 1e6 / seconds;
    let runs = after.sampler_runs - programs.sampler_runs;
    let samples = wire_after.1 - wire.1;
    let cores = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
    let (rss, peak) = process::memory(pid);
    let mut figures = json!({
        "rate": look.rate,
        "user_ms_per_s": user,
        "bpf_ms_per_s": bpf,
        "other_bpf_ms_per_s": other,
        "percent_of_node": (user + bpf + other) / 10.0 / cores,
        "wakeups_per_s": (switches_after - switches) as f64 / seconds,
        "samples": runs,
        "us_per_sample": bpf * seconds * 1e3 / runs.max(1) as f64,
        "rss_bytes": rss,
        "peak_rss_bytes": peak,
        "map_bytes": process::map_bytes(pid),
        "wire_bytes_per_sample": (wire_after.0 - wire.0) / samples.max(1.0),
        "socket_bytes_per_sample": grown(&socket, &socket_after) as f64 / samples.max(1.0),
        "longest_us": longest_us(&agent),
        "steady_after_s": steady.as_secs_f64(),
        "start_cpu_s": start_cpu,
    });
    // The last samples of the window are on their way for up to one batch.
    if !watched.is_empty() {
        std::thread::sleep(Duration::from_secs(7));
        figures["counted"] = counted(&server, look.rate, (from, until), &used, &used_after);
        figures["complete_percent"] = complete(&server, (from, until), &|_| true);
        figures["complete_percent_without_jvm"] = complete(&server, (from, until), &|name| name != "java");
        figures["incomplete_without_jvm"] = reasons(&server, (from, until));
    }
    agent.stop();
    figures
}

/// Bytes and samples of the batches that an agent has made.
fn shipped(agent: &Everflame) -> (f64, f64) {
    let text = agent.api().get("/metrics", &[]).1;
    (
        metric(&text, "everflame_agent_batch_compressed_bytes_total"),
        metric(&text, "everflame_agent_batch_samples_total"),
    )
}

/// The agent's own figure of its longest time in the interrupt.
pub fn longest_us(agent: &Everflame) -> f64 {
    metric(&agent.api().get("/metrics", &[]).1, "everflame_agent_program_longest_seconds") * 1e6
}

/// Sum of a metric over its labels.
fn metric(text: &str, name: &str) -> f64 {
    text.lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Bytes that a process has sent over each of its connections to a server, by its own address there:
/// headers, reports and all. Symbol indexes, which are the names that are sent once apart, have
/// connections of their own.
fn sent(pid: u32) -> BTreeMap<String, u64> {
    let output = std::process::Command::new("ss").args(["-tinpH", "state", "established"]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let owner = format!("pid={pid},");
    let lines: Vec<&str> = text.lines().collect();
    let pairs = lines.windows(2).filter(|pair| pair[0].contains(&owner));
    let bytes = |line: &str| line.split("bytes_sent:").nth(1)?.split(' ').next()?.parse::<u64>().ok();
    pairs.filter_map(|pair| Some((pair[0].split_whitespace().nth(2)?.to_owned(), bytes(pair[1])?))).collect()
}

/// Bytes over the connection of the batches: that which was there all the time and sent most.
fn grown(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> u64 {
    let grown = after.iter().filter_map(|(address, sent)| Some(sent - before.get(address)?));
    grown.max().unwrap_or(0)
}

/// CPU seconds so far of each process, by all its threads that live.
fn used_by(pids: &[u32]) -> BTreeMap<u32, f64> {
    pids.iter().map(|pid| (*pid, process::own_cpu_seconds(*pid))).collect()
}

/// Samples of processes against their CPU seconds times the rate.
fn counted(
    server: &Everflame,
    rate: u32,
    (from, until): (f64, f64),
    before: &BTreeMap<u32, f64>,
    after: &BTreeMap<u32, f64>,
) -> Value {
    let (from, until) = (format!("{from:.3}"), format!("{until:.3}"));
    let answer = server.api().json("/api/v1/processes", &[("from", &from), ("until", &until)]);
    let mut of: BTreeMap<u32, u64> = BTreeMap::new();
    for process in answer["processes"].as_array().into_iter().flatten() {
        let pid = process["pid"].as_u64().unwrap_or(0) as u32;
        *of.entry(pid).or_default() += process["samples"].as_u64().unwrap_or(0);
    }
    let (mut samples, mut ticks, mut worst) = (0.0, 0.0, 0.0f64);
    for (pid, start) in before {
        let expected = (after.get(pid).copied().unwrap_or(*start) - start) * f64::from(rate);
        let seen = of.get(pid).copied().unwrap_or(0) as f64;
        samples += seen;
        ticks += expected;
        // In standard deviations of a count.
        worst = worst.max((seen - expected).abs() / expected.max(1.0).sqrt());
    }
    json!({"samples": samples, "expected": ticks, "percent": samples * 100.0 / f64::max(ticks, 1.0), "worst_sigma": worst})
}

/// Percent of samples whose stacks are whole, of processes with such names.
fn complete(server: &Everflame, (from, until): (f64, f64), of: &dyn Fn(&str) -> bool) -> Value {
    let (from, until) = (format!("{from:.3}"), format!("{until:.3}"));
    let answer = server.api().json("/api/v1/processes", &[("from", &from), ("until", &until)]);
    let chosen: Vec<&Value> = answer["processes"].as_array().into_iter().flatten().collect();
    let chosen = chosen.iter().filter(|p| of(p["process"].as_str().unwrap_or("")));
    let sum = |field: &str| -> f64 { chosen.clone().filter_map(|p| p[field].as_f64()).sum() };
    (sum("complete") * 100.0 / sum("samples").max(1.0)).into()
}

/// Why the others are not.
fn reasons(server: &Everflame, (from, until): (f64, f64)) -> Value {
    let (from, until) = (format!("{from:.3}"), format!("{until:.3}"));
    let question = [("from", from.as_str()), ("until", &until), ("query", "{process!=\"java\"}"), ("max_nodes", "1")];
    server.api().json("/api/v1/flamegraph", &question)["complete"]["incomplete"].clone()
}

/// Waits `least`, and then until every executable that runs has its table and its names: nothing
/// was made or sent for a while. In a storm of new ones that never comes, so not for ever.
fn steady(agent: &Everflame, least: Duration) -> Duration {
    const QUIET: Duration = Duration::from_secs(8);
    const MOST: Duration = Duration::from_secs(90);
    let start = Instant::now();
    let done = || {
        let text = agent.api().get("/metrics", &[]).1;
        metric(&text, "everflame_agent_tracker_answers") + metric(&text, "everflame_agent_symbols_total")
    };
    let (mut last, mut since) = (done(), Instant::now());
    while start.elapsed() < least || (since.elapsed() < QUIET && start.elapsed() < MOST) {
        std::thread::sleep(Duration::from_secs(1));
        let now = done();
        if now > last {
            (last, since) = (now, Instant::now());
        }
    }
    start.elapsed()
}
