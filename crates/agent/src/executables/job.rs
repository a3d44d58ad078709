//! What waits for the worker, the smallest first: facts, then tables, then symbols.

use std::{
    cmp::Ordering,
    collections::BinaryHeap,
    fs::File,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use everflame_profile::Str;

use crate::worker::protocol::Wish;

/// Jobs that wait at most; each holds an open file. What finds no place is tried again later.
pub const MAX_JOBS: usize = 256;

/// A file and what is to be made of it.
#[derive(Debug)]
pub struct Job {
    pub number: u32,
    pub wish: Wish,
    pub size: u64,
    pub name: Str,
    pub file: File,
}

impl Job {
    fn rank(&self) -> (Wish, u64, u32) {
        (self.wish, self.size, self.number)
    }
}

impl PartialEq for Job {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}
impl Eq for Job {}
impl PartialOrd for Job {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Job {
    /// The greatest is taken first: it is the one of the lowest rank.
    fn cmp(&self, other: &Self) -> Ordering {
        other.rank().cmp(&self.rank())
    }
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: BinaryHeap<Job>,
    running: Option<Wish>,
    stopped: bool,
}

/// The queue between tracker and builder.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the job back where there is no room.
    pub fn push(&self, job: Job) -> Result<(), Job> {
        let mut waiting = self.lock();
        if waiting.jobs.len() >= MAX_JOBS {
            return Err(job);
        }
        waiting.jobs.push(job);
        self.changed.notify_one();
        Ok(())
    }

    /// The next job; `None` after `patience` without one. The one before counts as done.
    pub fn pop(&self, patience: Duration) -> Option<Job> {
        let mut waiting = self.lock();
        waiting.running = None;
        if waiting.jobs.is_empty() && !waiting.stopped {
            waiting =
                self.changed.wait_timeout(waiting, patience).map_or_else(|e| e.into_inner().0, |(guard, _)| guard);
        }
        let job = waiting.jobs.pop();
        waiting.running = job.as_ref().map(|job| job.wish);
        job
    }

    /// Whether anything waits or is under way.
    pub fn is_busy(&self) -> bool {
        let waiting = self.lock();
        waiting.running.is_some() || !waiting.jobs.is_empty()
    }

    /// Whether an unwind table, or what decides on one, waits or is under way.
    pub fn has_tables(&self) -> bool {
        let waiting = self.lock();
        let concerns = |wish: &Wish| *wish != Wish::Index;
        waiting.running.as_ref().is_some_and(concerns) || waiting.jobs.iter().any(|job| concerns(&job.wish))
    }

    /// Jobs that still find a place.
    pub fn room(&self) -> usize {
        MAX_JOBS - self.lock().jobs.len()
    }

    /// Forgets all jobs and lets the builder end.
    pub fn stop(&self) {
        let mut waiting = self.lock();
        waiting.stopped = true;
        waiting.jobs.clear();
        self.changed.notify_all();
    }

    /// Whether it was stopped.
    pub fn is_stopped(&self) -> bool {
        self.lock().stopped
    }
}
