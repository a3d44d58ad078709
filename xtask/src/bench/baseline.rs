//! What everybody has: `perf record --call-graph dwarf` over the whole machine, on the same
//! load, for its CPU time, its bytes and its whole stacks.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::process;

/// Frames that a whole stack of user space ends in, or of the kernel where it has none.
const ROOTS: [&str; 12] = [
    "_start",
    "clone",
    "clone3",
    "__clone",
    "__clone3",
    "start_thread",
    "runtime.goexit",
    "runtime.mstart",
    "ret_from_fork",
    "ret_from_fork_asm",
    "entry_SYSCALL_64_after_hwframe",
    "asm_sysvec_apic_timer_interrupt",
];

/// Records for so many seconds; `None` where perf is not there.
pub fn measure(rate: u32, seconds: u32, read: bool) -> Option<Value> {
    let folder = tempfile::tempdir().ok()?;
    let data = folder.path().join("perf.data");
    let before = process::ended_children_cpu_seconds();
    let status = Command::new("perf")
        .args(["record", "-q", "-e", "cpu-clock", "--call-graph", "dwarf", "-a", "-F", &rate.to_string(), "-o"])
        .arg(&data)
        .args(["sleep", &seconds.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .ok()?;
    if !status.success() {
        return None;
    }
    let cpu = process::ended_children_cpu_seconds() - before;
    let bytes = std::fs::metadata(&data).ok()?.len();
    let cpu_ms = cpu * 1e3 / f64::from(seconds);
    let cores = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
    let mut figures = json!({"cpu_ms_per_s": cpu_ms, "percent_of_node": cpu_ms / 10.0 / cores, "bytes": bytes});
    if read && let Some((samples, whole)) = stacks(&data) {
        figures["samples"] = samples.into();
        figures["bytes_per_sample"] = (bytes as f64 / samples.max(1) as f64).into();
        figures["whole_percent"] = (whole as f64 * 100.0 / samples.max(1) as f64).into();
    }
    Some(figures)
}

/// Samples, and those that reached a root.
fn stacks(data: &Path) -> Option<(u64, u64)> {
    let output = Command::new("timeout")
        .args(["90", "perf", "script", "--no-inline", "--max-stack", "1100", "-F", "comm,ip,sym", "-i"])
        .arg(data)
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (mut samples, mut whole) = (0, 0);
    for stack in text.split("\n\n").filter(|stack| !stack.trim().is_empty()) {
        let frames: Vec<&str> =
            stack.lines().skip(1).filter_map(|line| line.trim().split_once(' ')).map(|f| f.1).collect();
        let Some(last) = frames.last() else { continue };
        // The idle task is nobody's work; we leave it out too.
        if frames.iter().any(|frame| frame.contains("cpu_startup_entry")) {
            continue;
        }
        samples += 1;
        whole += u64::from(ROOTS.contains(last));
    }
    output.status.success().then_some((samples, whole))
}
