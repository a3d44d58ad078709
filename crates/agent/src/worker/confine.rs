//! What the worker gives up before it reads a byte.

use std::io;

use super::filter;
use crate::sys::{self, Confinement};

/// Nobody, on every distribution.
const NOBODY: u32 = 65_534;
/// Memory for what is made of a file.
const DATA: u64 = 1 << 30;
/// The same and the largest file.
const ADDRESS_SPACE: u64 = DATA + super::protocol::MAX_FILE + (256 << 20);
/// More than a worker that retires in time uses.
const CPU_SECONDS: u64 = 120;

/// Gives up everything but the open socket, memory and some CPU time.
pub fn confine() -> io::Result<()> {
    std::env::set_current_dir("/")?;
    sys::confine(&Confinement { data: DATA, address_space: ADDRESS_SPACE, cpu_seconds: CPU_SECONDS, user: NOBODY })?;
    sys::filter_calls(&filter::program())
}
