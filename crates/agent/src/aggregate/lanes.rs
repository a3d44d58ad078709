//! Samples whose pod is still to be told wait beside the others, for at most ten seconds. They
//! are counted as in the aggregate like all, and go on under the names that are known by then.

use std::{
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use everflame_profile::{Batch, Str};
use rustc_hash::FxHashSet;

use super::Aggregate;
use crate::{identity::Describe, sample::RawSample, who::Cgroup};

/// How long a sample waits for the name of its pod.
pub const WAIT: Duration = Duration::from_secs(10);
/// Containers that are remembered as never named, at most; when there are more, all are forgotten.
const MAX_GIVEN_UP: usize = 4096;

/// What became of those that waited, since the start.
#[derive(Debug, Default)]
pub struct Waited {
    /// Samples that waited.
    pub samples: AtomicU64,
    /// Containers that were not named in time.
    pub given_up: AtomicU64,
}

/// Two aggregates: one for samples that are known as well as they will be, one for the others.
#[derive(Debug)]
pub struct Lanes {
    ready: Aggregate,
    waiting: Aggregate,
    /// When the first of those that wait came.
    since: Option<Instant>,
    /// Containers that were waited for in vain: named as soon as they can be, but not waited for.
    given_up: FxHashSet<(Str, Str)>,
    waited: Arc<Waited>,
}

impl Lanes {
    /// `make` makes an empty aggregate.
    pub fn new(make: impl Fn() -> Aggregate) -> Self {
        let (ready, waiting) = (make(), make().beside());
        Self { ready, waiting, since: None, given_up: FxHashSet::default(), waited: Arc::default() }
    }

    /// What became of those that waited.
    pub fn waited(&self) -> &Arc<Waited> {
        &self.waited
    }

    /// Samples since the last seal, those that wait left out.
    pub fn samples(&self) -> u64 {
        self.ready.samples()
    }

    /// Samples that wait.
    pub fn waiting(&self) -> u64 {
        self.waiting.samples()
    }

    /// See [`Aggregate::look_at_clock`].
    pub fn look_at_clock(&mut self) {
        self.ready.look_at_clock();
        self.waiting.look_at_clock();
    }

    /// Adds one sample; hands over the batch that is full with it.
    pub fn add(&mut self, sample: &RawSample, describe: &dyn Describe) -> Option<Batch> {
        let name = self.ready.thread(sample);
        let process = describe.process(sample, &name);
        let cgroup = &process.cgroup;
        let awaited =
            !cgroup.pod.is_empty() && describe.location(cgroup).awaited && !self.given_up.contains(&key(cgroup));
        if !awaited {
            self.ready.add_of(sample, process, describe);
            return if self.ready.is_full() { self.ready.seal(describe) } else { None };
        }
        self.since.get_or_insert_with(Instant::now);
        self.waited.samples.fetch_add(1, Relaxed);
        self.waiting.add_of(sample, process, describe);
        if self.waiting.is_full() { self.seal_waiting(describe) } else { None }
    }

    /// Hands over those that need not wait.
    pub fn seal(&mut self, describe: &dyn Describe) -> Option<Batch> {
        self.ready.seal(describe)
    }

    /// Hands over those that waited, once all of them are named or the first has waited for `wait`.
    pub fn seal_waited(&mut self, describe: &dyn Describe, wait: Duration) -> Option<Batch> {
        let since = self.since?;
        let named = || self.waiting.processes().all(|process| !describe.location(&process.cgroup).awaited);
        if since.elapsed() < wait && !named() {
            return None;
        }
        self.seal_waiting(describe)
    }

    fn seal_waiting(&mut self, describe: &dyn Describe) -> Option<Batch> {
        self.since = None;
        let unnamed = self.waiting.processes().map(|process| &process.cgroup);
        let unnamed: FxHashSet<_> =
            unnamed.filter(|cgroup| describe.location(cgroup).awaited).map(|c| key(c)).collect();
        self.waited.given_up.fetch_add(unnamed.len() as u64, Relaxed);
        if self.given_up.len() + unnamed.len() > MAX_GIVEN_UP {
            self.given_up.clear();
        }
        self.given_up.extend(unnamed);
        self.waiting.seal(describe)
    }
}

fn key(cgroup: &Cgroup) -> (Str, Str) {
    (Str::clone(&cgroup.pod), Str::clone(&cgroup.container))
}
