//! What the threads of a store share: the head, sealed heads, blocks, and counters.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use everflame_profile::{ProfileId, Report};

use super::{
    block::Block,
    cache::Cache,
    head::{Head, HeadView, Prepared},
    instances::Instances,
    log::SEALED_LIMIT,
    options::Options,
    record::Rejected,
    scan::{Snapshot, Source},
    segment::is_full,
    window::Window,
};
use crate::StoreError;

/// A head that takes no more rows and waits to become a block.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub generation: u64,
    pub view: Arc<HeadView>,
    pub ids: Vec<ProfileId>,
    /// As of the last record of the generation.
    pub instances: Instances,
}

/// The mutable part, under one short lock.
#[derive(Debug)]
pub(crate) struct State {
    pub head: Head,
    /// Oldest first.
    pub sealed: VecDeque<Arc<Sealed>>,
    pub blocks: Vec<Arc<Block>>,
    pub instances: Instances,
    pub window: Window,
    /// Bytes of all log segments but the one being written.
    pub sealed_log_bytes: u64,
    pub log_bytes: u64,
    pub stored: u64,
    pub duplicates: u64,
    pub expired: u64,
    pub torn_records: u64,
    pub overflowed: u64,
}

impl State {
    /// Applies a record that is in the log: rows, the duplicate window, the sender's
    /// account. Returns the samples stored.
    pub fn apply(
        &mut self,
        prepared: Prepared,
        report: Option<&Report>,
        received: i64,
        rejected: &Rejected,
        instances_limit: usize,
    ) -> u64 {
        let samples = prepared.addition.samples();
        for id in &prepared.addition.ids {
            self.window.insert(*id);
        }
        self.head.add(prepared.addition, received);
        if let Some(report) = report {
            self.instances.record(report, received, &samples, rejected, instances_limit);
        }
        let stored = samples.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
        self.stored = self.stored.saturating_add(stored);
        self.duplicates = self.duplicates.saturating_add(prepared.duplicates);
        self.overflowed = self.overflowed.saturating_add(prepared.overflowed);
        stored
    }

    /// Puts a head among the sealed ones.
    pub fn seal(&mut self, head: Head) {
        let sealed =
            Sealed { generation: head.generation, view: head.view(), ids: head.ids, instances: self.instances.clone() };
        self.sealed.push_back(Arc::new(sealed));
    }

    /// Whether memory holds as much as it may: the head is full twice over, or full
    /// while others wait.
    pub fn crowded(&self, bytes: usize, rows: usize) -> bool {
        let waiting = self.sealed.len() >= SEALED_LIMIT;
        let (head_bytes, head_rows) = (self.head.bytes(), self.head.rows.len());
        (waiting && (head_bytes >= bytes || head_rows >= rows)) || head_bytes >= bytes * 2 || head_rows >= rows * 2
    }
}

/// Everything that is shared.
#[derive(Debug)]
pub(crate) struct Shared {
    pub options: Options,
    pub state: Mutex<State>,
    pub cache: Cache,
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock would be a bug; the data are appended to only.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Heads and blocks at this moment.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        let mut heads: Vec<_> = state.sealed.iter().map(|sealed| sealed.view.clone()).collect();
        if state.head.rows.len() > 0 {
            heads.push(state.head.view());
        }
        Snapshot { heads, blocks: state.blocks.clone() }
    }

    /// Those parts of a snapshot that may hold rows of a range of milliseconds.
    pub fn sources(&self, range: &std::ops::Range<i64>) -> io::Result<Vec<Source>> {
        let snapshot = self.snapshot();
        let mut sources = Vec::new();
        for block in snapshot.blocks {
            if block.meta.from_ms < range.end && block.meta.until_ms > range.start {
                let names = self.cache.names(&block)?;
                sources.push(Source::Block(block, names));
            }
        }
        sources.extend(snapshot.heads.into_iter().map(Source::Head));
        Ok(sources)
    }

    /// An IO error as the store's own.
    pub fn error(&self, what: &str, error: io::Error) -> StoreError {
        let path = self.options.dir.display();
        match error.kind() {
            _ if is_full(&error) => StoreError::DiskFull { path: path.to_string() },
            io::ErrorKind::InvalidData => {
                StoreError::Unusable(format!("{what}: {error}; move what is damaged out of {path} and start again"))
            }
            _ => StoreError::Io { what: format!("{what} in {path}"), source: error },
        }
    }
}
