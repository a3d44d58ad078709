//! What waits for the workers. There are two lanes, so that what takes long never stands in
//! the way of what does not: facts and tables of ordinary files in one, those of big files and
//! symbol indexes in the other. What a sample waits for comes first; then facts come before
//! tables and tables before indexes, and small files before large ones.

use std::{
    fs::File,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use everflame_profile::{ContentId, Str};
use rustc_hash::FxHashSet;

use crate::{memory::Share, worker::protocol::Wish};

/// Jobs that wait at most; each holds an open file. What finds no place is tried again later.
pub const MAX_JOBS: usize = 256;
/// From this size on a file takes long enough to be a reason to let others pass.
const BIG_FILE: u64 = 128 << 20;

/// A file and what is to be made of it.
#[derive(Debug)]
pub struct Job {
    pub number: u32,
    pub wish: Wish,
    pub size: u64,
    pub name: Str,
    /// What the file is, once that is known.
    pub content: Option<ContentId>,
    pub file: File,
}

/// Who does a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// What the next samples wait for.
    Quick,
    /// The same of big files, and what nobody waits for.
    Slow,
}

impl Lane {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Quick, Self::Slow];

    /// Name of the thread.
    pub fn name(self) -> &'static str {
        ["builder", "builder-slow"][self as usize]
    }

    /// Its part of the memory.
    pub fn share(self) -> Share {
        [Share::Quick, Share::Slow][self as usize]
    }

    /// How much it stands back for others, as `nice` counts.
    pub fn nice(self) -> i32 {
        [0, 10][self as usize]
    }
}

impl Job {
    fn lane(&self) -> Lane {
        if self.wish == Wish::Index || self.size >= BIG_FILE { Lane::Slow } else { Lane::Quick }
    }
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: [Vec<Job>; 2],
    /// Executables that samples wait for.
    awaited: FxHashSet<u32>,
    running: [Option<Wish>; 2],
    stopped: bool,
}

impl Waiting {
    fn count(&self) -> usize {
        self.jobs.iter().map(Vec::len).sum()
    }

    /// Takes out the job that is to be done next. There are few: they are looked through.
    fn take(&mut self, lane: usize) -> Option<Job> {
        let rank = |job: &Job| {
            let awaited = job.wish != Wish::Index && self.awaited.contains(&job.number);
            (!awaited, job.wish, job.size, job.number)
        };
        let (at, _) = self.jobs[lane].iter().enumerate().min_by_key(|(_, job)| rank(job))?;
        Some(self.jobs[lane].swap_remove(at))
    }
}

/// The queue between tracker and builders.
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
        if waiting.count() >= MAX_JOBS {
            return Err(job);
        }
        waiting.jobs[job.lane() as usize].push(job);
        self.changed.notify_all();
        Ok(())
    }

    /// From now on the facts and tables of these executables come first: samples wait for them.
    pub fn prefer(&self, awaited: FxHashSet<u32>) {
        self.lock().awaited = awaited;
    }

    /// The lane's next job; `None` after `patience` without one. The one before counts as done.
    pub fn pop(&self, lane: Lane, patience: Option<Duration>) -> Option<Job> {
        let lane = lane as usize;
        let mut waiting = self.lock();
        waiting.running[lane] = None;
        let nothing = |waiting: &mut Waiting| waiting.jobs[lane].is_empty() && !waiting.stopped;
        waiting = match patience {
            Some(patience) => self
                .changed
                .wait_timeout_while(waiting, patience, nothing)
                .map_or_else(|e| e.into_inner().0, |(guard, _)| guard),
            None => self.changed.wait_while(waiting, nothing).unwrap_or_else(PoisonError::into_inner),
        };
        let job = waiting.take(lane);
        waiting.running[lane] = job.as_ref().map(|job| job.wish);
        job
    }

    /// Whether anything waits or is under way.
    pub fn is_busy(&self) -> bool {
        let waiting = self.lock();
        waiting.running.iter().any(Option::is_some) || waiting.count() > 0
    }

    /// Whether an unwind table, or what decides on one, waits or is under way.
    pub fn has_tables(&self) -> bool {
        let waiting = self.lock();
        let waits = waiting.jobs.iter().flatten().map(|job| job.wish);
        waiting.running.iter().flatten().copied().chain(waits).any(|wish| wish != Wish::Index)
    }

    /// Jobs that still find a place.
    pub fn room(&self) -> usize {
        MAX_JOBS - self.lock().count()
    }

    /// Forgets all jobs and lets the builders end.
    pub fn stop(&self) {
        let mut waiting = self.lock();
        waiting.stopped = true;
        waiting.jobs.iter_mut().for_each(Vec::clear);
        self.changed.notify_all();
    }

    /// Whether it was stopped.
    pub fn is_stopped(&self) -> bool {
        self.lock().stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(number: u32, wish: Wish, size: u64) -> Job {
        let file = File::open("/dev/null").unwrap();
        Job { number, wish, size, name: "x".into(), content: None, file }
    }

    const NOW: Option<Duration> = Some(Duration::ZERO);

    #[test]
    fn what_takes_long_stands_in_nobodys_way() {
        let queue = Queue::default();
        for job in [
            job(8, Wish::Table, 1 << 30),
            job(9, Wish::Index, 10),
            job(10, Wish::Table, 1 << 20),
            job(11, Wish::Facts, 1 << 21),
            job(12, Wish::Table, 1 << 10),
        ] {
            queue.push(job).unwrap();
        }
        let next = |lane| queue.pop(lane, NOW).map(|job| job.number);
        assert_eq!(next(Lane::Slow), Some(8), "it is under way from now on");
        let quick: Vec<_> = std::iter::from_fn(|| next(Lane::Quick)).collect();
        assert_eq!(quick, [11, 12, 10], "facts first, then the smallest");
        assert!(queue.has_tables() && queue.is_busy());
        assert_eq!(next(Lane::Slow), Some(9));
        assert!(!queue.has_tables() && queue.is_busy(), "an index is still under way");
    }

    #[test]
    fn what_samples_wait_for_comes_first() {
        let queue = Queue::default();
        for job in
            [job(8, Wish::Facts, 1), job(9, Wish::Table, 1 << 20), job(10, Wish::Table, 1), job(9, Wish::Index, 1)]
        {
            queue.push(job).unwrap();
        }
        queue.push(job(11, Wish::Table, 1 << 30)).unwrap();
        queue.prefer([9, 11].into_iter().collect());
        let all = |lane| std::iter::from_fn(|| queue.pop(lane, NOW)).map(|job| job.number).collect::<Vec<_>>();
        assert_eq!(all(Lane::Quick), [9, 8, 10]);
        assert_eq!(all(Lane::Slow), [11, 9], "nobody waits for an index");
    }

    #[test]
    fn a_full_queue_gives_the_job_back() {
        let queue = Queue::default();
        for number in 0..MAX_JOBS as u32 {
            queue.push(job(number, Wish::Table, u64::from(number) << 20)).unwrap();
        }
        assert_eq!(queue.room(), 0);
        assert_eq!(queue.push(job(999, Wish::Facts, 1)).unwrap_err().number, 999);
        queue.stop();
        assert!(queue.pop(Lane::Quick, None).is_none(), "nobody waits for a queue that was stopped");
    }
}
