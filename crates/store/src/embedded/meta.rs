//! `meta.json` of a block: what is in it, without opening anything else.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::table::FileInfo;

/// Version of the block format that is written.
pub(crate) const VERSION: u32 = 1;
/// Name of the file.
pub(crate) const FILE: &str = "meta.json";

/// See the module's text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub version: u32,
    /// Writer and sequence; the directory's name.
    pub id: String,
    pub sequence: u64,
    /// Newest generation of the log whose rows are in it.
    pub generation: u64,
    /// Blocks whose rows are in this one, and those that they replaced.
    pub replaces: Vec<String>,
    /// Unix milliseconds of the first row.
    pub from_ms: i64,
    /// Unix milliseconds after the last row.
    pub until_ms: i64,
    pub rows: u64,
    pub samples: u64,
    pub series: u64,
    pub nodes: u64,
    pub frames: u64,
    /// Names and units of the sample types in it.
    pub types: Vec<(String, String)>,
    pub files: BTreeMap<String, FileInfo>,
}

impl Meta {
    /// Reads the description of the block in `dir`.
    pub fn read(dir: &Path) -> io::Result<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let text = fs::read(dir.join(FILE))?;
        let Versioned { version } = serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
        if version > VERSION {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("block format {version} is newer than this program's {VERSION}: use a newer everflame"),
            ));
        }
        let meta: Self = serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
        let name = dir.file_name().and_then(|name| name.to_str());
        if name != Some(meta.id.as_str()) || meta.from_ms >= meta.until_ms || meta.rows == 0 {
            return Err(invalid("the description does not fit the block".to_owned()));
        }
        Ok(meta)
    }

    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }
}
