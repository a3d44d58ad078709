//! Lanes: blocking work (store, symbols) on a bounded number of threads, with a
//! bounded number of requests that wait for one, and a clear "busy" beyond.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::Semaphore;

use crate::web::error::ApiError;

/// Appends that are decoded and written at the same time. Group commit makes several
/// of them share one write to the disk.
pub const INGEST_THREADS: usize = 4;
/// Requests that wait for one of those.
pub const INGEST_WAITING: usize = 512;
/// Queries that run at the same time: as many as there are CPUs, but no more than
/// these, since each may hold a whole cluster's stacks.
pub const MAX_QUERY_THREADS: usize = 8;
/// Queries that wait for one of those.
pub const QUERY_WAITING: usize = 64;
/// How long a request waits for a thread.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// One lane.
#[derive(Debug)]
pub struct Lane {
    what: &'static str,
    threads: Arc<Semaphore>,
    waiting: AtomicUsize,
    most_waiting: usize,
    /// Requests that were told that the lane is busy.
    pub refused: AtomicU64,
}

/// Counts a waiting request for as long as it lives, also when it is given up.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Threads for queries on this machine.
pub fn query_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MAX_QUERY_THREADS)
}

impl Lane {
    /// A lane for `what`, with so many threads and places to wait.
    pub fn new(what: &'static str, threads: usize, most_waiting: usize) -> Self {
        let threads = Arc::new(Semaphore::new(threads));
        Self { what, threads, waiting: AtomicUsize::new(0), most_waiting, refused: AtomicU64::new(0) }
    }

    /// Runs blocking work and answers its outcome, or "busy".
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let permit = {
            let ahead = self.waiting.fetch_add(1, Ordering::Relaxed);
            let _waiting = Waiting(&self.waiting);
            if ahead >= self.most_waiting {
                return Err(self.busy());
            }
            match tokio::time::timeout(PATIENCE, self.threads.clone().acquire_owned()).await {
                Ok(Ok(permit)) => permit,
                Ok(Err(_)) | Err(_) => return Err(self.busy()),
            }
        };
        let outcome = tokio::task::spawn_blocking(move || {
            // The thread counts until the work is done, even if nobody waits for it.
            let _permit = permit;
            work()
        });
        outcome.await.unwrap_or_else(|error| {
            tracing::error!(%error, what = self.what, "a request failed inside the server");
            Err(ApiError::internal(format!("the {} failed inside the server: see its log", self.what)))
        })
    }

    fn busy(&self) -> ApiError {
        self.refused.fetch_add(1, Ordering::Relaxed);
        ApiError::busy(format!("too many requests wait for {}: try again in a second", self.what))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_full_lane_says_so_and_recovers() {
        let lane = Arc::new(Lane::new("tests", 1, 2));
        let (release, blocked) = mpsc::sync_channel::<()>(1);
        let (started, running) = tokio::sync::oneshot::channel();
        let first = tokio::spawn({
            let lane = lane.clone();
            async move {
                let work = move || {
                    let _ = started.send(());
                    let _ = blocked.recv();
                    Ok(())
                };
                lane.run(work).await
            }
        });
        running.await.expect("the thread is taken");
        let waiting: Vec<_> = (0..2)
            .map(|n| {
                tokio::spawn({
                    let lane = lane.clone();
                    async move { lane.run(move || Ok(n)).await }
                })
            })
            .collect();
        while lane.waiting.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
        let refused = lane.run(|| Ok(())).await.expect_err("a refusal");
        assert_eq!((refused.code, lane.refused.load(Ordering::Relaxed)), ("busy", 1));
        release.send(()).expect("a thread that waits");
        assert!(first.await.expect("no panic").is_ok());
        for (n, waited) in waiting.into_iter().enumerate() {
            assert_eq!(waited.await.expect("no panic").ok(), Some(n));
        }
        assert_eq!(lane.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let lane = Lane::new("tests", 1, 1);
        let error = lane.run(|| -> Result<(), ApiError> { panic!("in a test") }).await.expect_err("an error");
        assert_eq!(error.code, "internal");
        assert!(lane.run(|| Ok(())).await.is_ok(), "the thread is given back");
    }
}
