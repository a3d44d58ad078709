//! Other samplers on this machine: ours, which are known by their lock, and anybody's who
//! holds a BPF program that ticks.

use std::{collections::BTreeMap, fs, path::Path};

use everflame_agent::presence;

use super::Check;

/// BPF_PROG_TYPE_PERF_EVENT of linux/bpf.h.
const PERF_EVENT: &str = "7";

pub fn other_samplers() -> Check {
    let mut others: BTreeMap<u32, String> = foreign();
    others.extend(presence::others().into_iter().map(|other| (other.pid, other.name)));
    if others.is_empty() {
        return Check::ok("other-samplers", "none that we can see");
    }
    let named: Vec<String> = others.iter().map(|(pid, name)| format!("{name} (process {pid})")).collect();
    let remedy = "end all but one: each costs once more, and what two send to one server counts twice";
    Check::warn("other-samplers", named.join(", "), remedy)
}

/// Processes that hold such a program, by their open files.
fn foreign() -> BTreeMap<u32, String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id() && samples(*pid))
        .map(|pid| (pid, fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()))
        .collect()
}

fn samples(pid: u32) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let programs = files.filter(|file| {
        fs::read_link(file.path()).is_ok_and(|target| target.as_path() == Path::new("anon_inode:bpf-prog"))
    });
    programs.into_iter().any(|file| {
        let facts = Path::new("/proc").join(pid.to_string()).join("fdinfo").join(file.file_name());
        let facts = fs::read_to_string(facts).unwrap_or_default();
        facts.lines().any(|line| line.strip_prefix("prog_type:").is_some_and(|kind| kind.trim() == PERF_EVENT))
    })
}
