//! The table of processes: who is known, how many at most, and who is forgotten for others.
//! What /proc says comes in by `reading`, what the side band says by `events`; `settle`,
//! `publish` and `upkeep` are what is done with it.

use std::{
    collections::{VecDeque, hash_map::Entry},
    sync::Arc,
};

use everflame_profile::Str;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    facts,
    past::Past,
    patience::Patience,
    publish::Waiting,
    settle::Purse,
    shared::{Life, Shared},
    sink::MappingSink,
    space::{Space, Spaces},
    upkeep::Rounds,
};
use crate::{
    bpf::monotonic_ns,
    identity::ProcessIdentity,
    strings::Strings,
    who::{Cgroup, Cgroups},
};

/// Processes that are known at the same time; as many as the kernel's map takes.
pub const MAX_PROCESSES: usize = 32_768;
/// Ended processes that are kept for late samples.
pub(super) const MAX_ENDED: usize = 32_768;
/// How long they are kept, in seconds.
const GRACE: u32 = 30;
/// A process that came, or was in a sample, within so many seconds is not forgotten for others.
const KEEP: u32 = 10;
/// When room is made, it is made for so many at once: the share of all, inverted.
const SHARE: usize = 16;

#[derive(Debug)]
pub(super) struct Process {
    /// When it began to run this image; 0 where it was there before us.
    pub(super) since: u64,
    /// Who forked it, where that was seen; 0 else.
    pub(super) parent: u32,
    /// Clock ticks since boot, 0 where it was not read.
    pub(super) start: u64,
    /// Events up to this time are in it already.
    pub(super) as_of: u64,
    pub(super) identity: Arc<ProcessIdentity>,
    pub(super) space: Space,
    pub(super) kernel_thread: bool,
    /// Its first thread has ended, others have not.
    pub(super) headless: bool,
    /// Whether it was asked who it is.
    pub(super) identified: bool,
    /// The first file that it mapped since its exec: its executable.
    pub(super) image: Option<Box<[u8]>>,
    /// Whether the kernel has an entry of ours.
    pub(super) published: bool,
    /// The second in which it came or was last in a sample.
    pub(super) used: u32,
    pub(super) reread_from: u32,
    pub(super) reread_wait: u32,
}

/// The table.
pub struct Processes {
    pub(super) all: FxHashMap<u32, Process>,
    pub(super) sink: Box<dyn MappingSink + Send>,
    pub(super) shared: Arc<Shared>,
    pub(super) strings: Strings,
    pub(super) cgroups: Cgroups,
    /// Of those that are not read yet.
    no_cgroup: Arc<Cgroup>,
    pub(super) spaces: Spaces,
    pub(super) patience: Patience,
    limit: usize,
    /// No room is looked for before this second.
    room_from: u32,
    pub(super) read_service: bool,
    pub(super) generation: u64,
    /// To be handed to the kernel.
    pub(super) dirty: FxHashSet<u32>,
    /// Found no room there.
    pub(super) roomless: FxHashSet<u32>,
    /// Not handed over in whole, for want of facts about executables.
    pub(super) waiting: Waiting,
    /// To be asked who they are: pid and generation.
    pub(super) unidentified: VecDeque<(u32, u64)>,
    pub(super) purse: Purse,
    /// To be looked at whether they are gone, with the number of looks.
    pub(super) ending: FxHashMap<u32, u8>,
    /// To be handed over once more, and when.
    pub(super) again: VecDeque<(u64, u32)>,
    /// The mappings of images that ended, for late samples.
    pub(super) past: Past,
    /// Who ended: when to forget it, pid, generation.
    pub(super) ended: VecDeque<(u32, u32, u64)>,
    /// To be read in the round through all of /proc that is under way.
    pub(super) to_read: Vec<u32>,
    pub(super) rounds: Rounds,
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
            cgroups: Cgroups::default(),
            no_cgroup: Arc::default(),
            spaces: Spaces::default(),
            patience: Patience::default(),
            limit,
            room_from: 0,
            read_service,
            generation: 0,
            dirty: FxHashSet::default(),
            roomless: FxHashSet::default(),
            waiting: Waiting::default(),
            unidentified: VecDeque::new(),
            purse: Purse::default(),
            ending: FxHashMap::default(),
            again: VecDeque::new(),
            past: Past::default(),
            ended: VecDeque::new(),
            to_read: Vec::new(),
            rounds: Rounds::default(),
        }
    }

    /// The mappings of the image that the pid ran at a time.
    pub fn space_at(&self, pid: u32, time: u64) -> Option<&Space> {
        let now = self.all.get(&pid).filter(|p| p.since <= time && !p.kernel_thread);
        now.map(|p| &p.space).or_else(|| self.past.find(pid, time))
    }

    /// Whether another process may be taken in; makes room for it where it can.
    pub(super) fn has_room(&mut self) -> bool {
        if self.all.len() < self.limit {
            return true;
        }
        let wanted = (self.limit / SHARE).max(1);
        let mut forgotten = 0;
        self.forget_least_used(|_| {
            forgotten += 1;
            forgotten >= wanted
        });
        let room = self.all.len() < self.limit;
        if !room {
            self.shared.stats.processes_refused.add(1);
        }
        room
    }

    /// Forgets processes, the least recently used first, until it is `enough`, which is told
    /// the room that each makes in the kernel's table of mappings. None that was used in the
    /// last seconds goes. They come back when a sample names them.
    pub(super) fn forget_least_used(&mut self, mut enough: impl FnMut(u32) -> bool) {
        let now = self.shared.seconds();
        if now < self.room_from {
            return; // it was tried in this second
        }
        let old = self.all.iter().filter(|(_, p)| p.used + KEEP < now);
        let mut old: Vec<(u32, u32)> = old.map(|(pid, p)| (p.used, *pid)).collect();
        old.sort_unstable();
        for (_, pid) in old {
            let room = self.forget(pid);
            self.shared.stats.processes_evicted.add(1);
            if enough(room) {
                return;
            }
        }
        self.room_from = now + 1;
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
            cgroup: Arc::clone(&self.no_cgroup),
            service: empty,
            named: false,
            located: false,
        }
    }

    pub(super) fn begin(&mut self, pid: u32, since: u64, identity: ProcessIdentity, space: Space) {
        let identity = Arc::new(identity);
        self.shared.begin_life(pid, Life { since, identity: Arc::clone(&identity) });
        let process = Process {
            since,
            parent: 0,
            start: 0,
            as_of: since,
            identity,
            space,
            kernel_thread: false,
            headless: false,
            identified: true,
            image: None,
            published: false,
            used: self.shared.seconds(),
            reread_from: 0,
            reread_wait: 1,
        };
        self.all.insert(pid, process);
        self.dirty.insert(pid);
    }

    /// It is to be asked who it is.
    pub(super) fn ask(&mut self, pid: u32) {
        if let Some(process) = self.all.get_mut(&pid) {
            process.identified = false;
            self.unidentified.push_back((pid, process.identity.generation));
        }
        // Those that are gone, or run another image by now, stand in it until it is their turn.
        if self.unidentified.len() > 2 * self.all.len() + 64 {
            let all = &self.all;
            let is_asked =
                |pid: &u32, g: u64| all.get(pid).is_some_and(|p| !p.identified && p.identity.generation == g);
            self.unidentified.retain(|(pid, generation)| is_asked(pid, *generation));
        }
    }

    /// Forgets a process but for its name, which late samples may still ask for. Says
    /// whether it was known.
    pub(super) fn end(&mut self, pid: u32) -> bool {
        let known = self.all.contains_key(&pid);
        self.forget(pid);
        known
    }

    /// [`end`](Self::end), saying how much room that makes in the kernel's table of mappings.
    fn forget(&mut self, pid: u32) -> u32 {
        let Entry::Occupied(process) = self.all.entry(pid) else { return 0 };
        let process = process.remove();
        if let Some(image) = process.image.filter(|_| !process.identified) {
            // It was gone before it was asked.
            let mut identity = (*process.identity).clone();
            (identity.name, identity.path) = facts::name_and_path(&image, &mut self.strings);
            identity.named = true;
            self.shared.correct_life(pid, Arc::new(identity));
        }
        self.dirty.remove(&pid);
        self.roomless.remove(&pid);
        self.ending.remove(&pid);
        self.ended.push_back((self.shared.seconds() + GRACE, pid, process.identity.generation));
        self.past.add(pid, process.since, monotonic_ns(), process.space);
        if process.published { self.sink.remove(pid) } else { 0 }
    }
}
