//! Export: a batch goes to the spool, from there to the server, in order, and leaves when
//! the server has acknowledged it. Symbol indexes go beside it over HTTP. There may be several
//! exporters ([`Exporters`]), each with a spool and an account of its own.

pub mod batch_file;

mod backoff;
mod client;
mod connect;
mod credentials;
mod destination;
mod exporters;
mod files;
mod metrics;
mod ours;
mod pack;
mod sender;
mod spool;
#[cfg(test)]
mod spool_tests;
mod symbols;

use std::{
    fs::TryLockError,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

pub(crate) use backoff::Backoff;
pub use credentials::{Authorization, AuthorizationSource, Credentials, CredentialsError, Secret};
pub use destination::{Destination, DestinationError, MAX_NAME};
pub use exporters::{Exporters, MAX_EXPORTERS, remove_abandoned};
pub use ours::Ours;
pub use pack::{Packed, Packer};
pub use spool::{MAX_FILES, MAX_SET_ASIDE, SpoolError, SpoolLimits, SpoolUse};
pub use symbols::{MAX_MEMORY_BYTES, MAX_QUEUED_BYTES, MAX_QUEUED_INDEXES, SymbolUploader, SymbolUploads};

use crate::ledger::Ledger;
use spool::Spool;

/// How to export.
#[derive(Debug, Clone)]
pub struct ExportConfig {
    /// Where to.
    pub destination: Destination,
    /// Directory of the spool; made if it is not there.
    pub spool: PathBuf,
    /// Limits of the spool.
    pub limits: SpoolLimits,
    /// How often a report goes out at least, with or without samples.
    pub report_every: Duration,
}

impl Default for ExportConfig {
    fn default() -> Self {
        Self {
            destination: Destination {
                name: "127.0.0.1:4040".to_string(),
                endpoint: "http://127.0.0.1:4040".to_string(),
                ..Destination::default()
            },
            spool: PathBuf::from("/var/lib/everflame/spool"),
            limits: SpoolLimits { disk_bytes: 256 << 20, memory_bytes: 64 << 20 },
            report_every: Duration::from_secs(10),
        }
    }
}

/// Refuses a spool that another agent has, before anything is made of what is in it.
pub fn refuse_taken(spool: &Path) -> Result<(), ExportError> {
    match files::lock(spool) {
        Err(TryLockError::WouldBlock) => Err(SpoolError::InUse(spool.to_owned()).into()),
        _ => Ok(()),
    }
}

/// The exporter cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The endpoint is none.
    #[error("endpoint `{0}`: {1}")]
    Endpoint(String, String),
    /// The spool cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// No thread or runtime could be had.
    #[error("cannot start the exporter: {0}")]
    Start(#[from] io::Error),
}

/// What the exporter has done, for metrics. All since it started.
#[derive(Debug, Default)]
pub struct ExportCounters {
    /// Batches handed to it.
    pub batches: AtomicU64,
    /// Their samples.
    pub samples: AtomicU64,
    /// Bytes of their requests before compression.
    pub request_bytes: AtomicU64,
    /// Bytes of their requests compressed.
    pub compressed_bytes: AtomicU64,
    /// Requests that were answered with success.
    pub acknowledged: AtomicU64,
    /// Attempts that failed and are made again.
    pub retries: AtomicU64,
    /// Requests that were refused for good.
    pub refused: AtomicU64,
    /// Answers that said that parts were rejected.
    pub partial: AtomicU64,
}

/// How an exporter ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Whether the server has everything, the last report included.
    pub delivered: bool,
    /// Batches that stay in the spool for the next agent.
    pub left: usize,
}

/// Sends batches in a thread of its own.
#[derive(Debug)]
pub struct Exporter {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<bool>>>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    ours: Ours,
    spool: Mutex<Spool>,
    ledger: Arc<Ledger>,
    counters: ExportCounters,
    wake: tokio::sync::Notify,
    stopping: AtomicBool,
    /// When a stop gives up.
    deadline: Mutex<Option<Instant>>,
    /// The last failure, until a success.
    failure: Mutex<Option<String>>,
}

impl Exporter {
    /// Opens the spool, which settles the accounts of dead instances, and begins to send.
    /// The server need not be there.
    pub fn start(config: ExportConfig, ledger: Arc<Ledger>) -> Result<Self, ExportError> {
        let Destination { name, endpoint, .. } = &config.destination;
        let (name, endpoint) =
            (name.clone(), client::endpoint(endpoint).map_err(|why| ExportError::Endpoint(endpoint.clone(), why))?);
        let shared = Arc::new(Shared {
            name,
            ours: Ours::default(),
            spool: Mutex::new(Spool::open(&config.spool, config.limits, ledger.clone())?),
            ledger,
            counters: ExportCounters::default(),
            wake: tokio::sync::Notify::new(),
            stopping: AtomicBool::new(false),
            deadline: Mutex::new(None),
            failure: Mutex::new(None),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let sender = sender::Sender::new(shared.clone(), &config);
        let thread = std::thread::Builder::new()
            .name("everflame-export".to_string())
            .spawn(move || runtime.block_on(sender.run(endpoint)))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Takes a batch out of the aggregate: when this returns, it is in the spool (or its
    /// samples are counted as dropped).
    pub fn push(&self, batch: &Packed) {
        let Packed { samples, request_bytes, bytes } = batch;
        match bytes {
            Some(bytes) => self.shared.spool().push(bytes, *samples),
            None => self.shared.spool().drop_new(*samples),
        }
        let counters = &self.shared.counters;
        counters.batches.fetch_add(1, Relaxed);
        counters.samples.fetch_add(*samples, Relaxed);
        counters.request_bytes.fetch_add(*request_bytes, Relaxed);
        counters.compressed_bytes.fetch_add(bytes.as_ref().map_or(0, Vec::len) as u64, Relaxed);
        self.shared.wake.notify_one();
    }

    /// Its destination's name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Its account.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.shared.ledger
    }

    /// Whether it sends to a server of ours.
    pub fn ours(&self) -> &Ours {
        &self.shared.ours
    }

    /// What it has done.
    pub fn counters(&self) -> &ExportCounters {
        &self.shared.counters
    }

    /// How full the spool is.
    pub fn spool(&self) -> SpoolUse {
        self.shared.spool().usage()
    }

    /// Why the last attempt failed, if it did.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends what is there and a last report, for at most `within`; what cannot be sent
    /// stays in the spool. Further calls answer as if nothing was delivered.
    pub fn stop(&self, within: Duration) -> Stopped {
        let shared = &self.shared;
        *shared.deadline.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + within);
        shared.stopping.store(true, Relaxed);
        shared.wake.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let delivered = thread.is_some_and(|thread| thread.join().unwrap_or(false));
        Stopped { delivered, left: shared.spool().usage().batches }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

impl Shared {
    fn spool(&self) -> MutexGuard<'_, Spool> {
        // The spool's steps are safe against a kill between them, so also against a panic.
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time left to send: `None` for no end.
    fn left(&self) -> Option<Duration> {
        let deadline = *self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}
