//! The files that a process has mapped, opened for the worker.

use std::{
    fs::File,
    io::{self, Read},
};

use crate::{
    executables::{open, vdso},
    processes::{maps, patience::Patience},
};

/// Opens the file that a process has mapped at an address. The worker checks that it is the
/// right one: the process may have another by now.
pub(super) fn mapped_at(patience: &mut Patience, pid: u32, address: u64) -> Option<(File, u64)> {
    // Whose file system hangs is left behind: the stack is not judged.
    patience.call(move || find(pid, address).ok()).flatten()
}

fn find(pid: u32, address: u64) -> io::Result<(File, u64)> {
    let mut text = Vec::new();
    File::open(format!("/proc/{pid}/maps"))?.take(maps::MAX_BYTES).read_to_end(&mut text)?;
    let line = maps::lines(&text).find(|line| (line.start..line.end).contains(&address));
    let line = line.ok_or(io::ErrorKind::NotFound)?;
    if line.name == b"[vdso]" {
        return vdso::image();
    }
    let found = open::find(pid, 0, &line.to_mapping()).map_err(io::Error::other)?;
    Ok((found.open()?, found.stamp.size))
}
