//! On what the figures were measured: without it they mean nothing.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// Processor, cores, memory, kernel, distribution, day.
pub fn describe() -> Value {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str, separator: char| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split(separator).nth(1).unwrap_or_default().trim().trim_matches('"').to_owned()
    };
    let memory: u64 =
        field(&file("/proc/meminfo"), "MemTotal", ':').trim_end_matches(" kB").trim().parse().unwrap_or(0);
    json!({
        "processor": field(&file("/proc/cpuinfo"), "model name", ':'),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory_gib": (memory as f64 / f64::from(1 << 20)).round(),
        "kernel": file("/proc/sys/kernel/osrelease").trim(),
        "distribution": field(&file("/etc/os-release"), "PRETTY_NAME", '='),
        "load_before": file("/proc/loadavg").split(' ').next(),
        "day": output("date", &["-u", "+%Y-%m-%d"], Path::new("/")),
    })
}

/// The commit, with a `+` where the work tree differs from it.
pub fn commit(repository: &Path) -> String {
    let commit = output("git", &["rev-parse", "--short=12", "HEAD"], repository);
    let changed = !output("git", &["status", "--porcelain", "--untracked-files=no", "--", "crates", "bpf"], repository)
        .is_empty();
    format!("{commit}{}", if changed { "+" } else { "" })
}

fn output(program: &str, arguments: &[&str], folder: &Path) -> String {
    let output = Command::new(program).args(arguments).current_dir(folder).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
