//! The one place that maps files: symbol indexes, which are looked up where they lie.
#![allow(unsafe_code)]

use std::{fs::File, io};

/// The bytes of a symbol index file, mapped read-only.
#[derive(Debug)]
pub struct Mapped(memmap2::Mmap);

impl Mapped {
    /// Maps a whole file of the symbol directory.
    pub fn open(file: &File) -> io::Result<Self> {
        // SAFETY: the bytes of a mapped file must not change while they are borrowed.
        // Files of the symbol directory, which only this server writes, are complete
        // before they get their name and are never written, cut or extended after
        // that: a new index replaces the name, and the old file lives on until it is
        // unmapped.
        unsafe { memmap2::Mmap::map(file) }.map(Self)
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
