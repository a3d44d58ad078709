//! Checks of the machine: its kernel, what is mounted, how much memory there is.

use std::{fs, path::Path};

use everflame_agent::{
    Memory,
    bpf::{
        clock::online_cpus,
        programs::{ProgramOptions, Programs},
    },
};

use super::Check;

/// Inode of the initial PID namespace (PROC_PID_INIT_INO of linux/proc_ns.h).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";
/// Where the counters are pinned.
const BPFFS: &str = "/sys/fs/bpf";
/// What the agent needs on a machine with many processes.
const MEMORY: u64 = Memory::DEFAULT / 2 * 3;

/// Version of the kernel, as numbers.
pub fn version() -> (u32, u32) {
    let release = release();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

pub fn kernel() -> Check {
    let found = format!("Linux {}", release());
    if version() >= (5, 10) {
        Check::ok("kernel", found)
    } else {
        Check::fail("kernel", found, "use Linux 5.10 or newer")
    }
}

pub fn btf() -> Check {
    match fs::metadata("/sys/kernel/btf/vmlinux") {
        Ok(facts) => Check::ok("btf", format!("/sys/kernel/btf/vmlinux, {} bytes", facts.len())),
        Err(e) => Check::fail(
            "btf",
            format!("/sys/kernel/btf/vmlinux: {e}"),
            "use a kernel with CONFIG_DEBUG_INFO_BTF=y, and mount /sys",
        ),
    }
}

pub fn pid_namespace() -> Check {
    match fs::read_link("/proc/self/ns/pid") {
        Ok(link) if link.as_os_str() == INITIAL_PID_NAMESPACE => Check::ok("pid-namespace", "the host's"),
        Ok(link) => Check::fail(
            "pid-namespace",
            format!("{} is not the host's", link.display()),
            "run with the host's PID namespace (hostPID: true)",
        ),
        Err(e) => Check::warn("pid-namespace", e.to_string(), "mount /proc"),
    }
}

pub fn kernel_symbols() -> Check {
    let text = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    match everflame_symbols::kallsyms::KernelSymbols::parse(&text, None) {
        Ok(symbols) => Check::ok("kernel-symbols", format!("{} symbols", symbols.len())),
        Err(e) => Check::warn("kernel-symbols", "kernel frames stay addresses", e.to_string()),
    }
}

pub fn bpffs() -> Check {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mounted = mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some(BPFFS) && words.next() == Some("bpf")
    });
    let lost = "without it the counters of a killed agent are lost";
    if !mounted {
        let remedy = format!("mount -t bpf bpf {BPFFS}, or give the container that directory of the host; {lost}");
        return Check::warn("bpffs", format!("{BPFFS} is not mounted"), remedy);
    }
    let ours = Path::new(everflame_agent::pins::PINNED);
    let writable = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK);
    match writable(ours).or_else(|e| if e == rustix::io::Errno::NOENT { writable(Path::new(BPFFS)) } else { Err(e) }) {
        Ok(()) => Check::ok("bpffs", format!("{BPFFS} is mounted")),
        Err(e) => Check::warn("bpffs", format!("{}: {e}", ours.display()), format!("make it writable for us; {lost}")),
    }
}

/// The lowest limit of the memory cgroups that we are in.
pub fn memory_limit() -> Check {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        match (parts.next(), parts.next()) {
            (Some(""), Some(path)) => limits_up_from("/sys/fs/cgroup", path, "memory.max"),
            (Some(kinds), Some(path)) if kinds.split(',').any(|kind| kind == "memory") => {
                limits_up_from("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes")
            }
            _ => Vec::new(),
        }
    });
    match limits.min().filter(|limit| *limit < 1 << 60) {
        None => Check::ok("memory-limit", "none"),
        Some(limit) if limit >= MEMORY => Check::ok("memory-limit", format!("{} MiB", limit >> 20)),
        Some(limit) => Check::warn(
            "memory-limit",
            format!("{} MiB", limit >> 20),
            format!("give {} MiB, or start the agent with a --memory of two thirds of the limit", MEMORY >> 20),
        ),
    }
}

/// Of a group and those above it. A container's own mount shows its group as the root.
fn limits_up_from(mount: &str, path: &str, file: &str) -> Vec<u64> {
    let read = |group: &Path| {
        let group = group.strip_prefix("/").unwrap_or(group);
        fs::read_to_string(Path::new(mount).join(group).join(file)).ok()?.trim().parse().ok()
    };
    Path::new(path).ancestors().filter_map(read).collect()
}

pub fn sampler() -> Check {
    let started = Programs::load(&ProgramOptions::default())
        .and_then(|programs| programs.start_clock(1, &programs.counters()?).map(|_| ()));
    match started {
        Ok(()) => Check::ok("sampler", format!("loads, verifies and ticks on {} CPUs", online_cpus().len())),
        Err(e) => Check::fail("sampler", e.to_string(), "see the checks above"),
    }
}
