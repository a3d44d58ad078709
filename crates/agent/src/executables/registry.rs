//! The registry: which file is which executable number, what is known of it, and what is
//! still to be made.

use std::{collections::VecDeque, sync::Arc};

use everflame_profile::{ContentId, Str};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    IndexTaker, IndexWanted,
    executable::{ANON, Executable, Index, KnownFile, Place, State, Table, base_name, segment_of},
    job::{Job, Queue},
    open::{self, Found, OpenError},
    tables::Tables,
    vdso,
};
use crate::{
    bpf::{host::TableView, machine::page_size},
    processes::{
        patience::Patience,
        records::{FileId, NewMapping},
        shared::Shared,
        sink::TableSink,
        stats::Stats,
    },
    sample::FIRST_EXECUTABLE,
    worker::protocol::Wish,
};

mod outcomes;

/// Numbers there are (`EXECUTABLE_LIMIT` of `bpf/abi.h`).
pub const NUMBERS: u32 = 131_072;
/// Executables that are known at the same time.
const MAX_EXECUTABLES: usize = 16_384;
/// A known file is looked at again after so many seconds, when a process maps it.
const CHECK_AGAIN: u32 = 10;
/// An executable that no process maps is forgotten after so many seconds without a sample.
const FORGET_AFTER: u32 = 600;
/// When there are no new numbers any more, one that is forgotten is given to another executable
/// after so many seconds: by then no stack that names the former is anywhere.
const REST: u32 = 600;
/// A table that found no room is tried again after so many seconds.
const ROOM_AGAIN: u32 = 5;

/// The registry.
pub struct Registry {
    files: FxHashMap<FileId, KnownFile>,
    executables: FxHashMap<u32, Executable>,
    by_content: FxHashMap<ContentId, u32>,
    next: u32,
    /// Numbers that were forgotten: when they may be used again, oldest first.
    resting: VecDeque<(u32, u32)>,
    vdso: Option<u32>,
    tables: Tables,
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    patience: Patience,
    taker: Option<IndexTaker>,
    wanted: Option<IndexWanted>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("executables", &self.executables.len()).finish_non_exhaustive()
    }
}

impl Registry {
    pub fn new(
        sink: Box<dyn TableSink + Send>,
        budget: u64,
        queue: Arc<Queue>,
        shared: Arc<Shared>,
        taker: Option<IndexTaker>,
        wanted: Option<IndexWanted>,
    ) -> Self {
        let mut registry = Self {
            files: FxHashMap::default(),
            executables: FxHashMap::default(),
            by_content: FxHashMap::default(),
            next: FIRST_EXECUTABLE,
            resting: VecDeque::new(),
            vdso: None,
            tables: Tables::new(sink, budget),
            queue,
            shared,
            patience: Patience::default(),
            taker,
            wanted,
        };
        match vdso::image() {
            Ok((file, size)) => {
                registry.vdso = registry.add(Arc::from("[vdso]"), size, State::Unopened, None);
                if let Some(number) = registry.vdso {
                    registry.ask(number, Wish::Facts, file);
                }
            }
            Err(e) => tracing::debug!("the vDSO cannot be read: {e}"),
        }
        registry
    }

    fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    fn add(&mut self, name: Str, size: u64, state: State, file: Option<FileId>) -> Option<u32> {
        let number = self.number();
        let Some(number) = number.filter(|_| self.executables.len() < MAX_EXECUTABLES) else {
            self.stats().executables_refused.add(1);
            self.resting.extend(number.map(|number| (self.shared.seconds(), number)));
            return None;
        };
        let files = file.into_iter().collect();
        let executable = Executable { name, size, state, table: Table::Absent(0), index: Index::Absent, files };
        self.executables.insert(number, executable);
        self.shared.touch(number);
        Some(number)
    }

    /// One that no executable has.
    fn number(&mut self) -> Option<u32> {
        if self.next < NUMBERS {
            self.next += 1;
            return Some(self.next - 1);
        }
        let now = self.shared.seconds();
        self.resting.pop_front_if(|(from, _)| *from <= now).map(|(_, number)| number)
    }

    /// The number is nobody's from now on.
    fn forget(&mut self, number: u32) {
        self.tables.withdraw(number);
        self.shared.remove_mapping(number);
        self.resting.push_back((self.shared.seconds() + REST, number));
    }

    /// The number of what a process has mapped; `None` where that is nothing to unwind. `parent`
    /// forked it, if it is not 0.
    pub fn meet(&mut self, pid: u32, parent: u32, mapping: &NewMapping) -> Option<u32> {
        match &*mapping.name {
            // 32-bit processes have another one, which has no name of its own.
            b"[vdso]" => return self.vdso.filter(|_| mapping.start > u64::from(u32::MAX)),
            b"[vsyscall]" | b"[uprobes]" => return None,
            _ if mapping.file.inode == 0 => return Some(ANON),
            _ => {}
        }
        let now = self.shared.seconds();
        let generation = mapping.inode_generation;
        if let Some(known) = self.files.get(&mapping.file) {
            let other = generation != 0 && known.generation != 0 && generation != known.generation;
            if !other && known.stamp.is_some() && known.checked + CHECK_AGAIN > now {
                return Some(known.number);
            }
        }
        let found = self.find(pid, parent, mapping);
        if let Some(known) = self.files.get_mut(&mapping.file) {
            let stamp = found.as_ref().ok().map(|f| f.stamp);
            let other = generation != 0 && known.generation != 0 && generation != known.generation;
            let same = !other && (stamp.is_none() || known.stamp.is_none() || stamp == known.stamp);
            if same {
                known.checked = now;
                known.stamp = stamp.or(known.stamp);
                known.generation = generation.max(known.generation);
                let number = known.number;
                if let Ok(found) = found {
                    self.open(number, found);
                }
                return Some(number);
            }
        }
        self.add_file(mapping, found, now)
    }

    fn add_file(&mut self, mapping: &NewMapping, found: Result<Found, OpenError>, now: u32) -> Option<u32> {
        let size = found.as_ref().map_or(0, |f| f.stamp.size);
        let number = self.add(base_name(&mapping.name), size, State::Unopened, Some(mapping.file))?;
        let stamp = found.as_ref().ok().map(|f| f.stamp);
        let known = KnownFile { number, stamp, generation: mapping.inode_generation, checked: now };
        self.files.insert(mapping.file, known);
        match found {
            Ok(found) => self.open(number, found),
            Err(OpenError::NotRegular) => self.set_bad(number, "not a regular file"),
            Err(e) => {
                self.stats().files_unreadable.add(1);
                tracing::debug!("{}: {e}", String::from_utf8_lossy(&mapping.name));
            }
        }
        Some(number)
    }

    fn find(&mut self, pid: u32, parent: u32, mapping: &NewMapping) -> Result<Found, OpenError> {
        let mapping = mapping.clone();
        let found = self.patience.call(move || open::find(pid, parent, &mapping));
        found.unwrap_or_else(|| {
            self.stats().calls_hung.add(1);
            Err(OpenError::Hung)
        })
    }

    /// Opens a file that was found, if there is something to be made of it.
    fn open(&mut self, number: u32, found: Found) {
        let Some(wish) = self.wish(number) else { return };
        if self.queue.room() == 0 {
            return; // `wanting` names it later
        }
        if let Some(executable) = self.executables.get_mut(&number) {
            executable.size = found.stamp.size;
        }
        match self.patience.call(move || found.open()) {
            Some(Ok(file)) => self.ask(number, wish, file),
            None => self.stats().calls_hung.add(1),
            Some(Err(e)) => {
                self.stats().files_unreadable.add(1);
                tracing::debug!("executable {number} cannot be opened: {e}");
            }
        }
    }

    /// What is to be made of an executable next.
    fn wish(&self, number: u32) -> Option<Wish> {
        let executable = self.executables.get(&number)?;
        let (now, used) = (self.shared.seconds(), self.shared.used(number));
        let content = match &executable.state {
            State::Unopened => return Some(Wish::Facts),
            State::Asked | State::Bad => return None,
            State::Known { mapping, .. } => mapping.content_id?,
        };
        match executable.table {
            Table::Asked => return None,
            Table::Absent(since) if since == 0 || used > since => return Some(Wish::Table),
            Table::NoRoom(again) if now >= again && used + ROOM_AGAIN > now => return Some(Wish::Table),
            _ => {}
        }
        let wanted = executable.index == Index::Absent
            && self.taker.is_some()
            && self.wanted.as_ref().is_none_or(|wanted| wanted(content));
        wanted.then_some(Wish::Index)
    }

    fn ask(&mut self, number: u32, wish: Wish, file: std::fs::File) {
        let Some(executable) = self.executables.get_mut(&number) else { return };
        let content = match &executable.state {
            State::Known { mapping, .. } => mapping.content_id,
            _ => None,
        };
        let job = Job { number, wish, size: executable.size, name: executable.name.clone(), content, file };
        if self.queue.push(job).is_err() {
            self.shared.stats.jobs_deferred.add(1);
            return;
        }
        match wish {
            Wish::Facts => executable.state = State::Asked,
            Wish::Table => executable.table = Table::Asked,
            Wish::Index => executable.index = Index::Asked,
            _ => {}
        }
    }

    /// Where a mapping is that starts at `start` and at `offset` in the file.
    pub fn place(&self, number: u32, start: u64, offset: u64) -> Place {
        if number == ANON {
            return Place::Anon;
        }
        match self.executables.get(&number).map(|e| &e.state) {
            None | Some(State::Unopened | State::Asked) => Place::NotYet,
            Some(State::Bad) => Place::Anon,
            Some(State::Known { segments, .. }) => match segment_of(segments, offset, page_size()) {
                // vaddr of `start` = offset - p_offset + p_vaddr; addresses wrap.
                Some(s) => Place::File(number, start.wrapping_sub(offset.wrapping_sub(s.offset).wrapping_add(s.vaddr))),
                None => Place::Anon,
            },
        }
    }

    /// The tables as they are now.
    pub fn look(&self, with: &mut dyn FnMut(&TableView<'_>)) {
        self.tables.look(with);
    }

    /// Whether a walk that needs the executable's table may get further after a while.
    pub fn is_awaited(&self, number: u32) -> bool {
        let Some(executable) = self.executables.get(&number) else { return false };
        match executable.state {
            State::Unopened | State::Asked => true,
            State::Bad => false,
            State::Known { .. } => matches!(executable.table, Table::Absent(_) | Table::Asked),
        }
    }

    /// What samples wait for is made before all else.
    pub fn prefer(&self, awaited: FxHashSet<u32>) {
        self.queue.prefer(awaited);
    }

    /// Executables of which something is to be made that needs their file, as many as the
    /// queue has room for.
    pub fn wanting(&mut self) -> FxHashSet<u32> {
        let room = self.queue.room();
        let mut wanting: FxHashSet<u32> =
            self.executables.keys().copied().filter(|n| self.wish(*n).is_some()).take(room).collect();
        if let Some(number) = self.vdso.filter(|n| wanting.remove(n))
            && let (Some(wish), Ok((file, _))) = (self.wish(number), vdso::image())
        {
            self.ask(number, wish, file);
        }
        wanting
    }

    /// Whether some executable's facts are still to come.
    pub fn is_looking(&self) -> bool {
        self.executables.values().any(|e| matches!(e.state, State::Asked))
    }

    /// Takes the file of an executable that is [`wanting`](Self::wanting) from a process that
    /// has it mapped.
    pub fn serve(&mut self, number: u32, pid: u32, mapping: &NewMapping) {
        if let Ok(found) = self.find(pid, 0, mapping) {
            self.open(number, found);
        }
    }

    /// Forgets what no process in `mapped` has and no sample has named for long.
    pub fn sweep(&mut self, mapped: &FxHashSet<u32>) {
        let now = self.shared.seconds();
        let old: Vec<u32> = self
            .executables
            .keys()
            .copied()
            .filter(|n| !mapped.contains(n) && Some(*n) != self.vdso && self.shared.used(*n) + FORGET_AFTER < now)
            .collect();
        for number in old {
            let Some(executable) = self.executables.remove(&number) else { continue };
            self.forget(number);
            for file in executable.files {
                if self.files.get(&file).is_some_and(|known| known.number == number) {
                    self.files.remove(&file);
                }
            }
            if let State::Known { mapping, .. } = executable.state
                && let Some(content) = mapping.content_id
                && self.by_content.get(&content) == Some(&number)
            {
                self.by_content.remove(&content);
            }
        }
        self.stats().executables.set(self.executables.len() as u64);
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
