//! Who and what: the facts that turn a raw sample into one that means something off
//! this machine.

use std::sync::Arc;

use everflame_profile::{Frame, Mapping, Str};

use crate::{
    sample::{ExecutableNumber, RawSample},
    who::{Cgroup, Location},
};

/// What is known of a process at the time of a sample.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProcessIdentity {
    /// Process id in the host's PID namespace.
    pub pid: u32,
    /// Grows when the pid is used again or runs another image (exec).
    pub generation: u64,
    /// Base name of the executable; of a kernel thread its name.
    pub name: Str,
    /// Path of the executable as the process sees it, empty where unknown.
    pub path: Str,
    /// The control group that it is in: container, pod, systemd unit.
    pub cgroup: Arc<Cgroup>,
    /// The service that its environment names, empty where it names none.
    pub service: Str,
    /// Whether name and path are those of its executable, and not of a thread of it.
    pub named: bool,
    /// Whether the control group is the one that it is in, and not of who made it, or none.
    pub located: bool,
}

/// Answers for the aggregate: the agent's tables, or a test's.
pub trait Describe {
    /// The process of a sample, in the control group that it was in then. A process that
    /// nothing is known of is named after the thread's `comm`.
    fn process(&self, sample: &RawSample, comm: &str) -> Arc<ProcessIdentity>;

    /// What is known now of where the processes of a control group run.
    fn location(&self, cgroup: &Cgroup) -> Arc<Location>;

    /// The file behind an executable number.
    fn executable(&self, number: ExecutableNumber) -> Option<Arc<Mapping>>;

    /// The named frame of a kernel address.
    fn kernel_frame(&self, address: u64) -> Frame;
}
