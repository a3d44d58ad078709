//! What a process and its children use: CPU time, memory, BPF maps and programs.

use everflame_tests::machine;
pub use everflame_tests::machine::map_bytes;
use serde_json::Value;

/// CPU seconds so far of a process: its threads, its living children and those that it has
/// waited for.
pub fn cpu_seconds(pid: u32) -> f64 {
    let living: u64 = family(pid).iter().flat_map(|&pid| tasks(pid)).sum();
    living as f64 / 1e9 + ended_children(pid)
}

/// CPU seconds so far of the threads of a process that live.
pub fn own_cpu_seconds(pid: u32) -> f64 {
    tasks(pid).iter().sum::<u64>() as f64 / 1e9
}

/// Times that the threads of a process and of its children went to sleep so far.
pub fn switches(pid: u32) -> u64 {
    let read = |path: std::path::PathBuf| -> Option<u64> {
        let status = std::fs::read_to_string(path.join("status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()
    };
    let threads = |pid| std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    family(pid).into_iter().flat_map(threads).filter_map(|task| read(task.path())).sum()
}

/// CPU seconds of all children of this process that have ended.
pub fn ended_children_cpu_seconds() -> f64 {
    ended_children(std::process::id())
}

fn ended_children(pid: u32) -> f64 {
    let fields = stat(pid).unwrap_or_default();
    fields.iter().skip(13).take(2).filter_map(|f| f.parse::<u64>().ok()).sum::<u64>() as f64 / 100.0
}

/// Resident memory of a process and its children, in bytes: now, without the BPF maps that it
/// has mapped, and at its highest, with them.
pub fn memory(pid: u32) -> (u64, u64) {
    let read = |pid: u32, name: &str| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
    };
    let sum = |name: &str| family(pid).iter().map(|&pid| read(pid, name)).sum();
    (sum("VmRSS:") - machine::mapped_map_bytes(pid), sum("VmHWM:"))
}

/// Nanoseconds and runs of the BPF programs that a process holds, those of the sampler and
/// those of the others; needs `kernel.bpf_stats_enabled`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Programs {
    pub sampler_ns: u64,
    pub sampler_runs: u64,
    pub other_ns: u64,
}

/// Reads them.
pub fn programs(pid: u32) -> Programs {
    let held: Vec<u64> = fdinfo(pid)
        .iter()
        .filter_map(|text| text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok()))
        .collect();
    let output = std::process::Command::new("bpftool").args(["-j", "prog", "show"]).output();
    let all: Value = output.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok()).unwrap_or_default();
    let mut sum = Programs::default();
    for program in all.as_array().into_iter().flatten() {
        let field = |name: &str| program[name].as_u64().unwrap_or(0);
        if !held.contains(&field("id")) {
            continue;
        }
        if program["type"] == "perf_event" {
            sum.sampler_ns += field("run_time_ns");
            sum.sampler_runs += field("run_cnt");
        } else {
            sum.other_ns += field("run_time_ns");
        }
    }
    sum
}

/// A process and its children.
fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(other) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if stat(other).and_then(|fields| fields.get(1)?.parse::<u32>().ok()) == Some(pid) {
            family.push(other);
        }
    }
    family
}

/// The fields of `stat` after the name: state, parent, …
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn tasks(pid: u32) -> Vec<u64> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse().ok())
        .collect()
}

fn fdinfo(pid: u32) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    entries.filter_map(|entry| std::fs::read_to_string(entry.path()).ok()).collect()
}
