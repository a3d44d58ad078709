//! The file of the tokens: read whole, replaced whole. The server and the command line may
//! both change it at the same time, since each change is made under a lock.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::token::{Token, TokenError};

/// Bytes of the file at most.
const MAX_FILE: u64 = 64 << 20;
/// The version that is written.
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    version: u32,
    tokens: Vec<Token>,
}

/// What tells that a file is another than before, as far as the system can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// Of the file as it is now; nothing where there is none.
    pub fn of(path: &Path) -> Option<Self> {
        let facts = fs::metadata(path).ok()?;
        Some(Self { inode: facts.ino(), bytes: facts.len(), modified: (facts.mtime(), facts.mtime_nsec()) })
    }
}

/// Where the tokens are kept.
#[derive(Debug, Clone)]
pub struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    /// The file of a server's directory.
    pub fn new(directory: &Path) -> Self {
        Self { path: directory.join("tokens.json") }
    }

    /// Its state now.
    pub fn stamp(&self) -> Option<Stamp> {
        Stamp::of(&self.path)
    }

    /// All tokens; none where there is no file.
    pub fn read(&self) -> Result<Vec<Token>, TokenError> {
        self.content().map_err(|source| self.failed("read", source))
    }

    /// Makes a change and answers once it is on disk.
    pub fn change<T>(&self, change: impl FnOnce(&mut Vec<Token>) -> Result<T, TokenError>) -> Result<T, TokenError> {
        let _lock = self.lock().map_err(|source| self.failed("write", source))?;
        let mut tokens = self.read()?;
        let outcome = change(&mut tokens)?;
        self.replace(tokens).map_err(|source| self.failed("write", source))?;
        Ok(outcome)
    }

    fn content(&self) -> io::Result<Vec<Token>> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut bytes)?;
        // What the parser says names places, never values.
        let broken = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let content: Content = serde_json::from_slice(&bytes)
            .map_err(|e| broken(format!("it is damaged at line {}, column {}", e.line(), e.column())))?;
        if content.version != VERSION {
            return Err(broken(format!("it is of version {}, made by a newer everflame", content.version)));
        }
        Ok(content.tokens)
    }

    fn lock(&self) -> io::Result<File> {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.path.with_extension("lock"))?;
        lock.lock()?;
        Ok(lock)
    }

    fn replace(&self, tokens: Vec<Token>) -> io::Result<()> {
        let unfinished = self.path.with_extension("unfinished");
        let bytes = serde_json::to_vec_pretty(&Content { version: VERSION, tokens }).map_err(io::Error::other)?;
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&unfinished)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, &self.path)?;
        match self.path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }

    fn failed(&self, what: &'static str, source: io::Error) -> TokenError {
        TokenError::File { what, path: self.path.clone(), source }
    }
}
