//! Opening: the lock, the version, the blocks, then what the log has beyond them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, TryLockError},
    hash::{BuildHasher, Hasher},
    io::{self, Write},
    path::Path,
    sync::{Arc, mpsc::sync_channel},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    block::Block,
    block_writer::TEMPORARY,
    frames::Hashes,
    head::{Head, Prepared},
    instances::Instances,
    options::Options,
    record::Record,
    saved::Saved,
    segment::{self, Segment},
    state::State,
    window::Window,
};
use crate::StoreError;

/// Version of the directory that is written: 1 had a log of whole batches.
const FORMAT: u32 = 2;

/// Records that may be decoded ahead of being applied.
const DECODED_AHEAD: usize = 4;

/// A lock that was let go is held for a moment by a child that was forked meanwhile, until it runs its program.
const LET_GO: Duration = Duration::from_millis(500);

/// What is in `VERSION`.
#[derive(Debug, Serialize, Deserialize)]
struct Version {
    format: u32,
    /// Names this directory's blocks apart from those of others.
    writer: String,
}

/// A store as found on disk.
pub(crate) struct Recovered {
    pub lock: File,
    pub writer: String,
    pub state: State,
    pub segment: Segment,
    pub next_sequence: u64,
    pub saved: Saved,
}

fn io_error(what: &str, path: &Path, source: io::Error) -> StoreError {
    let what = format!("{what} {}", path.display());
    match source.kind() {
        _ if segment::is_full(&source) => StoreError::DiskFull { path: path.display().to_string() },
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => StoreError::Unusable(format!(
            "cannot write to the data directory {}: {source}; make it writable or choose another with --data",
            path.display()
        )),
        _ => StoreError::Io { what, source },
    }
}

/// Takes the directory and reads what is in it.
pub(crate) fn recover(options: &Options) -> Result<Recovered, StoreError> {
    let dir = &options.dir;
    fs::create_dir_all(dir).map_err(|error| io_error("making the data directory", dir, error))?;
    let lock = lock(dir)?;
    let version = version(dir)?;
    let (blocks_dir, segments_dir) = (dir.join("blocks"), dir.join("log"));
    for dir in [&blocks_dir, &segments_dir] {
        fs::create_dir_all(dir).map_err(|error| io_error("making the data directory", dir, error))?;
    }
    let saved = Saved::read(dir).map_err(|error| match error.kind() {
        io::ErrorKind::Unsupported => StoreError::Unusable(error.to_string()),
        _ => io_error("reading state.json of", dir, error),
    })?;
    let blocks = blocks(dir, &blocks_dir)?;
    let mut window = Window::new(options.profile_ids);
    fill_window(&mut window, &blocks, options.profile_ids);
    saved.ids.iter().for_each(|id| window.insert(*id));
    window.evicted = 0;
    let in_blocks = blocks.iter().map(|block| block.meta.generation).max().unwrap_or(0).max(saved.generation);
    let named = blocks.iter().flat_map(|block| block.meta.replaces.iter().chain([&block.meta.id]));
    let sequences = named.filter_map(|id| id.rsplit('-').next()?.parse::<u64>().ok());
    let next_sequence = sequences.max().map_or(1, |last| last + 1).max(saved.next_sequence);
    let mut state = State {
        head: Head::new(in_blocks + 1),
        sealed: Default::default(),
        blocks,
        instances: Instances { by_id: saved.instances.clone(), forgotten: 0 },
        window,
        sealed_log_bytes: 0,
        log_bytes: 0,
        stored: 0,
        duplicates: 0,
        expired: 0,
        torn_records: 0,
        overflowed: 0,
    };
    let segment = replay(&mut state, &segments_dir, in_blocks, saved.generation, options)
        .map_err(|error| io_error("reading the log", &segments_dir, error))?;
    state.log_bytes = segment.length();
    // Counted from start.
    (state.stored, state.duplicates, state.overflowed) = (0, 0, 0);
    Ok(Recovered { lock, writer: version.writer, state, segment, next_sequence, saved })
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("LOCK");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| io_error("opening", dir, error))?;
    let until = Instant::now() + LET_GO;
    loop {
        return match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            Err(TryLockError::WouldBlock) => Err(StoreError::Unusable(format!(
                "another everflame uses the data directory {}: stop it or choose another with --data",
                dir.display()
            ))),
            Err(TryLockError::Error(error)) => Err(io_error("locking", &path, error)),
        };
    }
}

fn version(dir: &Path) -> Result<Version, StoreError> {
    let path = dir.join("VERSION");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if dir.join("blocks").is_dir() || dir.join("log").is_dir() {
                return Err(StoreError::Unusable(format!(
                    "{} holds blocks or a log but no VERSION file: restore it or choose another with --data",
                    dir.display()
                )));
            }
            let random = std::hash::RandomState::new().build_hasher().finish();
            let version = Version { format: FORMAT, writer: format!("{random:016x}") };
            write_version(dir, &version).map_err(|error| io_error("writing to", dir, error))?;
            return Ok(version);
        }
        Err(error) => return Err(io_error("reading", &path, error)),
    };
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let unreadable = |error| StoreError::Unusable(format!("{} cannot be read ({error})", path.display()));
    let Format { format } = serde_json::from_slice(&text).map_err(unreadable)?;
    if format > FORMAT {
        return Err(StoreError::Unusable(format!(
            "{} was written by a newer everflame (format {format}, this one knows {FORMAT}): \
             use that or choose another with --data",
            dir.display()
        )));
    }
    let version: Version = serde_json::from_slice(&text).map_err(unreadable)?;
    if format == FORMAT {
        return Ok(version);
    }
    // Before anything is written that older programs would take for damage.
    let version = Version { format: FORMAT, ..version };
    write_version(dir, &version).map_err(|error| io_error("writing to", dir, error))?;
    Ok(version)
}

fn write_version(dir: &Path, version: &Version) -> io::Result<()> {
    let temporary = dir.join("VERSION.new");
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(version)?)?;
        file.sync_all()?;
        fs::rename(&temporary, dir.join("VERSION"))?;
        File::open(dir)?.sync_all()
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// Opens all blocks; removes what a crash left and what was replaced; sets aside
/// what cannot be read.
fn blocks(dir: &Path, blocks_dir: &Path) -> Result<Vec<Arc<Block>>, StoreError> {
    let error = |error| io_error("reading", blocks_dir, error);
    let mut blocks: BTreeMap<String, Arc<Block>> = BTreeMap::new();
    for entry in fs::read_dir(blocks_dir).map_err(error)? {
        let path = entry.map_err(error)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if name.starts_with(TEMPORARY) {
            fs::remove_dir_all(&path).map_err(error)?;
            continue;
        }
        match Block::open(&path) {
            Ok(block) => {
                blocks.insert(block.meta.id.clone(), Arc::new(block));
            }
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                return Err(StoreError::Unusable(format!("{}: {error}", path.display())));
            }
            Err(why) => {
                let aside = dir.join("damaged");
                tracing::error!(path = %path.display(), error = %why, aside = %aside.display(),
                    "a block cannot be read: it is set aside and its samples are not in the store");
                fs::create_dir_all(&aside).map_err(error)?;
                fs::rename(&path, aside.join(name)).map_err(error)?;
            }
        }
    }
    let replaced: BTreeSet<String> = blocks.values().flat_map(|block| block.meta.replaces.iter().cloned()).collect();
    for id in replaced {
        if let Some(block) = blocks.remove(&id) {
            block.retire();
        }
    }
    Ok(blocks.into_values().collect())
}

/// Fills the duplicate window with the newest ids of the blocks.
fn fill_window(window: &mut Window, blocks: &[Arc<Block>], limit: usize) {
    let mut newest_first: Vec<&Arc<Block>> = blocks.iter().collect();
    newest_first.sort_by_key(|block| std::cmp::Reverse((block.meta.generation, block.meta.sequence)));
    let (mut lists, mut count) = (Vec::new(), 0);
    for block in newest_first {
        if count >= limit {
            break;
        }
        match block.ids() {
            Ok(ids) => {
                count += ids.len();
                lists.push(ids);
            }
            Err(error) => tracing::error!(%error, "profiles of a block may be counted twice if they come again"),
        }
    }
    for ids in lists.into_iter().rev() {
        for id in ids {
            window.insert(id);
        }
    }
}

/// Applies what the log has beyond the blocks; returns the segment to write on.
fn replay(state: &mut State, dir: &Path, in_blocks: u64, in_saved: u64, options: &Options) -> io::Result<Segment> {
    let mut last = None;
    for generation in segment::generations(dir)? {
        if generation <= in_blocks.min(in_saved) {
            fs::remove_file(segment::path_of(dir, generation))?;
            continue;
        }
        let rows_are_in_blocks = generation <= in_blocks;
        if !rows_are_in_blocks && generation != state.head.generation {
            let older = std::mem::replace(&mut state.head, Head::new(generation));
            if older.records > 0 {
                state.seal(older);
            }
        }
        let mut old = false;
        let mut apart = Head::new(generation);
        let mut apply = |record: Record| {
            let head = if rows_are_in_blocks { &mut apart } else { &mut state.head };
            let (prepared, report, received, rejected) = match record {
                Record::V1(record) => {
                    old = true;
                    let hashes = Hashes::of(&record.batch);
                    let limit = options.series_limit;
                    let prepared = head.prepare(&record.batch, &hashes, &record.duplicates, limit);
                    (prepared, record.report, record.received, record.rejected)
                }
                Record::V2(record) => {
                    record.delta.apply(&mut head.dictionary);
                    let prepared = Prepared { addition: record.addition, ..Prepared::default() };
                    (prepared, record.report, record.received, record.rejected)
                }
            };
            if !rows_are_in_blocks {
                state.apply(prepared, report.as_ref(), received, &rejected, options.instances);
            } else if let Some(report) = report {
                // The crash came between the block and the accounts: only these are missing.
                let samples = prepared.addition.samples();
                state.instances.record(&report, received, &samples, &rejected, options.instances);
            }
        };
        // One thread decodes what comes next while this one applies.
        let replayed = std::thread::scope(|scope| {
            let (decoded, records) = sync_channel(DECODED_AHEAD);
            let reader = scope.spawn(move || {
                segment::replay(dir, generation, |record| {
                    // Fails only where the other side panicked, which ends both.
                    let _ = decoded.send(record);
                })
            });
            records.into_iter().for_each(&mut apply);
            reader.join().unwrap_or_else(|_| Err(io::Error::other("the thread that reads the log failed")))
        })?;
        state.torn_records += replayed.torn;
        tracing::info!(generation, records = replayed.records, torn = replayed.torn, "log replayed");
        if !rows_are_in_blocks
            && replayed.length > 0
            && let Some((_, length)) = last.replace((generation, replayed.length))
        {
            state.sealed_log_bytes += length;
        }
        if old && !rows_are_in_blocks {
            // A segment that older versions wrote is not written on.
            let older = std::mem::replace(&mut state.head, Head::new(generation + 1));
            state.seal(older);
        }
    }
    if let Some((generation, length)) = last
        && generation != state.head.generation
    {
        state.sealed_log_bytes += length;
    }
    match last {
        Some((generation, length)) if generation == state.head.generation => Segment::open(dir, generation, length),
        _ => Segment::create(dir, state.head.generation),
    }
}
