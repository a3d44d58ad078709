//! What the agent itself costs: CPU time and memory of this process, from /proc.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use crate::bpf::shared::mapped_bytes;

/// USER_HZ: the unit of CPU times in /proc, the same on every Linux of our targets.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds (user and system) of this process since it started.
pub fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name is in parentheses and may hold anything; the fields after it are fixed.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

/// Resident memory of this process, bytes, without the kernel maps that are mapped: those are
/// counted for themselves.
pub fn resident_bytes() -> Option<u64> {
    let all = all_resident_bytes();
    (all > 0).then(|| all.saturating_sub(mapped_bytes()))
}

/// The same with them; 0 where it cannot be read.
pub fn all_resident_bytes() -> u64 {
    read_resident().unwrap_or(0)
}

fn read_resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Remembers the last reading, for a rate.
#[derive(Debug, Default)]
pub(crate) struct UsageMeter(Mutex<Option<(Instant, f64)>>);

impl UsageMeter {
    /// CPU in percent of one CPU since the last call (0 at first), with `kernel_ns` of
    /// programs that ran for us in interrupts, and resident memory in bytes.
    pub fn since_last(&self, kernel_ns: u64) -> (f64, u64) {
        let now = Instant::now();
        let seconds = cpu_seconds().unwrap_or(0.0) + kernel_ns as f64 / 1e9;
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let percent = match last.replace((now, seconds)) {
            Some((then, before)) if now > then => 100.0 * (seconds - before).max(0.0) / (now - then).as_secs_f64(),
            _ => 0.0,
        };
        (percent, resident_bytes().unwrap_or(0))
    }
}
