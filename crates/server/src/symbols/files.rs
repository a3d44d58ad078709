//! The symbol directory: one file an executable, complete before it gets its name,
//! the longest unused ones deleted when the directory grows past its bounds.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use everflame_profile::ContentId;
use rustc_hash::FxHashMap;

use super::{Limits, Source};

/// How stale a file's time of use may be.
const USE_RESOLUTION: Duration = Duration::from_secs(3_600);
const ENDING: &str = "idx";
const UNFINISHED: &str = "unfinished";

#[derive(Debug, Clone, Copy)]
struct Stored {
    source: Source,
    bytes: u64,
    used: SystemTime,
}

/// What the directory holds.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    limits: Limits,
    stored: FxHashMap<ContentId, Stored>,
    bytes: u64,
}

impl Files {
    /// Lists the directory, creating it if need be; what was never finished goes.
    pub fn open(directory: &Path, limits: Limits) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let mut files = Self { directory: directory.to_owned(), limits, stored: FxHashMap::default(), bytes: 0 };
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name == UNFINISHED {
                fs::remove_file(entry.path())?;
                continue;
            }
            let Some((id, source)) = parse_name(name) else { continue };
            let about = entry.metadata()?;
            let used = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let stored = Stored { source, bytes: about.len(), used };
            // Both may stand after a crash between two steps: the trusted one counts.
            match files.stored.get(&id) {
                Some(other) if other.source > source => fs::remove_file(entry.path())?,
                Some(other) => fs::remove_file(files.path_of(id, other.source))?,
                None => {}
            }
            if files.stored.get(&id).is_none_or(|other| other.source <= source) {
                files.stored.insert(id, stored);
            }
        }
        files.bytes = files.stored.values().map(|s| s.bytes).sum();
        Ok(files)
    }

    /// Writes an index durably, then deletes what is over the bounds and answers it.
    pub fn write(&mut self, id: ContentId, source: Source, bytes: &[u8]) -> io::Result<Vec<ContentId>> {
        let unfinished = self.directory.join(UNFINISHED);
        let written = File::create(&unfinished).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&unfinished, self.path_of(id, source))?;
            File::open(&self.directory)?.sync_all()
        });
        if let Err(error) = written {
            // Best effort: it is deleted at the next start otherwise.
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        let stored = Stored { source, bytes: bytes.len() as u64, used: SystemTime::now() };
        if let Some(old) = self.stored.insert(id, stored) {
            self.bytes -= old.bytes;
            if old.source != source {
                fs::remove_file(self.path_of(id, old.source))?;
            }
        }
        self.bytes += stored.bytes;
        let mut gone = Vec::new();
        while self.stored.len() > 1
            && (self.bytes > self.limits.stored_bytes || self.stored.len() > self.limits.stored_files)
        {
            let others = self.stored.iter().filter(|(other, _)| **other != id);
            let Some((oldest, source)) = others.min_by_key(|(_, s)| s.used).map(|(id, s)| (*id, s.source)) else {
                break;
            };
            fs::remove_file(self.path_of(oldest, source))?;
            self.forget(oldest);
            gone.push(oldest);
        }
        Ok(gone)
    }

    /// Where the index of a content is, and who made it.
    pub fn path(&self, id: ContentId) -> Option<(PathBuf, Source)> {
        let stored = self.stored.get(&id)?;
        Some((self.path_of(id, stored.source), stored.source))
    }

    /// Notes that an index was used now, so that others go first.
    pub fn used(&mut self, id: ContentId) {
        let now = SystemTime::now();
        let Some(stored) = self.stored.get_mut(&id) else { return };
        if now.duration_since(stored.used).is_ok_and(|age| age < USE_RESOLUTION) {
            return;
        }
        stored.used = now;
        let source = stored.source;
        let marked = File::open(self.path_of(id, source)).and_then(|file| file.set_modified(now));
        if let Err(error) = marked {
            tracing::debug!(%error, "the time of use of a symbol index was not noted");
        }
    }

    /// Leaves a file out from now on.
    pub fn forget(&mut self, id: ContentId) {
        if let Some(stored) = self.stored.remove(&id) {
            self.bytes -= stored.bytes;
        }
    }

    /// All contents.
    pub fn ids(&self) -> impl Iterator<Item = ContentId> {
        self.stored.keys().copied()
    }

    /// Contents from one source.
    pub fn from(&self, source: Source) -> impl Iterator<Item = ContentId> {
        self.stored.iter().filter(move |(_, s)| s.source == source).map(|(id, _)| *id)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.stored.len()
    }

    fn path_of(&self, id: ContentId, source: Source) -> PathBuf {
        self.directory.join(format!("{id}.{}.{ENDING}", source.as_str()))
    }
}

fn parse_name(name: &str) -> Option<(ContentId, Source)> {
    let (id, rest) = name.split_once('.')?;
    let (source, ending) = rest.split_once('.')?;
    let source = [Source::Agent, Source::Operator].into_iter().find(|s| s.as_str() == source)?;
    (ending == ENDING).then_some((ContentId::parse(id)?, source))
}
