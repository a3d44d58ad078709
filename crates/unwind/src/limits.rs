//! How much of a file is believed: the bounds that keep a hostile file from costing more than a real one.

use crate::machine::Machine;

/// Bounds of one conversion. The defaults take every real executable known to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Length of the table, in elements of 64 bytes. Default 1,048,576 (64 MiB).
    pub max_elements: u32,
    /// Functions with unwind data. Default 8,388,608.
    pub max_fdes: u32,
    /// Rows of all functions together, before merging. Default 33,554,432.
    pub max_rows: u32,
    /// Files of this machine alone; of any where it is `None`, the default.
    pub machine: Option<Machine>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_elements: 1 << 20, max_fdes: 1 << 23, max_rows: 1 << 25, machine: None }
    }
}

/// Executable segments looked at; real files have one or two.
pub(crate) const MAX_CODE_SEGMENTS: usize = 64;
/// Files of up to this many functions are read once more where a frame is found by rbx: the loader is one.
pub(crate) const MAX_FOLLOWED: u64 = 4096;
/// Bytes of a compressed section once it is unpacked, at most.
pub(crate) const MAX_UNPACKED: u64 = 16 << 20;
/// Nested `DW_CFA_remember_state`; compilers use one.
pub(crate) const MAX_REMEMBERED: usize = 32;
/// Code bytes searched for signal trampolines that have no unwind data.
pub(crate) const MAX_TRAMPOLINE_SEARCH: usize = 32 << 20;
/// Instructions followed in code that has no unwind data.
pub(crate) const MAX_INSTRUCTIONS: usize = 1 << 19;
/// Code with unwind data that is searched for calls to code without.
pub(crate) const MAX_COVERED_BYTES: u64 = 8 << 20;
/// Bytes that an entry point without unwind data and without symbol is taken to be long, at most.
pub(crate) const MAX_ENTRY_BYTES: u64 = 128;
/// A gap between two functions up to this many bytes is padding and keeps the rule before it.
pub(crate) const MAX_PADDING: u64 = 32;
/// Rules one table can number.
pub(crate) const MAX_RULES: usize = 65_535;
