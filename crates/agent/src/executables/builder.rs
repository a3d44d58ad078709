//! The thread that asks the worker, so that the tracker never waits for it.

use std::{
    sync::{
        Arc,
        mpsc::{SyncSender, TrySendError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::job::{Job, Queue};
use crate::worker::{
    client::{Worker, WorkerError},
    protocol::Request,
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
    /// Workers started so far.
    pub starts: u64,
}

/// The thread. Dropping it waits for its end; stop the queue before.
#[derive(Debug)]
pub struct Builder {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl Builder {
    /// Starts the thread. Outcomes go to `done`, and `wake` is called after each.
    pub fn start(
        queue: Arc<Queue>,
        mut worker: Worker,
        done: SyncSender<Outcome>,
        wake: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        let jobs = Arc::clone(&queue);
        let thread = thread::Builder::new().name("builder".into()).spawn(move || {
            while !jobs.is_stopped() {
                let Some(job) = jobs.pop(REST_AFTER) else {
                    worker.rest();
                    continue;
                };
                let result = ask(&jobs, &mut worker, &job);
                let mut outcome = Outcome { job, result, starts: worker.starts() };
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
        })?;
        Ok(Self { queue, thread: Some(thread) })
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
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
