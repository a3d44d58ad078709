//! Memory that the kernel programs and we both see: mappings of BPF arrays. The one place
//! where such memory is touched.

use std::{
    os::fd::{AsFd, AsRawFd},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use memmap2::{MmapOptions, MmapRaw};

use super::host::Array;

/// Bytes mapped now.
static MAPPED: AtomicU64 = AtomicU64::new(0);

/// Bytes of kernel maps that are mapped, and so are counted as ours by the kernel as well.
pub fn mapped_bytes() -> u64 {
    MAPPED.load(Ordering::Relaxed)
}

/// A mapping of a BPF_F_MMAPABLE array.
#[derive(Debug)]
pub struct Shared {
    map: MmapRaw,
}

impl Shared {
    /// Maps `length` bytes of an array.
    pub fn map(fd: &impl AsFd, length: usize) -> std::io::Result<Self> {
        let map = MmapOptions::new().len(length).map_raw(fd.as_fd().as_raw_fd())?;
        MAPPED.fetch_add(length as u64, Ordering::Relaxed);
        Ok(Self { map })
    }

    /// Copies bytes in. The kernel programs must not be led here yet: whoever publishes
    /// the place does so afterwards, by a system call or a store with release order.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset.checked_add(bytes.len()).expect("an offset within the mapping");
        assert!(end <= self.map.len(), "a write beyond the mapping");
        // SAFETY: the range was checked to lie within the live mapping, and `bytes` cannot
        // overlap it, since no reference into the mapping is ever given out as `&[u8]`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.as_mut_ptr().add(offset), bytes.len()) }
    }

    /// Whether bytes are there that [`write`](Self::write) wrote. Not for what the kernel
    /// programs write.
    pub fn holds(&self, offset: usize, bytes: &[u8]) -> bool {
        let end = offset.checked_add(bytes.len()).expect("an offset within the mapping");
        assert!(end <= self.map.len(), "a look beyond the mapping");
        // SAFETY: in range of the live mapping, where only we write, and only through a `&mut`
        // of this value, which nobody has while this borrow lasts.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(offset), bytes.len()) == bytes }
    }

    /// Stores a word so that what was written before is seen by who sees the word.
    pub fn publish_u32(&mut self, offset: usize, value: u32) {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.map.len(), "a word beyond the mapping");
        // SAFETY: in range and aligned (a mapping starts on a page); atomics may be shared
        // with the kernel.
        unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().add(offset).cast()) }.store(value, Ordering::Release);
    }

    /// As an array for C code, of values `stride` bytes apart. It must not outlive the mapping.
    pub(super) fn array(&self, stride: u32) -> Array {
        Array::new(self.map.as_ptr().cast(), (self.map.len() / stride as usize) as u32, stride)
    }

    /// The whole mapping as atomic words, for the rest of the process's life.
    pub fn leak(self) -> &'static [AtomicU64] {
        let words = self.map.len() / 8;
        let map: &'static MmapRaw = Box::leak(Box::new(self.map));
        // SAFETY: the mapping is leaked, hence lives forever; it is page-aligned and
        // `words * 8` bytes long; every access from here on is atomic.
        unsafe { std::slice::from_raw_parts(map.as_ptr().cast::<AtomicU64>(), words) }
    }
}
