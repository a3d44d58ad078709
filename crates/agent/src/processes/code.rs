//! What late walks read of code: a few bytes of a file, where their page was not in memory when
//! the kernel's walk looked, as it is while a thread waits for the page that it is to go on in.
//! The bytes are compared with instructions and never parsed, so no worker is asked for them.

use std::{cell::RefCell, os::unix::fs::FileExt};

use rustc_hash::FxHashMap;

use super::{
    patience::Patience,
    records::{FileId, NewMapping},
    shared::Shared,
    space::{Area, Space},
    table::Processes,
};
use crate::{
    bpf::{abi::CODE_BYTES, host::Memory},
    executables::open,
    sample::{FIRST_EXECUTABLE, UserStack},
};

/// Places whose bytes are kept, at most; then all are forgotten.
const MAX_KNOWN: usize = 4096;
/// Bytes are kept for so many seconds: less than it takes for a number to become another file's.
const KEEP: u32 = 60;
/// Files that are opened in a turn at most; the walks that want more end where they do.
const MAX_OPENED: u32 = 64;

/// Bytes of code, by executable number and offset in the file.
#[derive(Debug, Default)]
pub struct Code {
    known: FxHashMap<(u32, u64), [u8; CODE_BYTES]>,
    since: u32,
    opened: u32,
    patience: Patience,
}

impl Code {
    /// A turn begins.
    pub fn turn(&mut self, shared: &Shared) {
        self.opened = 0;
        let now = shared.seconds();
        if self.known.len() >= MAX_KNOWN || self.since + KEEP < now {
            (self.known, self.since) = (FxHashMap::default(), now);
        }
    }

    /// What stands at `offset` of an executable's file, which `holder` finds in a process's memory.
    fn at(
        &mut self,
        number: u32,
        offset: u64,
        holder: impl FnOnce() -> Option<(u32, u32, Area)>,
        shared: &Shared,
    ) -> Option<[u8; CODE_BYTES]> {
        if let Some(bytes) = self.known.get(&(number, offset)) {
            return Some(*bytes);
        }
        if self.opened >= MAX_OPENED {
            shared.stats.code_refused.add(1);
            return None;
        }
        self.opened += 1;
        let found = holder().and_then(|(pid, parent, area)| {
            let file = FileId { device: (0, 0), inode: 0 };
            let (start, end, from) = (area.start, area.end, area.offset);
            let mapping = NewMapping { start, end, offset: from, file, inode_generation: 0, name: Box::default() };
            let read = move || {
                let file = open::find(pid, parent, &mapping).ok()?.open().ok()?;
                let mut bytes = [0; CODE_BYTES];
                file.read_exact_at(&mut bytes, offset).ok().map(|()| bytes)
            };
            self.patience.call(read).unwrap_or_else(|| {
                shared.stats.calls_hung.add(1);
                None
            })
        });
        match found {
            Some(bytes) => {
                shared.stats.code_read.add(1);
                self.known.insert((number, offset), bytes);
            }
            None => shared.stats.code_unreadable.add(1),
        }
        found
    }
}

/// What the walk of a late sample reads: its copy, and the code of the files that were mapped.
pub struct Seen<'a> {
    /// The copy.
    pub copy: &'a UserStack,
    /// Whose it is.
    pub pid: u32,
    /// What was mapped.
    pub space: &'a Space,
    /// Who else may have the same files mapped.
    pub processes: &'a Processes,
    /// Bytes that were read before. A walk reads one thing at a time.
    pub code: &'a RefCell<Code>,
    /// For its figures.
    pub shared: &'a Shared,
}

impl Memory for Seen<'_> {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        if self.copy.read(address, into) {
            return true;
        }
        let areas = self.space.areas();
        let area = areas.get(areas.partition_point(|area| area.end <= address));
        let whole = |area: &&Area| area.start <= address && address.saturating_add(into.len() as u64) <= area.end;
        let Some(area) = area.filter(whole).filter(|area| area.number >= FIRST_EXECUTABLE) else { return false };
        let (number, offset) = (area.number, area.offset + (address - area.start));
        let holder = || self.processes.holder(self.pid, number, offset);
        let Ok(mut code) = self.code.try_borrow_mut() else { return false };
        let Some(bytes) = code.at(number, offset, holder, self.shared) else { return false };
        bytes.get(..into.len()).is_some_and(|bytes| {
            into.copy_from_slice(bytes);
            true
        })
    }
}

impl Processes {
    /// A process that has an executable's file mapped at `offset`, the one of `pid` if it is
    /// among them, who forked it, and the mapping.
    fn holder(&self, pid: u32, number: u32, offset: u64) -> Option<(u32, u32, Area)> {
        let own = self.all.get(&pid).map(|process| (&pid, process));
        own.into_iter().chain(&self.all).find_map(|(pid, process)| {
            let holds = |a: &&Area| a.number == number && (a.offset..a.offset + (a.end - a.start)).contains(&offset);
            process.space.areas().iter().find(holds).map(|area| (*pid, process.parent, *area))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::processes::maps;

    #[test]
    fn code_is_that_of_the_file_until_it_is_forgotten_and_not_too_much_at_once() {
        let shared = Shared::new(UnixStream::pair().unwrap().0);
        let (text, exe) = (std::fs::read("/proc/self/maps").unwrap(), std::fs::read_link("/proc/self/exe").unwrap());
        let ours = |line: &maps::Line<'_>| line.executable && line.name == exe.as_os_str().as_encoded_bytes();
        let line = maps::lines(&text).find(ours).unwrap();
        let area = Area { start: line.start, end: line.end, offset: line.offset, number: 9, since: 0 };
        let file = std::fs::read("/proc/self/exe").unwrap();
        let holder = || Some((std::process::id(), 0, area));
        let mut code = Code::default();
        code.turn(&shared);
        let at = line.offset + 100;
        let Some(bytes) = code.at(9, at, holder, &shared) else {
            return eprintln!("SKIPPED: files that are mapped cannot be opened here");
        };
        assert_eq!(bytes, file[at as usize..][..CODE_BYTES]);
        assert_eq!(code.at(9, at, || panic!("it is known"), &shared), Some(bytes));
        assert_eq!(code.at(9, at + 1, || None, &shared), None);
        for offset in 2..u64::from(MAX_OPENED) {
            assert!(code.at(9, at + offset, holder, &shared).is_some());
        }
        assert_eq!(code.at(9, at + 1000, || panic!("no more in this turn"), &shared), None);
        let stats = shared.stats.snapshot();
        let read = u64::from(MAX_OPENED) - 1;
        assert_eq!((stats.code_read, stats.code_unreadable, stats.code_refused), (read, 1, 1));
        code.turn(&shared);
        assert!(code.at(9, at + 1000, holder, &shared).is_some());
        code.known.extend((0..MAX_KNOWN as u64).map(|n| ((10, n), bytes)));
        code.turn(&shared);
        assert!(code.known.is_empty(), "more than are kept");
    }
}
