//! The guest as a machine: file systems, name, end.

use anyhow::Context;
use rustix::{
    mount::{MountFlags, mount},
    system::{RebootCommand, reboot, uname},
};

/// Mounts what the agent wants to see.
pub fn mount_all() -> anyhow::Result<()> {
    mount_each(&[
        ("devtmpfs", "/dev"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("bpf", "/sys/fs/bpf"),
        ("cgroup2", "/sys/fs/cgroup"),
        ("tmpfs", "/tmp"),
    ])?;
    // The kernel counts how often a program ran: what `taken` is compared with.
    std::fs::write("/proc/sys/kernel/bpf_stats_enabled", "1").context("switching run counts on")
}

/// And what container runtimes and AppArmor's tools want.
pub fn mount_for_containers() -> anyhow::Result<()> {
    mount_each(&[("securityfs", "/sys/kernel/security"), ("tmpfs", "/run")])
}

fn mount_each(mounts: &[(&str, &str)]) -> anyhow::Result<()> {
    for (kind, at) in mounts {
        mount(*kind, *at, *kind, MountFlags::empty(), None).with_context(|| format!("mounting {kind} on {at}"))?;
    }
    Ok(())
}

/// `uname -r`.
pub fn kernel_release() -> String {
    uname().release().to_string_lossy().into_owned()
}

/// Ends the virtual machine.
pub fn power_off() {
    // The first process must not end; should this fail, the host ends the machine.
    let _ = reboot(RebootCommand::PowerOff);
}
