//! The kernel side as seen from user space: loading, maps, events, the ring. The only
//! libbpf types and, but for a handful of system calls in `sys.rs`, the only `unsafe`.

pub mod abi;
pub mod clock;
pub mod counters;
pub mod host;
pub mod pool;
pub mod programs;
pub mod ring;
pub mod shared;
pub mod sideband;
pub mod space;
pub mod tables;

/// Why the kernel side could not be set up. The messages say what to do.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// The kernel refused the programs.
    #[error("the kernel refused the sampler ({what}: {reason}): {remedy}")]
    Refused {
        /// What was being done.
        what: &'static str,
        /// What the kernel or libbpf answered.
        reason: String,
        /// What the reader can do.
        remedy: &'static str,
    },
    /// A map cannot be created or mapped.
    #[error("no memory for the map `{map}`: {source}; raise the memory limit of the agent's cgroup")]
    Map {
        /// Which.
        map: &'static str,
        /// What the kernel answered.
        source: std::io::Error,
    },
    /// The CPU's clock event cannot be opened.
    #[error("perf_event_open on CPU {cpu}: {source}; run as root or with CAP_PERFMON")]
    Clock {
        /// Which CPU.
        cpu: u32,
        /// What the kernel answered.
        source: std::io::Error,
    },
}

/// CLOCK_MONOTONIC in nanoseconds: the clock of every time stamp of the kernel side.
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec to write to; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
