//! Executables: every file that some process has mapped executable, what it is, and its
//! unwind table, which a worker builds once per content.

mod builder;
mod cache;
mod executable;
mod job;
pub mod open;
mod registry;
mod tables;
pub(crate) mod vdso;

use everflame_profile::{ContentId, Str};

pub(crate) use builder::{Builder, Outcome};
pub(crate) use cache::{CACHE_BYTES, TableCache};
pub(crate) use executable::{ANON, Change, Place, base_name};
pub(crate) use job::{Lane, Queue};
pub(crate) use registry::{NUMBERS, Registry};

/// A symbol index, fresh from a worker. It is not checked: parse it before use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SymbolIndex {
    /// What it was made from.
    pub content_id: ContentId,
    /// GNU build id in hexadecimal, empty where there is none.
    pub build_id: Str,
    /// Base name of the file.
    pub name: Str,
    /// As `everflame_symbols::build_index` makes it.
    pub bytes: Vec<u8>,
}

/// Who takes new symbol indexes. Called on the tracker's thread: it must not block.
pub type IndexTaker = Box<dyn FnMut(SymbolIndex) + Send>;

/// Says whether anybody wants the index of a content; building one takes time.
pub type IndexWanted = Box<dyn Fn(ContentId) -> bool + Send>;
