//! Recording for a while on one machine, without a server: what `everflame record` uses.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use everflame_profile::{Batch, Completeness, ContentId};

use crate::{
    AgentConfig, AgentError,
    aggregate::Aggregate,
    processes::TrackerOptions,
    sampler::{Sampler, Sampling, Turn},
};

/// How long the end of a recording waits for the symbols of what it saw.
const SYMBOLS_WITHIN: Duration = Duration::from_secs(20);

/// How long its beginning waits for the unwind tables of what runs already.
const TABLES_WITHIN: Duration = Duration::from_secs(3);

/// A recording under way.
#[derive(Debug)]
pub struct Recorder {
    sampling: Sampling,
    aggregate: Aggregate,
    indexes: Arc<Mutex<HashMap<ContentId, Vec<u8>>>>,
    own: u64,
}

/// What was recorded.
#[derive(Debug)]
pub struct Recording {
    /// The samples.
    pub batch: Batch,
    /// Symbol indexes of the executables that were met.
    pub indexes: HashMap<ContentId, Vec<u8>>,
    /// Samples that were lost because the ring was full.
    pub lost: u64,
    /// Samples of this process itself, which are left out.
    pub own: u64,
}

impl Recorder {
    /// Starts to sample.
    pub fn start(sampler: Sampler, config: AgentConfig) -> Result<Self, AgentError> {
        let indexes = Arc::new(Mutex::new(HashMap::new()));
        let sink = Arc::clone(&indexes);
        let tracker = TrackerOptions {
            indexes: Some(Box::new(move |index| {
                sink.lock().unwrap_or_else(PoisonError::into_inner).insert(index.content_id, index.bytes);
            })),
            ..config.tracker()
        };
        let sampling = sampler.start(tracker)?;
        // What is recorded begins with unwind tables for all that runs already, or nearly.
        let until = Instant::now() + TABLES_WITHIN;
        while !(sampling.tracker().ready() && sampling.tracker().has_tables()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { sampling, aggregate: Aggregate::unbounded(&config.node), indexes, own: 0 })
    }

    /// Samples these processes and the children they will have (where the sampler was told
    /// to sample only wanted ones).
    pub fn want(&self, pids: &[u32]) -> Result<(), AgentError> {
        for &pid in pids {
            self.sampling.programs().want(pid)?;
        }
        Ok(())
    }

    /// Samples the processes that `work` starts. The mark passes from us to them at their
    /// fork, so that nothing of them is missed.
    pub fn with_children_wanted<T>(&self, work: impl FnOnce() -> T) -> Result<T, AgentError> {
        let own = std::process::id();
        self.sampling.programs().want(own)?;
        let result = work();
        self.sampling.programs().unwant(own);
        Ok(result)
    }

    /// Takes the samples that are there; waits at most `timeout` for them.
    pub fn turn(&mut self, timeout: Duration) -> Result<(), AgentError> {
        // The ring says nothing until it is half full: a short nap bounds how old samples get.
        let turn = self.sampling.turn(timeout);
        self.add(turn);
        Ok(())
    }

    /// Ends the sampling and hands over all that was recorded.
    pub fn finish(mut self) -> Result<Recording, AgentError> {
        let turn = self.sampling.finish();
        self.add(turn);
        let tracker = self.sampling.tracker();
        let until = Instant::now() + SYMBOLS_WITHIN;
        while tracker.building() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        let lost = self.sampling.counters().sums().ring_full;
        self.sampling.tracker().stop();
        let indexes = std::mem::take(&mut *self.indexes.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Recording {
            batch: self.aggregate.seal(self.sampling.describer()).unwrap_or_default(),
            indexes,
            lost,
            own: self.own,
        })
    }

    fn add(&mut self, turn: Turn) {
        self.aggregate.look_at_clock();
        let own = std::process::id();
        for sample in &turn.samples {
            if sample.pid == own {
                self.own += 1;
            } else {
                self.aggregate.add(sample, self.sampling.describer());
            }
        }
    }
}

impl Recording {
    /// Samples whose stacks reached their roots.
    pub fn complete(&self) -> u64 {
        let samples = self.batch.profiles.iter().flat_map(|p| &p.samples);
        let complete = samples.filter(|s| s.completeness == Completeness::Complete);
        complete.flat_map(|s| &s.points).map(|p| p.samples).sum()
    }
}
