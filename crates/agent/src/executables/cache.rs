//! Unwind tables on disk, by content: an agent that starts again has them at once.
//!
//! A file is a header and the table. What is torn, foreign, of another version or over the
//! limit is no entry, and is replaced or removed; a table from here is believed no more than
//! one from a worker. The least recently used make room.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use everflame_profile::ContentId;
use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::xxh3_128;

use crate::worker::protocol::is_table;

/// Bytes of all files at most, unless told otherwise.
pub const CACHE_BYTES: u64 = 64 << 20;
/// Tables at most.
const MAX_ENTRIES: usize = 16_384;
/// One table takes this part of the whole at most, so that it does not drive out all others.
const LARGEST_SHARE: u64 = 4;
/// "EFTC", and the version of the header.
const MAGIC: [u8; 8] = *b"EFTC\x01\0\0\0";
/// Magic, version of tables, length of the table, content, checksum of the table.
const HEADER: usize = 8 + 4 + 4 + 16 + 16;
const TEMPORARY: &str = ".tmp";

/// The cache. Lanes share it.
#[derive(Debug)]
pub struct TableCache {
    directory: PathBuf,
    limit: u64,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    known: FxHashMap<ContentId, Entry>,
    bytes: u64,
    /// Counts uses.
    clock: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    bytes: u64,
    used: u64,
}

impl TableCache {
    /// Opens or makes the directory, for our eyes only.
    pub fn open(directory: PathBuf, limit: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let mut found: Vec<(SystemTime, ContentId, u64)> = Vec::new();
        for file in fs::read_dir(&directory)?.flatten() {
            let name = file.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.ends_with(TEMPORARY) {
                remove(&file.path());
                continue;
            }
            let content = ContentId::parse(name).filter(|content| content.to_string() == name);
            let (Some(content), Ok(metadata)) = (content, file.metadata()) else { continue };
            if metadata.is_file() {
                found.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), content, metadata.len()));
            }
        }
        found.sort_by_key(|(modified, content, _)| (*modified, content.0));
        let cache = Self { directory, limit, entries: Mutex::default() };
        let mut entries = cache.lock();
        for (_, content, bytes) in found {
            entries.add(content, bytes);
        }
        cache.make_room(&mut entries);
        drop(entries);
        Ok(cache)
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, content: ContentId) -> PathBuf {
        self.directory.join(content.to_string())
    }

    /// The table of a content.
    pub fn get(&self, content: ContentId) -> Option<Vec<u8>> {
        let mut entries = self.lock();
        entries.known.get(&content)?;
        let path = self.path(content);
        match read(&path, content, self.limit) {
            Some((file, table)) => {
                // Of the next start's interest only.
                let _ = file.set_modified(SystemTime::now());
                entries.touch(content);
                Some(table)
            }
            None => {
                tracing::debug!("{} is no table: it is made again", path.display());
                entries.forget(content);
                remove(&path);
                None
            }
        }
    }

    /// Keeps a table. A disk that does not take it costs the next start some time.
    pub fn put(&self, content: ContentId, table: &[u8]) {
        let bytes = (HEADER + table.len()) as u64;
        if bytes > self.limit / LARGEST_SHARE {
            return;
        }
        let mut entries = self.lock();
        let path = self.path(content);
        if let Err(e) = write(&path, content, table) {
            tracing::debug!("{} cannot be written: {e}", path.display());
            remove(&temporary(&path));
            return;
        }
        entries.forget(content);
        entries.add(content, bytes);
        self.make_room(&mut entries);
    }

    fn make_room(&self, entries: &mut Entries) {
        while entries.bytes > self.limit || entries.known.len() > MAX_ENTRIES {
            let oldest = entries.known.iter().min_by_key(|(_, entry)| entry.used).map(|(content, _)| *content);
            let Some(oldest) = oldest else { return };
            entries.forget(oldest);
            remove(&self.path(oldest));
        }
    }
}

impl Entries {
    fn add(&mut self, content: ContentId, bytes: u64) {
        self.clock += 1;
        self.bytes += bytes;
        self.known.insert(content, Entry { bytes, used: self.clock });
    }

    fn touch(&mut self, content: ContentId) {
        self.clock += 1;
        if let Some(entry) = self.known.get_mut(&content) {
            entry.used = self.clock;
        }
    }

    fn forget(&mut self, content: ContentId) {
        if let Some(entry) = self.known.remove(&content) {
            self.bytes -= entry.bytes;
        }
    }
}

fn header(content: ContentId, table: &[u8]) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend(everflame_unwind::layout::VERSION.to_le_bytes());
    header.extend((table.len() as u32).to_le_bytes());
    header.extend(content.0.to_le_bytes());
    header.extend(xxh3_128(table).to_le_bytes());
    header
}

/// The table in a file, if it is whole and of this content.
fn read(path: &Path, content: ContentId, limit: u64) -> Option<(File, Vec<u8>)> {
    let mut file = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    let mut bytes = Vec::new();
    Read::take(&mut file, limit).read_to_end(&mut bytes).ok()?;
    if bytes.len() < HEADER {
        return None;
    }
    let table = bytes.split_off(HEADER);
    (bytes == header(content, &table) && is_table(&table)).then_some((file, table))
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY);
    name.into()
}

/// As a whole or not at all. Not synced: after a power failure a torn file is noticed.
fn write(path: &Path, content: ContentId, table: &[u8]) -> io::Result<()> {
    let temporary = temporary(path);
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(&header(content, table))?;
    file.write_all(table)?;
    fs::rename(&temporary, path)
}

fn remove(path: &Path) {
    if let Err(e) = fs::remove_file(path)
        && e.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!("cannot remove {}: {e}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table as far as its header says, of `elements` elements.
    fn table(elements: u32, fill: u8) -> Vec<u8> {
        let mut table = vec![fill; elements as usize * 64];
        table[..4].copy_from_slice(b"EFT1");
        table[4..8].copy_from_slice(&elements.to_le_bytes());
        table
    }

    fn open(directory: &Path, limit: u64) -> TableCache {
        TableCache::open(directory.join("tables"), limit).unwrap()
    }

    #[test]
    fn outlives_the_agent() {
        let directory = tempfile::tempdir().unwrap();
        let cache = open(directory.path(), 1 << 20);
        assert_eq!(cache.get(ContentId(1)), None);
        cache.put(ContentId(1), &table(3, 1));
        assert_eq!(cache.get(ContentId(1)), Some(table(3, 1)));
        cache.put(ContentId(1), &table(4, 2));
        let again = open(directory.path(), 1 << 20);
        assert_eq!(again.get(ContentId(1)), Some(table(4, 2)));
        assert_eq!(again.lock().bytes, 4 * 64 + HEADER as u64);
    }

    #[test]
    fn what_is_torn_foreign_or_of_another_content_is_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let cache = open(directory.path(), 1 << 20);
        let path = cache.path(ContentId(5));
        cache.put(ContentId(5), &table(3, 1));
        let whole = fs::read(&path).unwrap();
        let mut damages: Vec<Vec<u8>> = (0..HEADER)
            .chain([whole.len() - 1])
            .map(|at| {
                let mut bytes = whole.clone();
                bytes[at] ^= 1;
                bytes
            })
            .collect();
        damages.extend([
            Vec::new(),
            whole[..HEADER - 1].to_vec(),
            whole[..whole.len() - 64].to_vec(),
            [&whole[..], &[0]].concat(),
        ]);
        for damage in damages {
            cache.put(ContentId(5), &table(3, 1));
            fs::write(&path, &damage).unwrap();
            assert_eq!(cache.get(ContentId(5)), None);
            assert!(!path.try_exists().unwrap(), "it is gone");
        }
        // Whole, but what it holds is no table.
        write(&path, ContentId(5), b"nonsense").unwrap();
        let stranger = directory.path().join("tables/notes");
        fs::write(&stranger, "a stranger's").unwrap();
        fs::write(temporary(&path), "half").unwrap();
        let again = open(directory.path(), 1 << 20);
        assert_eq!(again.get(ContentId(5)), None);
        assert!(stranger.try_exists().unwrap() && !temporary(&path).try_exists().unwrap());
        fs::remove_dir_all(directory.path().join("tables")).unwrap();
        again.put(ContentId(6), &table(1, 0));
        assert_eq!(again.get(ContentId(6)), None, "nowhere to write is no disaster");
    }

    #[test]
    fn the_least_recently_used_make_room() {
        let directory = tempfile::tempdir().unwrap();
        let each = 64 * 10 + HEADER as u64;
        let cache = open(directory.path(), each * 5);
        for n in 0..5 {
            cache.put(ContentId(n), &table(10, n as u8));
        }
        assert!(cache.get(ContentId(0)).is_some());
        cache.put(ContentId(9), &table(10, 9));
        assert_eq!((cache.get(ContentId(1)), cache.lock().bytes), (None, each * 5));
        assert_eq!(fs::read_dir(directory.path().join("tables")).unwrap().count(), 5);
        cache.put(ContentId(10), &table(1000, 9));
        assert_eq!(cache.get(ContentId(10)), None, "too large to drive out all others");
        let smaller = open(directory.path(), each * 2);
        assert_eq!(smaller.lock().known.len(), 2);
        assert!(smaller.get(ContentId(9)).is_some(), "the last one used is kept");
    }
}
