//! The table of processes: takes in what the side band and /proc tell, and hands each
//! process's mappings to the kernel.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Read},
    sync::Arc,
};

use everflame_profile::Str;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    events::AFTER_EXEC,
    facts::{self, Strings},
    maps,
    patience::Patience,
    records::{FileId, NewMapping},
    shared::{Life, Shared},
    sink::{MappingEntry, MappingSink},
    space::Space,
};
use crate::{
    bpf::monotonic_ns,
    executables::{ANON, Place, Registry},
    identity::ProcessIdentity,
};

/// Processes that are known at the same time; as many as the kernel's map takes.
pub const MAX_PROCESSES: usize = 32_768;
/// Ended processes that are kept for late samples.
const MAX_ENDED: usize = 32_768;
/// How long they are kept, in seconds.
const GRACE: u32 = 30;
/// Longest time between two readings of a process for samples in no known mapping, seconds.
const MAX_REREAD_WAIT: u32 = 64;
/// How often it is looked whether a process whose first thread ended is gone.
const EXIT_LOOKS: u8 = 20;

#[derive(Debug)]
pub(super) struct Process {
    /// Clock ticks since boot, 0 where it was not read.
    pub(super) start: u64,
    /// Events up to this time are in it already.
    pub(super) as_of: u64,
    pub(super) identity: Arc<ProcessIdentity>,
    pub(super) space: Space,
    pub(super) kernel_thread: bool,
    /// Its first thread has ended, others have not.
    pub(super) headless: bool,
    /// The first file that it mapped since its exec: its executable.
    pub(super) image: Option<Box<[u8]>>,
    /// Whether the kernel has an entry of ours.
    pub(super) published: bool,
    pub(super) reread_from: u32,
    pub(super) reread_wait: u32,
}

/// The table.
pub struct Processes {
    pub(super) all: FxHashMap<u32, Process>,
    pub(super) sink: Box<dyn MappingSink + Send>,
    pub(super) shared: Arc<Shared>,
    pub(super) strings: Strings,
    pub(super) patience: Patience,
    pub(super) limit: usize,
    pub(super) read_service: bool,
    pub(super) generation: u64,
    /// To be handed to the kernel.
    pub(super) dirty: FxHashSet<u32>,
    /// To be asked who they are.
    pub(super) unidentified: FxHashSet<u32>,
    /// To be looked at whether they are gone, with the number of looks.
    pub(super) ending: FxHashMap<u32, u8>,
    /// To be handed over once more, and when.
    pub(super) again: VecDeque<(u64, u32)>,
    /// Who ended: when to forget it, pid, generation.
    pub(super) ended: VecDeque<(u32, u32, u64)>,
}

impl std::fmt::Debug for Processes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Processes").field("processes", &self.all.len()).finish_non_exhaustive()
    }
}

impl Processes {
    pub fn new(sink: Box<dyn MappingSink + Send>, shared: Arc<Shared>, limit: usize, read_service: bool) -> Self {
        Self {
            all: FxHashMap::default(),
            sink,
            shared,
            strings: Strings::default(),
            patience: Patience::default(),
            limit,
            read_service,
            generation: 0,
            dirty: FxHashSet::default(),
            unidentified: FxHashSet::default(),
            ending: FxHashMap::default(),
            again: VecDeque::new(),
            ended: VecDeque::new(),
        }
    }

    /// Reads /proc: everyone who is there, and nobody else.
    pub fn scan(&mut self, registry: &mut Registry) -> io::Result<()> {
        self.shared.stats.scans.add(1);
        let mut there = FxHashSet::default();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            there.insert(pid);
            self.read(pid, 0, registry);
        }
        let gone: Vec<u32> = self.all.keys().copied().filter(|pid| !there.contains(pid)).collect();
        for pid in gone {
            self.end(pid);
        }
        Ok(())
    }

    /// Reads one process: a new one that appeared at `since`, or the mappings of a known one.
    /// Says whether anything changed.
    pub(super) fn read(&mut self, pid: u32, since: u64, registry: &mut Registry) -> bool {
        let as_of = monotonic_ns();
        let status = match facts::status(pid) {
            Ok(status) if !status.is_dead() => status,
            Ok(_) => return self.end(pid),
            Err(e) if is_gone(&e) => return self.end(pid),
            Err(_) => {
                self.shared.stats.processes_unreadable.add(1);
                return false;
            }
        };
        let known = self.all.get(&pid).is_some_and(|p| p.start == status.start || p.start == 0)
            && (status.kernel_thread || self.runs_the_same(pid));
        if !known {
            let since = if self.end(pid) { as_of } else { since };
            if !self.has_room() {
                return false;
            }
            let name = if status.kernel_thread { facts::kernel_thread_name(&status.comm) } else { &status.comm };
            let identity = self.identity(pid, name);
            self.begin(pid, since, identity, Space::default());
            if !status.kernel_thread {
                self.unidentified.insert(pid);
            }
        }
        let space = if status.kernel_thread { Some(Space::default()) } else { self.read_space(pid, registry) };
        let Some(process) = self.all.get_mut(&pid) else { return false };
        process.start = status.start;
        process.kernel_thread = status.kernel_thread;
        let Some(space) = space else { return !known };
        process.as_of = as_of;
        let changed = process.space != space;
        if changed {
            process.space = space;
            self.dirty.insert(pid);
        }
        changed || !known
    }

    /// Whether a known process still runs the image that is known: the news of an exec can be lost.
    fn runs_the_same(&mut self, pid: u32) -> bool {
        let Some(path) = self.all.get(&pid).map(|p| Str::clone(&p.identity.path)) else { return false };
        path.is_empty() || facts::executable(pid, &mut self.strings).is_ok_and(|(_, now)| now == path)
    }

    fn read_space(&mut self, pid: u32, registry: &mut Registry) -> Option<Space> {
        let read = self.patience.call(move || {
            let mut text = Vec::new();
            File::open(format!("/proc/{pid}/maps"))?.take(maps::MAX_BYTES).read_to_end(&mut text)?;
            Ok(text)
        });
        let text: Vec<u8> = match read {
            Some(Ok(text)) => text,
            Some(Err(e)) if is_gone(&e) => return None,
            Some(Err(e)) => {
                self.shared.stats.processes_unreadable.add(1);
                tracing::debug!("the mappings of process {pid} cannot be read: {e}");
                return None;
            }
            None => {
                self.shared.stats.calls_hung.add(1);
                return None;
            }
        };
        let mut space = Space::default();
        for line in maps::lines(&text).filter(|line| line.executable) {
            let mapping = line.to_mapping();
            let number = registry.meet(pid, &mapping);
            if !space.add(&mapping, number) {
                self.shared.stats.mappings_refused.add(1);
            }
        }
        Some(space)
    }

    pub(super) fn has_room(&self) -> bool {
        let room = self.all.len() < self.limit;
        if !room {
            self.shared.stats.processes_refused.add(1);
        }
        room
    }

    /// An identity of a generation of its own.
    pub(super) fn identity(&mut self, pid: u32, name: &str) -> ProcessIdentity {
        self.generation += 1;
        let empty = self.strings.get("");
        ProcessIdentity {
            pid,
            generation: self.generation,
            name: self.strings.get(name),
            path: Str::clone(&empty),
            container_id: Str::clone(&empty),
            service: empty,
        }
    }

    pub(super) fn begin(&mut self, pid: u32, since: u64, identity: ProcessIdentity, space: Space) {
        let identity = Arc::new(identity);
        self.shared.begin_life(pid, Life { since, identity: Arc::clone(&identity) });
        let process = Process {
            start: 0,
            as_of: since,
            identity,
            space,
            kernel_thread: false,
            headless: false,
            image: None,
            published: false,
            reread_from: 0,
            reread_wait: 1,
        };
        self.all.insert(pid, process);
        self.dirty.insert(pid);
    }

    /// Forgets a process but for its name, which late samples may still ask for. Says
    /// whether it was known.
    pub(super) fn end(&mut self, pid: u32) -> bool {
        let Some(process) = self.all.remove(&pid) else { return false };
        if process.published {
            self.sink.remove(pid);
        }
        self.dirty.remove(&pid);
        self.unidentified.remove(&pid);
        self.ending.remove(&pid);
        self.ended.push_back((self.shared.seconds() + GRACE, pid, process.identity.generation));
        true
    }

    /// Brings everything up to date with the events taken in, which are all up to `horizon`.
    pub fn settle(&mut self, registry: &mut Registry, horizon: u64) {
        for pid in std::mem::take(&mut self.unidentified) {
            self.identify(pid);
        }
        self.look_at_endings();
        while let Some(&(_, pid)) = self.again.front().filter(|(due, _)| *due <= horizon) {
            self.again.pop_front();
            self.dirty.insert(pid);
        }
        for pid in std::mem::take(&mut self.dirty) {
            self.publish(pid, registry, horizon);
        }
        self.shared.stats.processes.set(self.all.len() as u64);
    }

    /// How soon [`settle`](Self::settle) wants to be called again, in nanoseconds; `None` where
    /// there is no hurry.
    pub fn unsettled(&self) -> Option<u64> {
        let ending = (!self.ending.is_empty()).then_some(0);
        ending.or((!self.again.is_empty()).then_some(AFTER_EXEC))
    }

    fn identify(&mut self, pid: u32) {
        let Some(process) = self.all.get_mut(&pid) else { return };
        let mut identity = (*process.identity).clone();
        let named = facts::executable(pid, &mut self.strings).ok();
        let image = process.image.take();
        let named = named.or_else(|| image.map(|image| facts::name_and_path(&image, &mut self.strings)));
        if let Some((name, path)) = named {
            (identity.name, identity.path) = (name, path);
        }
        if let Ok(container) = facts::container(pid, &mut self.strings) {
            identity.container_id = container;
        }
        if self.read_service {
            match self.patience.call(move || facts::service(pid)) {
                Some(service) => identity.service = self.strings.get(&service),
                None => self.shared.stats.calls_hung.add(1),
            }
        }
        process.identity = Arc::new(identity);
        self.shared.correct_life(pid, Arc::clone(&process.identity));
    }

    fn look_at_endings(&mut self) {
        for (pid, looks) in std::mem::take(&mut self.ending) {
            let Some(process) = self.all.get_mut(&pid) else { continue };
            match facts::status(pid) {
                Ok(status) if process.start != 0 && status.start != process.start => {
                    self.end(pid);
                }
                Ok(status) if status.is_dead() => {
                    self.end(pid);
                }
                Ok(status) if status.state == b'Z' => process.headless = true,
                // It is on its way; if that takes long, the sweep finds it.
                Ok(_) if looks < EXIT_LOOKS => {
                    self.ending.insert(pid, looks + 1);
                }
                Ok(_) => {}
                Err(_) => {
                    self.end(pid);
                }
            }
        }
    }

    fn publish(&mut self, pid: u32, registry: &Registry, horizon: u64) {
        let Some(process) = self.all.get_mut(&pid) else { return };
        let mut entries: Vec<MappingEntry> = Vec::with_capacity(process.space.areas().len());
        for area in process.space.areas() {
            let pages = u32::try_from((area.end - area.start) / 4096).unwrap_or(u32::MAX);
            let (executable, bias) = match registry.place(area.number, area.start, area.offset) {
                Place::File(number, bias) => (number, bias),
                Place::Anon => (ANON, 0),
                Place::NotYet => continue,
            };
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
        if entries.is_empty() {
            if std::mem::take(&mut process.published) {
                self.sink.remove(pid);
            }
            return;
        }
        self.shared.stats.mappings_published.add(1);
        match self.sink.set(pid, &entries, horizon.max(process.as_of)) {
            Ok(()) => process.published = true,
            Err(_) => {
                // What the kernel has now is older: nothing is better than wrong.
                self.shared.stats.mappings_no_room.add(1);
                self.sink.remove(pid);
                process.published = false;
            }
        }
    }

    /// What is known of executables changed: those who have them mapped are handed over anew.
    pub fn renew(&mut self, known: &FxHashSet<u32>, same: &[(u32, u32)]) {
        if known.is_empty() && same.is_empty() {
            return;
        }
        for (pid, process) in &mut self.all {
            for (old, new) in same {
                if process.space.renumber(*old, *new) {
                    self.dirty.insert(*pid);
                }
            }
            if process.space.areas().iter().any(|a| known.contains(&a.number)) {
                self.dirty.insert(*pid);
            }
        }
    }

    /// Each second: late samples' processes, samples in no known mapping, no room before.
    pub fn tick(&mut self, registry: &mut Registry) {
        let now = self.shared.seconds();
        while let Some(&(due, pid, generation)) = self.ended.front() {
            if due > now && self.ended.len() <= MAX_ENDED {
                break;
            }
            self.ended.pop_front();
            self.shared.end_lives(pid, generation);
        }
        for (pid, process) in &self.all {
            if !process.published && !process.space.areas().is_empty() {
                self.dirty.insert(*pid);
            }
        }
        let wanting = registry.wanting();
        if !wanting.is_empty() {
            self.serve(wanting, registry);
        }
    }

    /// Finds processes that have the executables mapped.
    fn serve(&mut self, mut wanting: FxHashSet<u32>, registry: &mut Registry) {
        for (pid, process) in &self.all {
            for area in process.space.areas() {
                if wanting.remove(&area.number) {
                    let file = FileId { device: (0, 0), inode: 0 };
                    let (start, end, offset) = (area.start, area.end, area.offset);
                    let mapping = NewMapping { start, end, offset, file, inode_generation: 0, name: Box::default() };
                    registry.serve(area.number, *pid, &mapping);
                }
            }
        }
    }

    /// Reads processes again that had samples in no known mapping, but none too often.
    pub fn reread(&mut self, pids: FxHashSet<u32>, registry: &mut Registry) {
        let now = self.shared.seconds();
        for pid in pids {
            let from = self.all.get(&pid).map_or(0, |p| if p.kernel_thread { u32::MAX } else { p.reread_from });
            if from > now {
                self.shared.stats.rereads_refused.add(1);
                continue;
            }
            self.shared.stats.rereads.add(1);
            let changed = self.read(pid, monotonic_ns(), registry);
            if let Some(process) = self.all.get_mut(&pid) {
                process.reread_wait = if changed { 1 } else { (process.reread_wait * 2).min(MAX_REREAD_WAIT) };
                process.reread_from = now + process.reread_wait;
            }
        }
    }

    /// Now and then: who went unseen, who moved to another container, what nobody uses.
    pub fn sweep(&mut self, registry: &mut Registry) {
        let mut mapped = FxHashSet::default();
        let mut gone = Vec::new();
        for (pid, process) in &mut self.all {
            mapped.extend(process.space.areas().iter().map(|a| a.number));
            match facts::container(*pid, &mut self.strings) {
                Ok(container) if container != process.identity.container_id => {
                    let mut identity = (*process.identity).clone();
                    identity.container_id = container;
                    process.identity = Arc::new(identity);
                    self.shared.correct_life(*pid, Arc::clone(&process.identity));
                }
                Ok(_) => {}
                Err(e) if is_gone(&e) => gone.push(*pid),
                Err(_) => {}
            }
        }
        for pid in gone {
            self.end(pid);
        }
        self.strings.sweep();
        registry.sweep(&mapped);
    }
}

fn is_gone(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH)
}
