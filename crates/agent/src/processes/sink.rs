//! Where the tracker puts what it knows: the kernel's maps, or a test's list.

use crate::bpf::host::TableView;

/// The kernel side has no room; the caller evicts, counts and goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room in the kernel's tables")]
pub struct NoRoom;

/// An executable mapping of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappingEntry {
    /// First address.
    pub start: u64,
    /// Length in pages of 4 KiB.
    pub pages: u32,
    /// Executable number, or 1 for executable memory of no file.
    pub executable: u32,
    /// ELF virtual address = pc - bias (wrapping); 0 for memory of no file.
    pub bias: u64,
}

/// The table of processes and their mappings.
pub trait MappingSink {
    /// Replaces what is known of a process. `entries` are sorted by start. `as_of` is the
    /// time (CLOCK_MONOTONIC, nanoseconds) of the newest event they take into account (of a
    /// reading of /proc: the time before it began): the kernel's own news of an exec after
    /// it wins.
    fn set(&mut self, pid: u32, entries: &[MappingEntry], as_of: u64) -> Result<(), NoRoom>;

    /// Forgets a process. Says how much room that makes in a while, in the unit of
    /// [`MappingUsage::elements`]: nothing where others have the same mappings.
    fn remove(&mut self, pid: u32) -> u32;

    /// How much is there.
    fn usage(&self) -> MappingUsage {
        MappingUsage::default()
    }
}

/// What the table of mappings holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MappingUsage {
    /// Distinct sets of mappings.
    pub runs: u64,
    /// Mappings in them, and a head for each.
    pub elements: u64,
    /// Those that will be free in a moment.
    pub rests: u64,
    /// Memory, bytes.
    pub bytes: u64,
}

/// The tables of executables.
pub trait TableSink {
    /// Makes an unwind table (`bpf/abi.h`) known under an executable's number.
    fn publish(&mut self, executable: u32, table: &[u8]) -> Result<(), NoRoom>;

    /// Takes it away again. One may come later: what needs it waits.
    fn withdraw(&mut self, executable: u32);

    /// Says that there is none to wait for.
    fn never(&mut self, executable: u32);

    /// Shows the tables as they are now.
    fn look(&self, with: &mut dyn FnMut(&TableView<'_>));
}
