//! The vDSO: code that the kernel gives every process. It is the same in all of them, so
//! our own copy stands for all.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
};

use crate::{processes::maps, sys};

/// Most bytes that are read of it; real ones have 8 KiB.
const MAX_BYTES: u64 = 1 << 20;

/// A file in memory with the vDSO's image.
pub fn image() -> io::Result<(File, u64)> {
    let text = std::fs::read("/proc/self/maps")?;
    let found = maps::lines(&text).find(|line| line.name == b"[vdso]");
    let found = found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no vDSO"))?;
    let length = (found.end - found.start).min(MAX_BYTES);
    let mut memory = File::open("/proc/self/mem")?;
    memory.seek(SeekFrom::Start(found.start))?;
    let mut bytes = vec![0; length as usize];
    memory.read_exact(&mut bytes)?;
    let mut file = sys::memory_file(c"vdso")?;
    file.write_all(&bytes)?;
    Ok((file, length))
}
