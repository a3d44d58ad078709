//! What others hold of the tracker: questions to ask and news to tell it.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    thread::JoinHandle,
};

use everflame_profile::{Completeness, Mapping, Str};

use super::{shared::Shared, stats::TrackerStats};
use crate::{
    bpf::abi,
    executables::Queue,
    identity::ProcessIdentity,
    sample::{ExecutableNumber, FIRST_EXECUTABLE, Place, RawSample},
};

/// The tracker, as others see it. Cheap to clone; never blocks but in [`stop`](Self::stop).
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Arc<Queue>,
    pub(super) thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Handle {
    /// The process that had `pid` at `time` (CLOCK_MONOTONIC, nanoseconds); one that nothing
    /// is known of is named after its thread's `comm` and has generation 0.
    pub fn process(&self, pid: u32, time: u64, comm: &str) -> Arc<ProcessIdentity> {
        self.shared.identity(pid, time).unwrap_or_else(|| {
            self.shared.note_unknown(pid);
            let empty: Str = Arc::from("");
            Arc::new(ProcessIdentity {
                pid,
                generation: 0,
                name: Arc::from(comm),
                path: empty.clone(),
                cgroup: Arc::default(),
                service: empty,
                named: false,
                located: false,
            })
        })
    }

    /// The file behind an executable number.
    pub fn executable(&self, number: ExecutableNumber) -> Option<Arc<Mapping>> {
        self.shared.mapping(number)
    }

    /// A sample names the executable: its unwind table is to stay, or to come back.
    pub fn touch(&self, number: ExecutableNumber) {
        if number >= FIRST_EXECUTABLE {
            self.shared.touch(number);
        }
    }

    /// A sample of the process was in no mapping that the kernel side knows of.
    pub fn note_unknown_mapping(&self, pid: u32) {
        self.shared.note_unknown(pid);
    }

    /// What a sample tells the tracker: what is in use, and what is not known.
    pub fn note_sample(&self, sample: &RawSample) {
        let mut last = 0;
        for frame in &sample.stack.user {
            if let Place::File { executable, .. } = frame.place()
                && executable != last
            {
                self.shared.touch(executable);
                last = executable;
            }
        }
        self.shared.note_sampled(sample.pid);
        if matches!(sample.completeness, Completeness::UnknownMapping | Completeness::TableChanged) {
            self.note_unknown_mapping(sample.pid);
        }
    }

    /// Takes in samples that are late; they come out of [`walked`](Self::walked), whole or as
    /// they are. Gives back those for which there is no room.
    pub fn walk_late(&self, samples: impl IntoIterator<Item = RawSample>) -> Vec<RawSample> {
        let refused: Vec<_> = samples.into_iter().filter_map(|sample| self.shared.late.offer(sample).err()).collect();
        self.shared.stats.late_refused.add(refused.len() as u64);
        self.shared.wake();
        refused
    }

    /// Samples that were late and are as whole as they will be.
    pub fn walked(&self) -> Vec<RawSample> {
        self.shared.late.take()
    }

    /// How many late samples wait.
    pub fn late(&self) -> usize {
        self.shared.late.waiting()
    }

    /// The mappings that a process had at a time (CLOCK_MONOTONIC, nanoseconds), sorted; `None`
    /// where that is not known any more. Waits for the tracker's next turn.
    pub fn mappings(&self, pid: u32, time: u64) -> Option<Vec<abi::Mapping>> {
        self.shared.asked.ask(pid, time, || self.shared.wake())
    }

    /// From now on late samples wait for nothing.
    pub fn hurry(&self) {
        self.shared.late.hurry();
        self.shared.wake();
    }

    /// CPUs came: what runs on them is to be followed as well.
    pub fn follow_cpus(&self) {
        self.shared.cpus_came.store(true, Ordering::Release);
        self.shared.wake();
    }

    /// Whether all processes that were there at the start have been handed to the kernel.
    pub fn ready(&self) -> bool {
        self.shared.ready.load(Ordering::Acquire)
    }

    /// Up to when (CLOCK_MONOTONIC, nanoseconds) all that happened to processes is known, as far
    /// as it is ever told; 0 until those that ran before us have been read.
    pub fn known_until(&self) -> u64 {
        self.shared.known_until.load(Ordering::Acquire)
    }

    /// Whether unwind tables or symbol indexes are being built.
    pub fn building(&self) -> bool {
        self.queue.is_busy()
    }

    /// Whether all that run have the unwind tables that they can have.
    pub fn has_tables(&self) -> bool {
        !self.queue.has_tables()
    }

    /// The tracker's figures.
    pub fn stats(&self) -> TrackerStats {
        self.shared.stats.snapshot()
    }

    /// Ends the tracker and its worker, and waits for their end. What was known can still be
    /// asked for.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Release);
        self.queue.stop();
        self.shared.wake();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}
