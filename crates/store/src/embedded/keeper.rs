//! The keeper: writes sealed heads as blocks, merges blocks, deletes what is past
//! the retention; by its thread or by who asks for it, each at most once at a time.

use std::{
    collections::BTreeSet,
    fs, io,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    block::Block,
    block_writer::{self, Contents},
    log::Log,
    merge,
    order::sort,
    row::{NANOS_PER_MS, Row},
    saved::Saved,
    segment,
    state::{Sealed, Shared},
};

/// How often the thread looks.
const TICK: Duration = Duration::from_secs(1);
/// How often retention and merges are looked at without a new block.
const ROUND: Duration = Duration::from_secs(60);
/// Pause after a failure (a full disk).
const PAUSE: Duration = Duration::from_secs(10);

/// Directories and numbers of the keeper.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub shared: Arc<Shared>,
    pub log: Arc<Log>,
    pub writer: String,
    pub next_sequence: AtomicU64,
    /// What `state.json` is to be; also the lock of writing blocks.
    pub saved: Mutex<Saved>,
    /// The lock of merges and retention: a long merge holds up no flush. Names blocks
    /// that cannot be merged, since they are damaged.
    pub tending: Mutex<BTreeSet<String>>,
    pub signal: Signal,
}

/// Wakes the thread.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    state: Mutex<(bool, bool)>,
    wake: Condvar,
}

impl Signal {
    fn set(&self, change: impl FnOnce(&mut (bool, bool))) {
        change(&mut self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        self.wake.notify_all();
    }

    /// There is a sealed head.
    pub fn work(&self) {
        self.set(|(work, _)| *work = true);
    }

    /// The store is closing.
    pub fn close(&self) {
        self.set(|(_, closing)| *closing = true);
    }

    /// Whether the store is closing.
    fn is_closing(&self) -> bool {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).1
    }

    /// Waits; `None` when closing, else whether there is work.
    fn wait(&self, time: Duration) -> Option<bool> {
        let state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let waited = self.wake.wait_timeout_while(state, time, |(work, closing)| !*work && !*closing);
        let (mut state, _) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        (!state.1).then(|| std::mem::take(&mut state.0))
    }
}

/// Unix nanoseconds.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

impl Keeper {
    pub fn blocks_dir(&self) -> PathBuf {
        self.shared.options.dir.join("blocks")
    }

    pub fn segments_dir(&self) -> PathBuf {
        self.shared.options.dir.join("log")
    }

    /// The thread: until the signal says to close.
    pub fn run(&self) {
        let mut last_round: Option<Instant> = None;
        let mut paused_until: Option<Instant> = None;
        while let Some(work) = self.signal.wait(TICK) {
            if paused_until.is_some_and(|until| Instant::now() < until) {
                // What came in the meantime is found by looking.
                continue;
            }
            paused_until = None;
            let begun = self.shared.lock().head.begun;
            let age = i64::try_from(self.shared.options.head_age.as_nanos()).unwrap_or(i64::MAX);
            if begun.is_some_and(|begun| now().saturating_sub(begun) >= age) {
                // An error is in the log already and comes again if it stays.
                let _ = self.log.seal();
            }
            let has_sealed = !self.shared.lock().sealed.is_empty();
            let due = last_round.is_none_or(|last| last.elapsed() >= ROUND);
            if !(work || has_sealed || due) {
                continue;
            }
            last_round = Some(Instant::now());
            if let Err(error) = self.write_sealed().and_then(|()| self.tend(now())) {
                tracing::error!(%error, "cannot write blocks: the samples stay in the log and in memory");
                paused_until = Some(Instant::now() + PAUSE);
            }
        }
    }

    fn writing(&self) -> MutexGuard<'_, Saved> {
        self.saved.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A name that no block had before.
    fn next_id(&self) -> (String, u64) {
        let sequence = self.next_sequence.fetch_add(1, Ordering::Relaxed);
        (format!("{}-{sequence:012}", self.writer), sequence)
    }

    /// Writes all sealed heads as blocks and removes their log segments.
    pub fn write_sealed(&self) -> io::Result<()> {
        let mut saved = self.writing();
        loop {
            let sealed = self.shared.lock().sealed.front().cloned();
            let Some(sealed) = sealed else { break };
            let block = self.write_block(&sealed)?;
            if block.is_none() {
                saved.keep_ids(&sealed.ids);
            }
            {
                let mut state = self.shared.lock();
                state.blocks.extend(block.map(Arc::new));
                state.sealed.pop_front();
            }
            saved.generation = sealed.generation;
            saved.instances = sealed.instances.by_id.clone();
            saved.unwritten = true;
        }
        self.save(&mut saved)
    }

    fn save(&self, saved: &mut Saved) -> io::Result<()> {
        if !saved.unwritten {
            return Ok(());
        }
        saved.next_sequence = self.next_sequence.load(Ordering::Relaxed);
        saved.write(&self.shared.options.dir)?;
        let dir = self.segments_dir();
        for generation in segment::generations(&dir)? {
            if generation <= saved.generation {
                let path = segment::path_of(&dir, generation);
                let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
                fs::remove_file(&path)?;
                let mut state = self.shared.lock();
                state.sealed_log_bytes = state.sealed_log_bytes.saturating_sub(bytes);
            }
        }
        saved.unwritten = false;
        Ok(())
    }

    fn write_block(&self, sealed: &Sealed) -> io::Result<Option<Block>> {
        let view = &sealed.view;
        if view.rows.len() == 0 {
            return Ok(None);
        }
        let (id, sequence) = self.next_id();
        let contents = Contents {
            sequence,
            id,
            generation: sealed.generation,
            replaces: Vec::new(),
            ids: &sealed.ids,
            names: &view.names,
            stacks: &view.stacks,
        };
        let block = block_writer::write(&self.blocks_dir(), contents, |order, writer| {
            let mut rows: Vec<Row> = view.rows.iter().map(|row| order.apply(row)).collect();
            sort(&mut rows);
            writer.push(&rows)
        })?;
        tracing::debug!(id = block.meta.id, rows = block.meta.rows, bytes = block.meta.bytes(), "block written");
        Ok(Some(block))
    }

    /// Retention and merges, as of `now` (Unix nanoseconds).
    pub fn tend(&self, now: i64) -> io::Result<()> {
        let mut damaged = self.tending.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.expire(now);
        loop {
            let mut blocks = self.shared.lock().blocks.clone();
            blocks.retain(|block| !damaged.contains(&block.meta.id));
            let now_ms = now / NANOS_PER_MS;
            let Some(sources) = merge::pick(&blocks, now_ms, self.shared.options.merge_rows) else { break };
            let (id, sequence) = self.next_id();
            let limit = self.shared.options.profile_ids;
            let closing = || self.signal.is_closing();
            let merged = match merge::merge(&self.blocks_dir(), &sources, id, sequence, limit, &closing) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => break,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::error!(%error, "blocks cannot be merged and stay as they are");
                    damaged.extend(sources.iter().map(|block| block.meta.id.clone()));
                    continue;
                }
                other => other?,
            };
            let replaced = |block: &Arc<Block>| sources.iter().any(|source| source.meta.id == block.meta.id);
            {
                let mut state = self.shared.lock();
                state.blocks.retain(|block| !replaced(block));
                state.blocks.push(Arc::new(merged));
            }
            self.drop_blocks(&sources);
        }
        Ok(())
    }

    fn expire(&self, now: i64) {
        let oldest_ms = now.saturating_sub(self.shared.options.retention_nanos()) / NANOS_PER_MS;
        let mut dropped = Vec::new();
        {
            let mut state = self.shared.lock();
            state.blocks.sort_by_key(|block| (block.meta.until_ms, block.meta.sequence));
            let mut bytes: u64 = state.blocks.iter().map(|block| block.meta.bytes()).sum();
            while let Some(oldest) = state.blocks.first() {
                let expired = oldest.meta.until_ms <= oldest_ms || bytes > self.shared.options.retention_bytes;
                if !expired {
                    break;
                }
                bytes -= oldest.meta.bytes();
                let block = state.blocks.remove(0);
                state.expired = state.expired.saturating_add(block.meta.samples);
                dropped.push(block);
            }
        }
        if !dropped.is_empty() {
            tracing::info!(blocks = dropped.len(), "blocks past the retention are deleted");
        }
        self.drop_blocks(&dropped);
    }

    fn drop_blocks(&self, blocks: &[Arc<Block>]) {
        for block in blocks {
            block.retire();
            self.shared.cache.forget(&block.meta.id);
        }
    }
}
