//! A CPU that goes and comes back.

use std::{fs, time::Duration};

use anyhow::Context;

const ONLINE: &str = "/sys/devices/system/cpu/cpu1/online";

/// Takes CPU 1 away and gives it back after `gone`: less than the time in which the agent
/// looks for CPUs, so that it cannot see from the list that anything happened.
pub fn cycle(gone: Duration) -> anyhow::Result<()> {
    fs::write(ONLINE, "0").context("taking CPU 1 away")?;
    std::thread::sleep(gone);
    fs::write(ONLINE, "1").context("giving CPU 1 back")
}
