//! What the worker gives up before it reads a byte.

use std::io;

use super::filter;
use crate::sys::{self, Confinement};

/// Nobody, on every distribution.
const NOBODY: u32 = 65_534;
/// Memory for what is made of a file, unless it is told another figure.
const DATA: u64 = 1 << 30;
/// Names that figure, in bytes, in the worker's environment.
pub const MEMORY_VARIABLE: &str = "EVERFLAME_WORKER_MEMORY";
/// What else there is in its address space: the largest file, the program, the stack.
const ADDRESS_SPACE: u64 = super::protocol::MAX_FILE + (256 << 20);
/// More than a worker that retires in time uses.
const CPU_SECONDS: u64 = 120;

/// Gives up everything but the open socket, memory and some CPU time.
pub fn confine() -> io::Result<()> {
    std::env::set_current_dir("/")?;
    let data = std::env::var(MEMORY_VARIABLE).ok().and_then(|bytes| bytes.parse().ok()).unwrap_or(DATA).min(DATA);
    sys::confine(&Confinement { data, address_space: data + ADDRESS_SPACE, cpu_seconds: CPU_SECONDS, user: NOBODY })?;
    sys::filter_calls(&filter::program())
}
