//! The kernel's own count of how often a BPF program ran: the oracle for `taken`.

use std::process::Command;

use serde_json::Value;

use crate::machine;

/// Switches run counts on until it is dropped.
#[derive(Debug)]
pub struct RunCounts {
    before: String,
    pins: Vec<String>,
}

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl RunCounts {
    /// Switches them on; do so before the program is loaded.
    pub fn enable() -> Self {
        let before = std::fs::read_to_string(SWITCH).unwrap_or_else(|_| "0".into());
        std::fs::write(SWITCH, "1").unwrap();
        Self { before, pins: Vec::new() }
    }

    /// Programs of type perf_event that a process holds: their ids.
    pub fn samplers(pid: u32) -> Vec<u64> {
        let held: Vec<u64> = std::fs::read_dir(format!("/proc/{pid}/fdinfo"))
            .unwrap()
            .flatten()
            .filter_map(|entry| std::fs::read_to_string(entry.path()).ok())
            .filter_map(|text| text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok()))
            .collect();
        programs()
            .iter()
            .filter(|program| program["type"] == "perf_event")
            .filter_map(|program| program["id"].as_u64())
            .filter(|id| held.contains(id))
            .collect()
    }

    /// Keeps a program, so that its count can be read after its owner has gone.
    pub fn keep(&mut self, id: u64) {
        let pin = format!("/sys/fs/bpf/everflame-test-{}-{id}", std::process::id());
        machine::output(Command::new("bpftool").args(["prog", "pin", "id", &id.to_string(), &pin]));
        self.pins.push(pin);
    }

    /// How often a program ran while counting was on.
    pub fn of(id: u64) -> u64 {
        programs()
            .iter()
            .find(|program| program["id"].as_u64() == Some(id))
            .map(|program| program["run_cnt"].as_u64().unwrap_or(0))
            .unwrap_or_else(|| panic!("program {id} is gone"))
    }
}

impl Drop for RunCounts {
    fn drop(&mut self) {
        self.pins.iter().for_each(|pin| {
            let _ = std::fs::remove_file(pin);
        });
        let _ = std::fs::write(SWITCH, self.before.trim());
    }
}

fn programs() -> Vec<Value> {
    let text = machine::output(Command::new("bpftool").args(["-j", "prog", "show"]));
    serde_json::from_str::<Value>(&text).unwrap().as_array().cloned().unwrap_or_default()
}
