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
/// Queries that run at the same time.
pub const QUERY_THREADS: usize = 4;
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
