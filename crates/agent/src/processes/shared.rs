//! What the tracker's thread and everybody else share.

use std::{
    io::Write,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use everflame_profile::Mapping;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{asked::Asked, late::Exchange, stats::Stats};
use crate::{bpf::monotonic_ns, executables, identity::ProcessIdentity};

/// Processes that wait to be read again, at most.
pub const MAX_UNKNOWN: usize = 1024;
/// Processes in samples of one second that are noted as used, at most.
const MAX_SAMPLED: usize = 65_536;
/// Images that a pid had one after the other and of which late samples may come, at most.
const MAX_PAST: usize = 4;

/// An image that a process ran.
#[derive(Debug, Clone)]
pub struct Life {
    /// From when on (CLOCK_MONOTONIC, nanoseconds); 0 where it was there before us.
    pub since: u64,
    /// Who it was.
    pub identity: Arc<ProcessIdentity>,
}

/// State that all handles see.
#[derive(Debug)]
pub struct Shared {
    pub stats: Stats,
    /// By pid, oldest first; never empty.
    lives: RwLock<FxHashMap<u32, Vec<Life>>>,
    mappings: RwLock<FxHashMap<u32, Arc<Mapping>>>,
    /// By executable number: the second in which a sample last named it.
    used: Box<[AtomicU32]>,
    second: AtomicU32,
    unknown: Mutex<FxHashSet<u32>>,
    sampled: Mutex<FxHashSet<u32>>,
    /// Up to when (CLOCK_MONOTONIC, nanoseconds) all news is taken in; 0 at first.
    pub known_until: AtomicU64,
    pub late: Exchange,
    pub asked: Asked,
    pub ready: AtomicBool,
    pub stopped: AtomicBool,
    /// CPUs came of which the tracker is not told yet.
    pub cpus_came: AtomicBool,
    /// Never blocks.
    wake: UnixStream,
}

impl Shared {
    pub fn new(wake: UnixStream) -> Self {
        let shared = Self {
            stats: Stats::default(),
            lives: RwLock::default(),
            mappings: RwLock::default(),
            used: std::iter::repeat_with(AtomicU32::default).take(executables::NUMBERS as usize).collect(),
            second: AtomicU32::new(0),
            unknown: Mutex::default(),
            sampled: Mutex::default(),
            known_until: AtomicU64::new(0),
            late: Exchange::default(),
            asked: Asked::default(),
            ready: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            cpus_came: AtomicBool::new(false),
            wake,
        };
        shared.tick();
        shared
    }

    /// Makes the tracker look up.
    pub fn wake(&self) {
        // A full pipe has woken it already; a closed one has nobody to wake.
        let _ = (&self.wake).write(&[1]);
    }

    /// Reads the clock for those who touch.
    pub fn tick(&self) {
        self.second.store((monotonic_ns() / 1_000_000_000) as u32, Ordering::Relaxed);
    }

    /// The second it is.
    pub fn seconds(&self) -> u32 {
        self.second.load(Ordering::Relaxed)
    }

    /// A sample named an executable.
    pub fn touch(&self, number: u32) {
        if let Some(used) = self.used.get(number as usize) {
            used.store(self.seconds(), Ordering::Relaxed);
        }
    }

    /// When a sample last named it.
    pub fn used(&self, number: u32) -> u32 {
        self.used.get(number as usize).map_or(0, |used| used.load(Ordering::Relaxed))
    }

    pub fn mapping(&self, number: u32) -> Option<Arc<Mapping>> {
        self.mappings.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    pub fn set_mapping(&self, number: u32, mapping: Arc<Mapping>) {
        self.mappings.write().unwrap_or_else(PoisonError::into_inner).insert(number, mapping);
    }

    pub fn remove_mapping(&self, number: u32) {
        self.mappings.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }

    /// Who had the pid at a time.
    pub fn identity(&self, pid: u32, time: u64) -> Option<Arc<ProcessIdentity>> {
        let lives = self.lives.read().unwrap_or_else(PoisonError::into_inner);
        let lives = lives.get(&pid)?;
        let life = lives.iter().rev().find(|life| life.since <= time).or(lives.first())?;
        Some(Arc::clone(&life.identity))
    }

    /// The pid runs another image, or is another process.
    pub fn begin_life(&self, pid: u32, life: Life) {
        let mut all = self.lives.write().unwrap_or_else(PoisonError::into_inner);
        let lives = all.entry(pid).or_default();
        if lives.len() >= MAX_PAST {
            lives.remove(0);
        }
        lives.push(life);
    }

    /// More is known of the image that the pid runs now.
    pub fn correct_life(&self, pid: u32, identity: Arc<ProcessIdentity>) {
        let mut all = self.lives.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(life) = all.get_mut(&pid).and_then(|lives| lives.last_mut()) {
            life.identity = identity;
        }
    }

    /// Forgets a pid, if it is still the image of that generation.
    pub fn end_lives(&self, pid: u32, generation: u64) {
        let mut all = self.lives.write().unwrap_or_else(PoisonError::into_inner);
        let Some(lives) = all.get_mut(&pid) else { return };
        lives.retain(|life| life.identity.generation > generation);
        if lives.is_empty() {
            all.remove(&pid);
        }
    }

    /// A sample of the process was in no known mapping.
    pub fn note_unknown(&self, pid: u32) {
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if unknown.len() >= MAX_UNKNOWN {
            self.stats.rereads_refused.add(1);
            return;
        }
        let first = unknown.is_empty();
        unknown.insert(pid);
        if first {
            self.wake();
        }
    }

    /// A process was in a sample.
    pub fn note_sampled(&self, pid: u32) {
        let mut sampled = self.sampled.lock().unwrap_or_else(PoisonError::into_inner);
        // Beyond that it may look unused: it comes back when the next sample asks for it.
        if sampled.len() < MAX_SAMPLED {
            sampled.insert(pid);
        }
    }

    /// Takes the processes that were in samples since the last time.
    pub fn take_sampled(&self) -> FxHashSet<u32> {
        std::mem::take(&mut *self.sampled.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the processes to read again.
    pub fn take_unknown(&self) -> FxHashSet<u32> {
        std::mem::take(&mut *self.unknown.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
