//! The embedded engine: a write-ahead log, a head in memory, sorted Parquet blocks.
//!
//! In its directory: `VERSION`, `LOCK`, `state.json`, `log/` with a segment for each
//! generation of the head, `blocks/` with a directory for each block, and `damaged/`
//! for blocks that could not be read.

mod admission;
mod binding;
mod block;
mod block_writer;
mod bytes;
mod cache;
mod chunked;
mod delta;
mod dictionary;
mod frames;
mod groups;
mod head;
mod instances;
mod keeper;
mod log;
mod merge;
mod meta;
mod options;
mod order;
mod other_sums;
mod record;
mod record_v1;
mod recovery;
mod row;
mod rows_reader;
mod saved;
mod scan;
mod segment;
mod stack_sums;
mod state;
mod table;
mod window;

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    sync::{Arc, Mutex, atomic::AtomicU64},
    thread::JoinHandle,
};

use everflame_profile::{Selector, Str};

use self::{
    cache::Cache,
    keeper::{Keeper, now},
    log::{Log, Writer},
    recovery::{Recovered, recover},
    scan::{Source, covered, range_ms},
    state::Shared,
};
use crate::{
    Accounting, Append, Appended, Covered, LabelValue, NodeInfo, ProcessInfo, Selection, SeriesSums, StackSums, Store,
    StoreError, StoreStats, TypeInfo,
};

pub use options::Options;

/// A store in a directory of its own. Dropping it ends its threads; what was
/// acknowledged is on disk at any time, so that nothing needs to be closed.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    log: Arc<Log>,
    keeper: Arc<Keeper>,
    threads: Vec<JoinHandle<()>>,
    /// Held as long as the store lives.
    _lock: File,
}

impl Embedded {
    /// Opens the store, or makes a new one; replays its log.
    pub fn open(options: Options) -> Result<Self, StoreError> {
        let Recovered { lock, writer, state, segment, next_sequence, saved } = recover(&options)?;
        let cache = Cache::new(options.cache_bytes);
        let shared = Arc::new(Shared { options, state: Mutex::new(state), cache });
        let log = Arc::new(Log::default());
        let keeper = Arc::new(Keeper {
            shared: shared.clone(),
            log: log.clone(),
            writer,
            next_sequence: AtomicU64::new(next_sequence),
            saved: Mutex::new(saved),
            tending: Mutex::default(),
            signal: keeper::Signal::default(),
        });
        let mut store = Self { shared, log, keeper, threads: Vec::new(), _lock: lock };
        let signal = store.keeper.clone();
        let logged = store.shared.lock().head.dictionary.mark();
        let writer = Writer {
            shared: store.shared.clone(),
            log: store.log.clone(),
            segments: store.keeper.segments_dir(),
            segment,
            logged,
            sealed: Box::new(move || signal.signal.work()),
        };
        let keeper = store.keeper.clone();
        store.start("store-log", move || writer.run())?;
        store.start("store-keeper", move || keeper.run())?;
        Ok(store)
    }

    fn start(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        let failed = |source| StoreError::Io { what: format!("starting the thread {name}"), source };
        self.threads.push(thread.map_err(failed)?);
        Ok(())
    }

    /// Deletes what is past the retention and merges blocks, as of now. The store
    /// does so by itself; this is for those who cannot wait.
    pub fn tend(&self) -> Result<(), StoreError> {
        self.keeper.tend(now()).map_err(|error| self.shared.error("merging blocks", error))
    }

    fn read<T>(&self, answer: io::Result<T>) -> Result<T, StoreError> {
        answer.map_err(|error| self.shared.error("reading", error))
    }

    fn sources(&self, selection: &Selection) -> Result<Vec<Source>, StoreError> {
        self.read(self.shared.sources(&range_ms(selection)))
    }

    /// The unit of a sample type among what is selected from.
    fn unit(&self, sources: &[Source], name: &str) -> String {
        let series = sources.iter().flat_map(|source| source.names().series.iter());
        let unit = series.map(|series| &series.sample_type).find(|known| *known.name == *name).map(|t| &t.unit);
        match unit {
            Some(unit) => unit.to_string(),
            // Nothing in the range: what is known of it elsewhere.
            None => self.known_types().into_iter().find(|(known, _)| **known == *name).map_or_else(
                || if name == "cpu" { "nanoseconds".to_owned() } else { "count".to_owned() },
                |(_, unit)| unit.to_string(),
            ),
        }
    }

    fn known_types(&self) -> BTreeSet<(Str, Str)> {
        let snapshot = self.shared.snapshot();
        let in_blocks = snapshot.blocks.iter().flat_map(|block| &block.meta.types);
        let mut types: BTreeSet<(Str, Str)> =
            in_blocks.map(|(name, unit)| (Str::from(name.as_str()), Str::from(unit.as_str()))).collect();
        for series in snapshot.heads.iter().flat_map(|head| head.names.series.iter()) {
            types.insert((series.sample_type.name.clone(), series.sample_type.unit.clone()));
        }
        types
    }
}

impl Store for Embedded {
    fn take(&self, append: Append) -> Result<Appended, StoreError> {
        self.log.append(&self.shared, append)
    }

    fn stacks(&self, selection: &Selection, group: &[String]) -> Result<StackSums, StoreError> {
        let sources = self.sources(selection)?;
        let unit = self.unit(&sources, &selection.sample_type);
        let stacks_of = |source: &Source| match source {
            Source::Head(head) => Ok(Arc::new(head.stacks.clone())),
            Source::Block(block, _) => self.shared.cache.stacks(block),
        };
        self.read(stack_sums::stacks(&sources, selection, group, unit, stacks_of))
    }

    fn series(&self, selection: &Selection, by: Option<&str>, step_ms: i64) -> Result<SeriesSums, StoreError> {
        let sources = self.sources(selection)?;
        let unit = self.unit(&sources, &selection.sample_type);
        self.read(other_sums::series(&sources, selection, by, step_ms, unit))
    }

    fn labels(&self, selection: &Selection) -> Result<(Covered, Vec<String>), StoreError> {
        let labels = other_sums::labels(&self.sources(selection)?, selection);
        Ok((covered(selection), self.read(labels)?))
    }

    fn label_values(&self, selection: &Selection, name: &str) -> Result<(Covered, Vec<LabelValue>), StoreError> {
        let values = other_sums::label_values(&self.sources(selection)?, selection, name);
        Ok((covered(selection), self.read(values)?))
    }

    fn processes(&self, selection: &Selection) -> Result<(Covered, Vec<ProcessInfo>), StoreError> {
        let processes = other_sums::processes(&self.sources(selection)?, selection);
        Ok((covered(selection), self.read(processes)?))
    }

    fn types(&self, selector: &Selector) -> Result<Vec<TypeInfo>, StoreError> {
        let types = match selector.matchers.as_slice() {
            [] => self.known_types(),
            _ => {
                let sources = self.read(self.shared.sources(&(i64::MIN..i64::MAX)))?;
                sources.iter().flat_map(|source| scan::types(source, selector)).collect()
            }
        };
        Ok(types.into_iter().map(|(name, unit)| TypeInfo { name, unit }).collect())
    }

    fn nodes(&self) -> Result<Vec<NodeInfo>, StoreError> {
        Ok(self.shared.lock().instances.nodes())
    }

    fn accounting(&self) -> Result<Vec<Accounting>, StoreError> {
        Ok(self.shared.lock().instances.accounting())
    }

    fn stats(&self) -> StoreStats {
        let cache_bytes = self.shared.cache.bytes() as u64;
        let state = self.shared.lock();
        let sealed_rows: usize = state.sealed.iter().map(|sealed| sealed.view.rows.len()).sum();
        StoreStats {
            head_rows: (state.head.rows.len() + sealed_rows) as u64,
            block_rows: state.blocks.iter().map(|block| block.meta.rows).sum(),
            blocks: state.blocks.len() as u64,
            block_bytes: state.blocks.iter().map(|block| block.meta.bytes()).sum(),
            wal_bytes: state.log_bytes + state.sealed_log_bytes,
            stored: state.stored,
            duplicates: state.duplicates,
            dedup_evicted: state.window.evicted,
            expired: state.expired,
            torn_records: state.torn_records,
            cache_bytes,
            series: state.head.dictionary.names.series.len() as u64,
            series_limit: self.shared.options.series_limit as u64,
            series_overflowed: state.overflowed,
        }
    }

    fn flush(&self) -> Result<(), StoreError> {
        let write = || self.keeper.write_sealed().map_err(|error| self.shared.error("writing a block", error));
        write()?;
        self.log.seal()?;
        write()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // The keeper first: it may wait for an answer of the log.
        self.keeper.signal.close();
        if let Some(keeper) = self.threads.pop()
            && keeper.join().is_err()
        {
            tracing::error!("the thread that writes blocks had failed");
        }
        self.log.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("the thread that writes the log had failed");
            }
        }
    }
}
