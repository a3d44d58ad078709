//! A file's bytes in memory, in the worker only.

use std::{fs::File, io};

use memmap2::{Mmap, MmapOptions, UncheckedAdvice};

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

    /// Takes what was read of it out of our memory. It is read again where it is needed, mostly
    /// from the page cache, where the programs that run keep it.
    pub fn let_go(&self) {
        let Some(map) = &self.0 else { return };
        // SAFETY: nobody writes to this mapping, so its pages have nothing that the file has not; that
        // the file may be another one by now holds for every reading of it (see above).
        if let Err(e) = unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) } {
            tracing::debug!("a file stays in memory: {e}");
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}
