//! A file's bytes in memory, in the worker only.

use std::{fs::File, io};

use memmap2::{Mmap, MmapOptions};

/// A file, mapped for reading.
#[derive(Debug)]
pub struct Mapped(Option<Mmap>);

impl Mapped {
    /// Maps the first `size` bytes of the file.
    pub fn new(file: &File, size: u64) -> io::Result<Self> {
        let length = usize::try_from(size.min(file.metadata()?.len())).map_err(io::Error::other)?;
        if length == 0 {
            return Ok(Self(None));
        }
        // SAFETY: someone may write to or cut the file while we read: the worst of it is that this
        // process, which has nothing to lose, reads nonsense or dies of SIGBUS. The mapping is
        // private and read-only; the bytes are only ever looked at through bounds-checked slices.
        unsafe { MmapOptions::new().len(length).map_copy_read_only(file).map(Some).map(Self) }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}
