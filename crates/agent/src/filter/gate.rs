//! Where filters are applied: before samples are looked at by anybody who would tell others of
//! them. A sample that nobody can judge yet waits here; for the ledger it is in the aggregate.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use super::{Cleared, Filter, Verdict, attribute::Facts};
use crate::{
    aggregate::Origin,
    identity::{Describe, ProcessIdentity},
    sample::{FIRST_EXECUTABLE, Place, RawSample},
    status::Metrics,
    who::Location,
};

/// Samples that wait, at most: of more, the oldest are dropped.
pub const MAX_HELD: usize = 16_384;
/// Processes whose verdicts are kept; when there are more, all are judged anew.
const MAX_JUDGED: usize = 8_192;

/// What became of samples here, since the start.
#[derive(Debug, Default)]
pub struct GateFigures {
    /// That wait now.
    pub held: AtomicU64,
    /// Dropped, because nobody told in time what a filter asks for.
    pub unknown: AtomicU64,
    /// Dropped, because too many waited.
    pub crowded: AtomicU64,
}

/// The gate.
#[derive(Debug)]
pub struct Gate {
    filter: Filter,
    origin: Origin,
    /// In the order of their coming.
    held: VecDeque<(Instant, RawSample)>,
    judged: FxHashMap<u32, Judged>,
    cleared: Arc<Cleared>,
    figures: Arc<GateFigures>,
}

/// A verdict, and of whom.
#[derive(Debug)]
struct Judged {
    process: Arc<ProcessIdentity>,
    location: Arc<Location>,
    verdict: Verdict,
}

impl Gate {
    /// For samples that are sent as coming from `origin`.
    pub fn new(filter: Filter, origin: Origin) -> Self {
        Self {
            filter,
            origin,
            held: VecDeque::new(),
            judged: FxHashMap::default(),
            cleared: Arc::default(),
            figures: Arc::default(),
        }
    }

    /// The executables that samples which went on name.
    pub fn cleared(&self) -> &Arc<Cleared> {
        &self.cleared
    }

    /// What became of samples here.
    pub fn figures(&self) -> &Arc<GateFigures> {
        &self.figures
    }

    /// Those that may go on, of fresh ones and of those that waited; and how many are dropped. None
    /// waits for longer than `patience`.
    pub fn pass(
        &mut self,
        fresh: Vec<RawSample>,
        describe: &dyn Describe,
        patience: Duration,
    ) -> (Vec<RawSample>, u64) {
        let now = Instant::now();
        let mut passed = Vec::with_capacity(fresh.len());
        let mut dropped = 0;
        let waited = std::mem::take(&mut self.held);
        for (since, sample) in waited.into_iter().chain(fresh.into_iter().map(|sample| (now, sample))) {
            match self.verdict(&sample, describe) {
                Verdict::Allowed => {
                    self.clear(&sample, describe);
                    passed.push(sample);
                }
                // Without the copy of its stack: what waits is to be small.
                Verdict::Unknown if now - since < patience => {
                    self.held.push_back((since, RawSample { copy: None, ..sample }));
                }
                verdict => {
                    dropped += 1;
                    self.figures.unknown.fetch_add(u64::from(verdict == Verdict::Unknown), Relaxed);
                }
            }
        }
        let crowd = self.held.len().saturating_sub(MAX_HELD);
        self.held.drain(..crowd);
        self.figures.crowded.fetch_add(crowd as u64, Relaxed);
        self.figures.held.store(self.held.len() as u64, Relaxed);
        (passed, dropped + crowd as u64)
    }

    fn verdict(&mut self, sample: &RawSample, describe: &dyn Describe) -> Verdict {
        let process = describe.process(sample, &sample.thread());
        let location = describe.location(&process.cgroup);
        if let Some(judged) = self.judged.get(&sample.pid)
            && judged.process == process
            && Arc::ptr_eq(&judged.location, &location)
        {
            return judged.verdict;
        }
        let labels = self.origin.labels(&process, &location);
        let verdict = self.filter.verdict(&labels, Facts { process: &process, location: &location });
        if self.judged.len() >= MAX_JUDGED {
            self.judged.clear();
        }
        self.judged.insert(sample.pid, Judged { process, location, verdict });
        verdict
    }

    /// What its executables are called may be told.
    fn clear(&self, sample: &RawSample, describe: &dyn Describe) {
        let mut last = 0;
        for frame in &sample.stack.user {
            if let Place::File { executable, .. } = frame.place()
                && executable != last
                && executable >= FIRST_EXECUTABLE
            {
                last = executable;
                if let Some(content) = describe.executable(executable).and_then(|mapping| mapping.content_id) {
                    self.cleared.add(content);
                }
            }
        }
    }
}

impl GateFigures {
    /// For `/metrics`.
    pub fn metrics(&self, to: &mut Metrics) {
        let held = self.held.load(Relaxed) as f64;
        to.gauge("filter_samples_waiting", "Samples that no filter can judge yet.", &[], held);
        let help = "Samples that were filtered although no filter names them, by cause.";
        for (cause, figure) in [("unknown", &self.unknown), ("crowded", &self.crowded)] {
            to.counter("filter_samples_unjudged", help, &[("cause", cause)], figure.load(Relaxed) as f64);
        }
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
