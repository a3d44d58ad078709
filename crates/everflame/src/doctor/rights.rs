//! Checks of what this process may do: capabilities, and what stands in their way.

use std::fs;

use everflame_agent::{
    bpf::{refused_calls, too_paranoid},
    confinement::{LOST, Module},
    rights::{PARANOID_REMEDY, RIGHTS, Rights},
};
use rustix::{
    process::{Resource, getrlimit},
    thread::{CapabilitySet, capabilities as own_capabilities},
};

use super::{Check, machine};

/// Kernels before it charge maps to RLIMIT_MEMLOCK.
const COUNTS_BY_CGROUP: (u32, u32) = (5, 11);
/// What maps may take there.
const LOCKED: u64 = 128 << 20;

/// One line each.
pub fn capabilities() -> impl Iterator<Item = Check> {
    let own = Rights::own();
    RIGHTS.iter().map(move |right| {
        let remedy = format!("give it to this process, or run as root: {}", right.without);
        match own.has(right) {
            true => Check::ok(right.name, right.purpose),
            false if right.needed => Check::fail(right.name, "missing", remedy),
            false => Check::warn(right.name, "missing", remedy),
        }
    })
}

/// Capabilities of another user namespace than the host's do not count.
pub fn user_namespace() -> Check {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    if map.split_ascii_whitespace().eq(["0", "0", "4294967295"]) {
        return Check::ok("user-namespace", "the host's");
    }
    let remedy = "run outside of it (no rootless container): the kernel samples for the host's only";
    Check::fail("user-namespace", "not the host's", remedy)
}

/// Whether a filter stands before the system calls that only a sampler makes.
pub fn system_calls() -> Check {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let filtered = status.lines().any(|l| l.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"));
    let refused = refused_calls();
    match (filtered, refused.is_empty()) {
        (false, true) => Check::ok("system-calls", "no seccomp filter"),
        (true, true) => Check::ok("system-calls", "the seccomp filter lets them through"),
        // Without the capabilities the kernel itself answers the same.
        (_, false) if Rights::own().needed_and_missing().is_some() => {
            Check::warn("system-calls", format!("{} refused", refused.join(", ")), "give the capabilities above first")
        }
        (true, false) => Check::fail(
            "system-calls",
            format!("the seccomp filter refuses {}", refused.join(", ")),
            "use the runtime's default profile of containerd 1.6.3, Docker 20.10.15 or newer, which allows them to \
             CAP_BPF and CAP_PERFMON",
        ),
        (false, false) => Check::fail(
            "system-calls",
            format!("{} refused", refused.join(", ")),
            "a security module or kernel lockdown forbids them: allow them to this program",
        ),
    }
}

/// Whether a security module takes away what the capabilities give.
pub fn security_modules() -> impl Iterator<Item = Check> {
    [("apparmor", Module::AppArmor), ("selinux", Module::SeLinux)].into_iter().map(|(check, module)| {
        match (module.confines(), module.forbids()) {
            (_, Some(forbidden)) => Check::warn(check, format!("{forbidden}: {LOST}"), module.remedy()),
            (Some(by), None) => Check::ok(check, format!("{by} forbids nothing that we have rights to")),
            (None, None) => Check::ok(check, "does not confine us"),
        }
    })
}

/// What the kernel wants of those who sample.
pub fn perf_events() -> Check {
    let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    match (paranoid.trim(), Rights::own().needed_and_missing()) {
        ("", _) => Check::fail("perf-events", "the kernel has none", "use a kernel with CONFIG_PERF_EVENTS=y"),
        (_, None) if let Some(level) = too_paranoid(Rights::own()) => {
            Check::fail("perf-events", format!("perf_event_paranoid {level}"), PARANOID_REMEDY)
        }
        (level, None) => Check::ok("perf-events", format!("perf_event_paranoid {level}: for those with CAP_PERFMON")),
        (level, Some(_)) => {
            Check::warn("perf-events", format!("perf_event_paranoid {level}"), "give the capabilities above first")
        }
    }
}

/// Memory that may be locked, where maps count as such.
pub fn locked_memory() -> Check {
    if machine::version() >= COUNTS_BY_CGROUP {
        return Check::ok("locked-memory", "maps do not count against it");
    }
    let limit = getrlimit(Resource::Memlock);
    let may_raise_limits =
        own_capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE));
    match (limit.current, limit.maximum) {
        (Some(_), Some(most)) if most < LOCKED && !may_raise_limits => Check::warn(
            "locked-memory",
            format!("{} KiB at most", most >> 10),
            "set `ulimit -l unlimited`, or give CAP_SYS_RESOURCE: this kernel counts maps against it",
        ),
        _ => Check::ok("locked-memory", "enough"),
    }
}
