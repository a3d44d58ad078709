//! What is known of one executable, and where a mapping of it is.

use std::sync::Arc;

use everflame_profile::{Mapping, Str};
use everflame_symbols::Segment;

use super::open::Stamp;
use crate::processes::records::FileId;

/// Executable number of memory that belongs to no file.
pub const ANON: u32 = 1;

/// Number, name and state of an executable.
#[derive(Debug)]
pub(super) struct Executable {
    pub name: Str,
    pub size: u64,
    pub state: State,
    pub table: Table,
    pub index: Index,
    pub files: Vec<FileId>,
}

#[derive(Debug)]
pub(super) enum State {
    /// It could not be opened so far.
    Unopened,
    /// A worker looks at it.
    Asked,
    Known {
        segments: Box<[Segment]>,
        mapping: Arc<Mapping>,
    },
    /// It is no ELF file, or a worker ended over it.
    Bad,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// Nothing was done yet, or it was evicted at this second.
    Absent(u32),
    Asked,
    Published,
    /// No room; try again at this second.
    NoRoom(u32),
    /// It has no unwind data, or a worker ended over it.
    Bad,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Index {
    Absent,
    Asked,
    Done,
}

#[derive(Debug)]
pub(super) struct KnownFile {
    pub number: u32,
    pub stamp: Option<Stamp>,
    pub generation: u64,
    pub checked: u32,
}

/// Where an address range of a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In an executable: number and bias.
    File(u32, u64),
    /// In memory of no file, or of a file that is no ELF file.
    Anon,
    /// Nobody knows yet.
    NotYet,
}

/// What an outcome means for the processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// What is known of the number changed: mappings of it can be published.
    Known(u32),
    /// The first number turned out to be the same content as the second.
    Same(u32, u32),
}

/// The loadable segment that is mapped from `offset` on; the executable one where several
/// share a page of so many bytes.
pub(super) fn segment_of(segments: &[Segment], offset: u64, page: u64) -> Option<&Segment> {
    let covers = |s: &&Segment| {
        let first = s.offset & !(page - 1);
        let end = s.offset.saturating_add(s.file_size).saturating_add(page - 1) & !(page - 1);
        (first..end).contains(&offset)
    };
    segments.iter().filter(covers).max_by_key(|s| s.executable)
}

/// The last part of a path, without what the kernel adds to deleted files.
pub fn base_name(path: &[u8]) -> Str {
    const LONGEST: usize = 255;
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    let name = path.rsplit(|b| *b == b'/').find(|part| !part.is_empty()).unwrap_or(b"unknown");
    let name = &name[..name.len().min(LONGEST)];
    Arc::from(String::from_utf8_lossy(name).replace(|c: char| c.is_control(), "\u{fffd}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_segment_of_a_mapping() {
        let segment = |offset, vaddr, file_size, executable| Segment {
            vaddr,
            offset,
            file_size,
            mem_size: file_size,
            executable,
        };
        // As lld lays it out: segments share pages, addresses run ahead of offsets.
        let all =
            [segment(0, 0, 0x1234, false), segment(0x1240, 0x2240, 0x3000, true), segment(0x4300, 0x6300, 9, false)];
        assert_eq!(segment_of(&all, 0x1000, 4096), Some(&all[1]));
        assert_eq!(segment_of(&all, 0x3000, 4096), Some(&all[1]));
        assert_eq!(segment_of(&all, 0, 4096), Some(&all[0]));
        assert_eq!(segment_of(&all, 0x5000, 4096), None);
        let hostile = [segment(u64::MAX - 5, u64::MAX, u64::MAX, true)];
        assert_eq!(segment_of(&hostile, 0, 4096), None);
        // Pages of 64 KiB: the code begins in the middle of one.
        let large = [segment(0, 0, 0x8000, false), segment(0x1a340, 0x2a340, 0x9000, true)];
        assert_eq!(segment_of(&large, 0x10000, 0x10000), Some(&large[1]));
        assert_eq!(segment_of(&large, 0x10000, 4096), None);
    }

    #[test]
    fn base_names_of_all_kinds() {
        assert_eq!(&*base_name(b"/a/b.so (deleted)"), "b.so");
        assert_eq!(&*base_name(b"/memfd:x (deleted)"), "memfd:x");
        assert_eq!(&*base_name(b"///"), "unknown");
        assert_eq!(&*base_name(b"/a\n\x1b[1m\xff"), "a\u{fffd}\u{fffd}[1m\u{fffd}");
        assert_eq!(base_name(&[b'x'; 5000]).len(), 255);
    }
}
