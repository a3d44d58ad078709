//! What this machine has: root, tools, places. A test asks for what it needs and is skipped,
//! aloud, where it is missing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::runner::{Outcome, Skip};

/// The repository.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Where fetched and built things are kept between runs.
pub fn cache() -> PathBuf {
    repository().join("tests/.cache")
}

/// Skips the test unless it runs as root.
pub fn need_root() -> Outcome {
    match output(Command::new("id").arg("-u")).trim() {
        "0" => Ok(()),
        _ => Err(Skip("needs root".into())),
    }
}

/// Skips the test unless a program is in PATH (or at this path).
pub fn need_program(name: &str) -> Outcome {
    if PathBuf::from(name).is_absolute() && PathBuf::from(name).is_file() {
        return Ok(());
    }
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()));
    if found { Ok(()) } else { Err(Skip(format!("needs {name} (scripts/setup.sh test)"))) }
}

/// Runs a command that must succeed and returns what it printed.
pub fn output(command: &mut Command) -> String {
    let output = finish(command);
    assert!(
        output.status.success(),
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command to its end, whatever that is.
pub fn finish(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
}

/// Bytes of the BPF maps that a process holds.
pub fn map_bytes(pid: u32) -> u64 {
    let mut maps = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    maps.values().sum()
}

/// Bytes of BPF maps that a process has mapped: they are in its resident memory and in
/// [`map_bytes`] both.
pub fn mapped_map_bytes(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let (mut is_map, mut kib) = (false, 0);
    for line in text.lines() {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["Rss:", number, "kB"] if is_map => kib += number.parse::<u64>().unwrap_or(0),
            [range, _, _, _, _, ..] if range.contains('-') => is_map = line.contains("bpf-map"),
            _ => {}
        }
    }
    kib * 1024
}

/// Resident memory of a process and its BPF maps, each byte once.
pub fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let resident =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    let resident: u64 = resident.unwrap_or(0) * 1024;
    resident.saturating_sub(mapped_map_bytes(pid)) + map_bytes(pid)
}

/// Sends a signal to a process by its id.
pub fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).output();
}

/// A port on the loopback interface that nothing listened on a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Asks until the answer is there; panics with `what` after `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
