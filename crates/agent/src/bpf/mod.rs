//! The kernel side as seen from user space: loading, maps, events, the ring. The only
//! libbpf types and, but for a handful of system calls in `sys.rs`, the only `unsafe`.

pub mod abi;
pub mod births;
pub mod clock;
pub mod counters;
pub mod host;
pub mod machine;
pub mod pool;
pub mod programs;
pub mod ring;
pub mod shared;
pub mod sideband;
pub mod space;
pub mod tables;

use crate::rights::Rights;

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
    /// Capabilities are missing without which nothing works.
    #[error("the sampler needs {0}: run as root, or give the process these capabilities")]
    Rights(String),
    /// The distribution's kernel wants more than the capability that is for it.
    #[error("kernel.perf_event_paranoid is {0}: {remedy}", remedy = crate::rights::PARANOID_REMEDY)]
    Paranoid(i32),
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

/// The level of kernel.perf_event_paranoid, where it keeps us from sampling.
pub fn too_paranoid(rights: Rights) -> Option<i32> {
    // It looks at the attributes first, so that only a true event tells.
    let first = clock::online_cpus().first().copied().unwrap_or(0);
    rights.too_paranoid().filter(|_| clock::is_refused(first))
}

/// Those of the system calls that only a sampler makes which are refused before the kernel
/// looks at what is asked: by a filter, by a security module, or for want of capabilities.
pub fn refused_calls() -> Vec<&'static str> {
    let calls = [("bpf", libc::SYS_bpf, -1), ("perf_event_open", libc::SYS_perf_event_open, 0)];
    let refused = |number, first: libc::c_long| {
        // SAFETY: a command that does not exist, or attributes at address 0: the call fails in any case.
        let result = unsafe { libc::syscall(number, first, 0, -1, -1, 0) };
        let error = std::io::Error::last_os_error().raw_os_error();
        result < 0 && matches!(error, Some(libc::EPERM | libc::EACCES | libc::ENOSYS))
    };
    calls.into_iter().filter(|(_, number, first)| refused(*number, *first)).map(|(name, ..)| name).collect()
}

/// CLOCK_MONOTONIC in nanoseconds: the clock of every time stamp of the kernel side.
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec to write to; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
