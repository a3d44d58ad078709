//! The symbol index: functions of one executable, looked up where it lies (in a file
//! that is mapped, or in memory), with no set-up beyond one pass that checks it.
//!
//! # Format, version 1
//! Little endian. Sections follow each other in this order, each padded with zeros to
//! 8 bytes; their sizes follow from the counts in the header.
//! ```text
//! header, 128 bytes
//!     0  magic        b"EFSYMIDX"
//!     8  version      u32 = 1
//!    12  header size  u32 = 128
//!    16  checksum     u64, xxh3-64 of everything from byte 24 on
//!    24  length       u64, of the whole index
//!    32  content id   u128, of the executable that it was made from
//!    48  base         u64, virtual address that the pages count from, a multiple of 65,536
//!    56  entries      u32
//!    60  functions    u32, entries that are functions
//!    64  named        u32, entries that have a name
//!    68  pages        u32, of 64 KiB
//!    72  blob         u32, bytes of strings
//!    76  build id     u32 offset, u32 length: in the blob, lower-case hexadecimal
//!    84  name         u32 offset, u32 length: in the blob, the executable's base name
//!    92  refused      u32, names and functions left out because of a limit
//!    96  zeros
//! directory  u32 × (pages + 1)   number of the first entry of each page, then `entries`
//! starts     u16 × entries       address in the page; growing within a page
//! pads       u8  × entries       the entry ends so many bytes before the next one starts;
//!                                255: a hole, no function from here to the next entry
//! named      u64 × ⌈entries/64⌉  a bit for each entry that has a name
//! ranks      u32 × ⌈entries/64⌉  named entries before each such word
//! names      u32 × named         offset in the blob of a u16 length and so many bytes of UTF-8
//! blob
//! ```
//! The last entry is a hole. A nameless function takes 3.2 bytes, which is what makes
//! a stripped executable with 240,000 functions cost less than 1 MB.

use std::ops::Range;

use everflame_profile::ContentId;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    Error,
    elf::{u16_at, u32_at, u64_at},
};

pub(crate) const MAGIC: &[u8; 8] = b"EFSYMIDX";
pub(crate) const VERSION: u32 = 1;
pub(crate) const HEADER_SIZE: usize = 128;
pub(crate) const CHECKED_FROM: usize = 24;
pub(crate) const PAGE_BITS: u32 = 16;
pub(crate) const HOLE: u8 = 255;

/// A symbol index over bytes that were checked once.
#[derive(Debug, Clone)]
pub struct Index<B> {
    bytes: B,
    layout: Layout,
}

/// One function of an executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Function<'a> {
    /// Virtual address of its first byte.
    pub start: u64,
    /// Virtual address after its last byte.
    pub end: u64,
    /// Its name as the compiler mangled it; absent where only unwind data knows it.
    pub name: Option<&'a str>,
}

/// What the header says, and where that puts the sections.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub content_id: ContentId,
    pub base: u64,
    pub entries: usize,
    pub functions: u32,
    pub named: u32,
    pub refused: u32,
    pub pages: usize,
    pub build_id: Range<usize>,
    pub name: Range<usize>,
    pub at: Sections,
}

/// Where the sections start, and the end of the index.
#[derive(Debug, Clone)]
pub(crate) struct Sections {
    directory: usize,
    starts: usize,
    pads: usize,
    bits: usize,
    ranks: usize,
    names: usize,
    blob: usize,
    pub end: usize,
}

impl Sections {
    /// Puts the sections after each other. `None` where the sum overflows.
    pub fn place(pages: usize, entries: usize, named: usize, blob: usize) -> Option<Self> {
        let words = entries.div_ceil(64);
        let mut end = HEADER_SIZE;
        let mut section = |count: usize, size: usize| {
            let start = end;
            end = end.checked_add(count.checked_mul(size)?)?.checked_next_multiple_of(8)?;
            Some(start)
        };
        let directory = section(pages.checked_add(1)?, 4)?;
        let starts = section(entries, 2)?;
        let pads = section(entries, 1)?;
        let bits = section(words, 8)?;
        let ranks = section(words, 4)?;
        let names = section(named, 4)?;
        let blob = section(blob, 1)?;
        Some(Self { directory, starts, pads, bits, ranks, names, blob, end })
    }
}

impl Layout {
    fn read(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.get(..8) != Some(MAGIC) {
            return Err(Error::NotIndex);
        }
        let field = |at| u32_at(bytes, at).ok_or(Error::BrokenIndex("header"));
        let wide = |at| u64_at(bytes, at).ok_or(Error::BrokenIndex("header"));
        if field(8)? != VERSION {
            return Err(Error::IndexVersion { found: field(8)?, known: VERSION });
        }
        let checked = bytes.get(CHECKED_FROM..).ok_or(Error::BrokenIndex("header"))?;
        if wide(24)? != bytes.len() as u64 || wide(16)? != xxh3_64(checked) {
            return Err(Error::BrokenIndex("length or checksum"));
        }
        if field(12)? as usize != HEADER_SIZE {
            return Err(Error::BrokenIndex("header"));
        }
        let content_id = ContentId(u128::from(wide(32)?) | u128::from(wide(40)?) << 64);
        let blob = field(72)? as usize;
        let in_blob = |at: usize| -> Result<Range<usize>, Error> {
            let start = field(at)? as usize;
            let end = start.checked_add(field(at + 4)? as usize).filter(|&end| end <= blob);
            Ok(start..end.ok_or(Error::BrokenIndex("strings"))?)
        };
        let (entries, named, pages) = (field(56)? as usize, field(64)?, field(68)? as usize);
        let at = Sections::place(pages, entries, named as usize, blob).filter(|at| at.end == bytes.len());
        Ok(Self {
            content_id,
            base: wide(48)?,
            entries,
            functions: field(60)?,
            named,
            pages,
            build_id: in_blob(76)?,
            name: in_blob(84)?,
            refused: field(92)?,
            at: at.ok_or(Error::BrokenIndex("counts"))?,
        })
    }
}

impl<B: AsRef<[u8]>> Index<B> {
    /// Checks the bytes, all of them, so that no look-up meets a surprise. Takes about
    /// a millisecond for each 2 MB.
    pub fn parse(bytes: B) -> Result<Self, Error> {
        let layout = Layout::read(bytes.as_ref())?;
        let index = Self { bytes, layout };
        crate::index_check::check(&index).map_err(Error::BrokenIndex)?;
        Ok(index)
    }

    /// Of the executable that the index was made from.
    pub fn content_id(&self) -> ContentId {
        self.layout.content_id
    }

    /// GNU build id in lower-case hexadecimal, empty where there is none.
    pub fn build_id(&self) -> &str {
        self.text(self.layout.build_id.clone()).unwrap_or_default()
    }

    /// Base name of the executable.
    pub fn name(&self) -> &str {
        self.text(self.layout.name.clone()).unwrap_or_default()
    }

    /// How many functions it holds.
    pub fn functions(&self) -> u32 {
        self.layout.functions
    }

    /// How many of them have a name.
    pub fn named(&self) -> u32 {
        self.layout.named
    }

    /// How many names and functions were left out because of a limit when it was made.
    pub fn refused(&self) -> u32 {
        self.layout.refused
    }

    /// The function that holds the virtual address `vaddr`.
    pub fn lookup(&self, vaddr: u64) -> Option<Function<'_>> {
        let relative = vaddr.checked_sub(self.layout.base)?;
        let page = usize::try_from(relative >> PAGE_BITS).ok().filter(|&page| page < self.layout.pages)?;
        let low = relative as u16;
        let (first, last) = (self.first_entry(page)?, self.first_entry(page + 1)?);
        // Number of entries of this page that start at or before the address.
        let (mut from, mut to) = (first, last);
        while from < to {
            let middle = from + (to - from) / 2;
            if self.start_in_page(middle)? <= low { from = middle + 1 } else { to = middle }
        }
        let entry = from.checked_sub(1)?;
        let pad = u64::from(self.pad(entry).filter(|&pad| pad != HOLE)?);
        // Mostly the entry and the next one are of this page, and need no search.
        let page_start = self.layout.base + ((page as u64) << PAGE_BITS);
        let in_page = |entry| Some(page_start + u64::from(self.start_in_page(entry)?));
        let start = if entry >= first { in_page(entry)? } else { self.start(entry)? };
        let next = if entry + 1 < last { in_page(entry + 1)? } else { self.start(entry + 1)? };
        let end = next.checked_sub(pad)?;
        (vaddr < end).then(|| Function { start, end, name: self.name_of(entry) })
    }

    /// All functions, by address.
    pub fn iter(&self) -> impl Iterator<Item = Function<'_>> {
        (0..self.layout.entries).filter_map(|entry| self.function(entry))
    }

    /// Entry number `entry`, unless it is a hole.
    fn function(&self, entry: usize) -> Option<Function<'_>> {
        let pad = self.pad(entry)?;
        if pad == HOLE {
            return None;
        }
        let start = self.start(entry)?;
        let end = self.start(entry + 1)?.checked_sub(u64::from(pad))?;
        Some(Function { start, end, name: self.name_of(entry) })
    }

    fn name_of(&self, entry: usize) -> Option<&str> {
        let bits = self.bits(entry / 64)?;
        let bit = 1u64 << (entry % 64);
        if bits & bit == 0 {
            return None;
        }
        let number = self.rank(entry / 64)? as usize + (bits & (bit - 1)).count_ones() as usize;
        self.name_at(self.name_offset(number)?)
    }

    /// The virtual address at which an entry starts.
    pub(crate) fn start(&self, entry: usize) -> Option<u64> {
        let low = self.start_in_page(entry)?;
        // The last page that begins at or before the entry; pages in between are empty.
        let (mut from, mut to) = (0, self.layout.pages);
        while from < to {
            let middle = from + (to - from) / 2;
            if self.first_entry(middle)? <= entry { from = middle + 1 } else { to = middle }
        }
        let page = from.checked_sub(1)? as u64;
        self.layout.base.checked_add((page << PAGE_BITS) + u64::from(low))
    }

    pub(crate) fn first_entry(&self, page: usize) -> Option<usize> {
        u32_at(self.bytes.as_ref(), self.layout.at.directory + page * 4).map(|first| first as usize)
    }

    pub(crate) fn start_in_page(&self, entry: usize) -> Option<u16> {
        u16_at(self.bytes.as_ref(), self.layout.at.starts + entry * 2)
    }

    pub(crate) fn pad(&self, entry: usize) -> Option<u8> {
        self.bytes.as_ref().get(self.layout.at.pads + entry).copied()
    }

    pub(crate) fn bits(&self, word: usize) -> Option<u64> {
        u64_at(self.bytes.as_ref(), self.layout.at.bits + word * 8)
    }

    pub(crate) fn rank(&self, word: usize) -> Option<u32> {
        u32_at(self.bytes.as_ref(), self.layout.at.ranks + word * 4)
    }

    pub(crate) fn name_offset(&self, number: usize) -> Option<usize> {
        u32_at(self.bytes.as_ref(), self.layout.at.names + number * 4).map(|offset| offset as usize)
    }

    pub(crate) fn name_at(&self, offset: usize) -> Option<&str> {
        let length = usize::from(u16_at(self.bytes.as_ref(), self.layout.at.blob + offset)?);
        self.text(offset + 2..offset + 2 + length)
    }

    pub(crate) fn text(&self, in_blob: Range<usize>) -> Option<&str> {
        let at = self.layout.at.blob;
        str::from_utf8(self.bytes.as_ref().get(at + in_blob.start..at + in_blob.end)?).ok()
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }
}
