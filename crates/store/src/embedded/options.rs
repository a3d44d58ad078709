//! Limits of the embedded engine, each by name.

use std::{path::PathBuf, time::Duration};

/// How an embedded store is to be opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory that holds everything; made if it is not there.
    pub dir: PathBuf,
    /// Samples older than this are deleted, and refused on arrival.
    pub retention_age: Duration,
    /// Bytes that blocks may take on disk; the oldest go first.
    pub retention_bytes: u64,
    /// Rows of the head that make a block.
    pub head_rows: usize,
    /// Bytes of memory of the head that make a block.
    pub head_bytes: usize,
    /// Age of the head that makes a block.
    pub head_age: Duration,
    /// Rows that a merge of blocks may make; it also bounds the memory of one.
    pub merge_rows: u64,
    /// Series of a head; samples of more go under one series (`everflame.overflow`).
    pub series_limit: usize,
    /// Profile ids that are remembered to count a profile once.
    pub profile_ids: usize,
    /// Agent instances that are remembered.
    pub instances: usize,
    /// Appends that may wait for the disk at the same time.
    pub waiting_appends: usize,
    /// Bytes of block dictionaries kept in memory.
    pub cache_bytes: usize,
}

impl Options {
    /// The defaults, for a directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            retention_age: Duration::from_secs(30 * 24 * 3600),
            retention_bytes: 10 << 30,
            head_rows: 1 << 20,
            head_bytes: 256 << 20,
            head_age: Duration::from_secs(600),
            merge_rows: 8 << 20,
            series_limit: 100_000,
            profile_ids: 1_000_000,
            instances: 10_000,
            waiting_appends: 256,
            cache_bytes: 128 << 20,
        }
    }

    /// The retention in nanoseconds.
    pub(crate) fn retention_nanos(&self) -> i64 {
        i64::try_from(self.retention_age.as_nanos()).unwrap_or(i64::MAX)
    }
}
