//! `state.json`: what outlives blocks: how far the log is in blocks, and the agents'
//! accounts as of then. Written whole under another name, then renamed.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::Path,
};

use everflame_profile::ProfileId;
use serde::{Deserialize, Serialize};

use super::{instances::Instance, table::write_bytes};

const FILE: &str = "state.json";
const VERSION: u32 = 1;
/// Most ids that are kept here, the newest: a head without rows is rare, and small.
const IDS: usize = 4096;

/// See the module's text.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub version: u32,
    /// The last generation of the log that is in blocks, and whose records `instances` has.
    pub generation: u64,
    /// Sequence of the next block: a name is never used again.
    pub next_sequence: u64,
    pub instances: BTreeMap<String, Instance>,
    /// Profile ids that no block has: of profiles of which nothing was stored, in heads
    /// without a row. They come again like others, and what was refused of them is counted.
    #[serde(default)]
    pub ids: Vec<ProfileId>,
    /// Whether the file is behind.
    #[serde(skip)]
    pub unwritten: bool,
}

impl Saved {
    pub fn read(dir: &Path) -> io::Result<Self> {
        let text = match fs::read(dir.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other?,
        };
        let saved: Self = serde_json::from_slice(&text)?;
        if saved.version > VERSION {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{FILE} has version {}, this program knows {VERSION}: use a newer everflame", saved.version),
            ));
        }
        Ok(saved)
    }

    /// Adds ids that no block has.
    pub fn keep_ids(&mut self, ids: &[ProfileId]) {
        self.ids.extend(ids);
        self.ids.drain(..self.ids.len().saturating_sub(IDS));
    }

    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let temporary = dir.join("state.json.new");
        let text = serde_json::to_vec(&Self { version: VERSION, ..self.clone() })?;
        write_bytes(&temporary, &text).and_then(|_| fs::rename(&temporary, dir.join(FILE))).inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })?;
        File::open(dir)?.sync_all()
    }
}
