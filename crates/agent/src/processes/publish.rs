//! Handing processes' mappings to the kernel, and again when more is known of executables.

use rustc_hash::{FxHashMap, FxHashSet};

use super::{sink::MappingEntry, space::Area, table::Processes};
use crate::executables::{ANON, Place, Registry};

/// Processes that wait for facts of executables, once for each executable, at most. When there
/// are more, the next facts are looked for in all processes.
const MAX_WAITING: usize = 65_536;
/// How much room is made at once where the kernel's table has none, in parts of what is there.
const SHARE: u64 = 16;

/// Who waits for the facts of which executable.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    by_number: FxHashMap<u32, FxHashSet<u32>>,
    count: usize,
    /// There was no place for somebody.
    overflowed: bool,
}

impl Waiting {
    fn add(&mut self, number: u32, pid: u32) {
        if self.by_number.get(&number).is_some_and(|pids| pids.contains(&pid)) {
            return;
        }
        if self.count >= MAX_WAITING {
            self.overflowed = true;
            return;
        }
        self.by_number.entry(number).or_default().insert(pid);
        self.count += 1;
    }

    fn take(&mut self, number: u32) -> FxHashSet<u32> {
        let pids = self.by_number.remove(&number).unwrap_or_default();
        self.count -= pids.len();
        pids
    }

    /// Forgets those who are gone.
    pub(super) fn sweep(&mut self, is_there: impl Fn(u32) -> bool) {
        self.by_number.retain(|_, pids| {
            pids.retain(|pid| is_there(*pid));
            !pids.is_empty()
        });
        self.count = self.by_number.values().map(FxHashSet::len).sum();
    }
}

impl Processes {
    pub(super) fn publish(&mut self, pid: u32, registry: &Registry, horizon: u64) {
        let Some(process) = self.all.get_mut(&pid) else { return };
        let mut entries: Vec<MappingEntry> = Vec::with_capacity(process.space.areas().len());
        for area in process.space.areas() {
            match registry.place(area.number, area.start, area.offset) {
                Place::File(number, bias) => append(&mut entries, area, number, bias),
                Place::Anon => append(&mut entries, area, ANON, 0),
                Place::NotYet => self.waiting.add(area.number, pid),
            }
        }
        if entries.is_empty() {
            if std::mem::take(&mut process.published) {
                self.sink.remove(pid);
            }
            return;
        }
        self.shared.stats.mappings_published.add(1);
        let as_of = horizon.max(process.as_of);
        if self.sink.set(pid, &entries, as_of).is_ok() {
            process.published = true;
            return;
        }
        // What the kernel has now is older: nothing is better than wrong.
        self.shared.stats.mappings_no_room.add(1);
        self.sink.remove(pid);
        process.published = false;
        self.roomless.insert(pid);
        self.make_mapping_room(entries.len() as u64 + 1);
    }

    /// Makes room for so many mappings, and some more, in the kernel's table. It can be used
    /// after a moment: see `rests`.
    fn make_mapping_room(&mut self, wanted: u64) {
        let usage = self.sink.usage();
        let wanted = wanted.max(usage.elements / SHARE);
        let mut made = usage.rests;
        if made < wanted {
            self.forget_least_used(|room| {
                made += u64::from(room);
                made >= wanted
            });
        }
    }

    /// What is known of executables changed: those who have them mapped are handed over anew.
    /// Who has one of `known` or the first of `same` mapped is either waiting or dirty.
    pub fn renew(&mut self, known: &FxHashSet<u32>, same: &[(u32, u32)]) {
        if known.is_empty() && same.is_empty() {
            return;
        }
        let mut concerned: FxHashSet<u32> = known.iter().flat_map(|number| self.waiting.take(*number)).collect();
        concerned.extend(same.iter().flat_map(|(old, _)| self.waiting.take(*old)));
        if std::mem::take(&mut self.waiting.overflowed) {
            concerned.extend(self.all.keys());
        }
        self.dirty.extend(concerned);
        if same.is_empty() {
            return;
        }
        for (old, new) in same {
            self.past.renumber(*old, *new);
        }
        for pid in &self.dirty {
            let Some(process) = self.all.get_mut(pid) else { continue };
            let mut changed = false;
            for (old, new) in same {
                changed |= process.space.renumber(*old, *new);
            }
            if changed {
                process.space = self.spaces.share(std::mem::take(&mut process.space));
            }
        }
    }
}

/// Adds an area, to the one before where the two are one in the file too.
fn append(entries: &mut Vec<MappingEntry>, area: &Area, executable: u32, bias: u64) {
    let pages = u32::try_from((area.end - area.start) / 4096).unwrap_or(u32::MAX);
    match entries.last_mut() {
        Some(last)
            if last.executable == executable
                && last.bias == bias
                && last.start + u64::from(last.pages) * 4096 == area.start
                && last.pages.checked_add(pages).is_some() =>
        {
            last.pages += pages;
        }
        _ => entries.push(MappingEntry { start: area.start, pages, executable, bias }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_that_wait_are_said_to_be_all() {
        let mut waiting = Waiting::default();
        for pid in 0..MAX_WAITING as u32 {
            waiting.add(8 + pid % 2, pid);
            waiting.add(8 + pid % 2, pid);
        }
        assert_eq!((waiting.count, waiting.overflowed), (MAX_WAITING, false));
        waiting.add(10, 1);
        assert_eq!((waiting.count, waiting.overflowed), (MAX_WAITING, true));
        assert_eq!(waiting.take(8).len(), MAX_WAITING / 2);
        waiting.sweep(|pid| pid < 1000);
        assert_eq!((waiting.count, waiting.take(9).len(), waiting.count), (500, 500, 0));
    }
}
