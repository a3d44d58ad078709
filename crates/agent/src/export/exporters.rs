//! Several exporters beside each other. A batch is encoded and compressed once and goes into each
//! one's spool; from there on they share nothing: each has its own sender, ledger and limits, so that
//! one that is dead delays and loses nothing of another.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use everflame_profile::Batch;

use super::{Destination, Exporter, Stopped, batch_file::BatchName, pack::Packer};
use crate::ledger::Ledger;

/// Exporters at the same time: for so many there is room in the memory that outlives an agent.
pub const MAX_EXPORTERS: usize = 4;
/// Room of the further ones in the spool directory.
pub(super) const ALSO: &str = "also";

/// All exporters of an agent, the main one first.
#[derive(Debug)]
pub struct Exporters {
    all: Vec<Exporter>,
    packer: Mutex<Packer>,
    /// Dead instances of which somebody may have an open account.
    open: Mutex<Vec<String>>,
}

impl Exporters {
    /// Of exporters that run. `dead`: the instances whose accounts they were given.
    pub fn new(all: Vec<Exporter>, dead: impl IntoIterator<Item = String>) -> Self {
        Self { all, packer: Mutex::default(), open: Mutex::new(dead.into_iter().collect()) }
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Exporter> {
        self.all.iter()
    }

    /// `samples` were taken out of the ring buffer into the aggregate.
    pub fn consumed(&self, samples: u64) {
        self.ledgers().for_each(|ledger| ledger.consumed(samples));
    }

    /// `samples` in the aggregate are of processes that are not to be profiled.
    pub fn filtered(&self, samples: u64) {
        if samples > 0 {
            self.ledgers().for_each(|ledger| ledger.filtered(samples));
        }
    }

    /// Takes a batch out of the aggregate: when this returns, it is in every spool (or its samples
    /// are counted as dropped there).
    pub fn push(&self, batch: &Batch) {
        if batch.samples() > 0 {
            let packed = self.packer.lock().unwrap_or_else(PoisonError::into_inner).batch(batch);
            self.all.iter().for_each(|exporter| exporter.push(&packed));
        }
    }

    /// Instances that nobody has an open account of any more, each told once: what was pinned for
    /// them can go.
    pub fn take_closed(&self) -> Vec<String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.extend(self.ledgers().flat_map(Ledger::take_closed));
        open.sort_unstable();
        open.dedup();
        let still: Vec<String> = self.ledgers().flat_map(Ledger::predecessors).collect();
        let (closed, left) = std::mem::take(&mut *open).into_iter().partition(|instance| !still.contains(instance));
        *open = left;
        closed
    }

    /// Whether any has delivered something or has kept it for later; if not, why.
    pub fn ready(&self) -> Result<(), String> {
        let ready = |e: &Exporter| e.ledger().acknowledged_requests() > 0 || e.spool().batches > 0;
        if self.all.iter().any(ready) {
            return Ok(());
        }
        let failure = self.all.iter().find_map(Exporter::failure);
        Err(failure.unwrap_or_else(|| "the first batch is on its way".into()))
    }

    /// Stops all at once, each as [`Exporter::stop`] does: whether everybody has everything, and what
    /// is left in all spools together.
    pub fn stop(&self, within: Duration) -> Stopped {
        std::thread::scope(|scope| {
            let stops: Vec<_> = self.all.iter().map(|exporter| scope.spawn(move || exporter.stop(within))).collect();
            let all = stops.into_iter().map(|stop| stop.join().unwrap_or(Stopped { delivered: false, left: 0 }));
            all.fold(Stopped { delivered: true, left: 0 }, |sum, one| Stopped {
                delivered: sum.delivered && one.delivered,
                left: sum.left + one.left,
            })
        })
    }

    fn ledgers(&self) -> impl Iterator<Item = &Ledger> {
        self.all.iter().map(|exporter| Arc::as_ref(exporter.ledger()))
    }
}

/// Removes the spools of exporters that are not there any more. To be called by who has the lock of
/// the directory of all.
pub fn remove_abandoned(spool: &Path, further: &[Destination]) {
    let kept: Vec<_> = further.iter().map(|destination| destination.spool(spool)).collect();
    for entry in fs::read_dir(spool.join(ALSO)).into_iter().flatten().flatten() {
        let path = entry.path();
        if kept.contains(&path) {
            continue;
        }
        let files = fs::read_dir(&path).into_iter().flatten().flatten();
        let batch = |name: std::ffi::OsString| BatchName::parse(name.to_str()?);
        let samples: u64 = files.filter_map(|file| Some(batch(file.file_name())?.samples)).sum();
        match fs::remove_dir_all(&path) {
            Ok(()) => tracing::warn!(
                "nothing is sent any more to the exporter of {}: its spool is removed, with {samples} samples in it",
                path.display()
            ),
            Err(e) => tracing::warn!("the spool of a former exporter, {}, cannot be removed: {e}", path.display()),
        }
    }
}
