//! The threads that ask the workers, one a lane, so that the tracker never waits for them.

use std::{
    sync::{
        Arc,
        mpsc::{SyncSender, TrySendError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    cache::TableCache,
    job::{Job, Lane, Queue},
};
use crate::{
    sys,
    worker::{
        client::{Worker, WorkerError},
        protocol::{Request, Wish, is_table},
    },
};

/// A worker without work for so long is ended, and its memory goes back.
const REST_AFTER: Duration = Duration::from_secs(5);
/// Where no worker can be started, how long until the next attempt.
const START_AGAIN: Duration = Duration::from_secs(1);

/// A job and what came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The job, with its file.
    pub job: Job,
    /// The bytes, or why there are none.
    pub result: Result<Vec<u8>, WorkerError>,
    /// Workers started for it.
    pub starts: u64,
    /// It was on disk.
    pub cached: bool,
}

/// The threads. Dropping them waits for their end; stop the queue before.
#[derive(Debug)]
pub struct Builder {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl Builder {
    /// Starts the threads, with a worker each. Outcomes go to `done`, and `wake` is called after each.
    pub fn start(
        queue: &Arc<Queue>,
        worker: impl Fn(Lane) -> Worker,
        cache: Option<TableCache>,
        done: &SyncSender<Outcome>,
        wake: impl Fn() + Clone + Send + 'static,
    ) -> std::io::Result<Self> {
        let mut builder = Self { queue: Arc::clone(queue), threads: Vec::new() };
        let cache = cache.map(Arc::new);
        for lane in Lane::ALL {
            let (jobs, cache, done, wake) = (Arc::clone(queue), cache.clone(), done.clone(), wake.clone());
            let mut worker = worker(lane);
            let run = move || {
                // The workers that this thread starts inherit it.
                sys::stand_back(lane.nice());
                serve(lane, &jobs, &mut worker, cache.as_deref(), &done, wake);
            };
            builder.threads.push(thread::Builder::new().name(lane.name().into()).spawn(run)?);
        }
        Ok(builder)
    }
}

fn serve(
    lane: Lane,
    jobs: &Queue,
    worker: &mut Worker,
    cache: Option<&TableCache>,
    done: &SyncSender<Outcome>,
    wake: impl Fn(),
) {
    while !jobs.is_stopped() {
        // At rest there is nothing to wake up for.
        let Some(job) = jobs.pop(lane, worker.is_running().then_some(REST_AFTER)) else {
            worker.rest();
            continue;
        };
        let before = worker.starts();
        let kept = cache.filter(|_| job.wish == Wish::Table).zip(job.content);
        let found = kept.and_then(|(cache, content)| cache.get(content));
        let cached = found.is_some();
        let result = found.map_or_else(|| ask(jobs, worker, &job), Ok);
        if let (Some((cache, content)), Ok(table), false) = (kept, &result, cached)
            && is_table(table)
        {
            cache.put(content, table);
        }
        let mut outcome = Outcome { job, result, starts: worker.starts() - before, cached };
        // The tracker takes them each time it is awake; wait for it without a deadlock at the end.
        loop {
            match done.try_send(outcome) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) if !jobs.is_stopped() => outcome = back,
                Err(_) => return,
            }
            thread::sleep(Duration::from_millis(5));
        }
        wake();
    }
}

/// Asks until there was a worker to ask.
fn ask(jobs: &Queue, worker: &mut Worker, job: &Job) -> Result<Vec<u8>, WorkerError> {
    let request = Request { size: job.size, wish: job.wish, name: job.name.to_string() };
    let mut said = false;
    loop {
        match worker.ask(&job.file, &request) {
            Err(WorkerError::Start(e)) if !jobs.is_stopped() => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!("{}", WorkerError::Start(e));
                }
                thread::sleep(START_AGAIN);
            }
            result => return result,
        }
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        self.queue.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
