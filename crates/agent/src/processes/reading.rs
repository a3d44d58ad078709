//! What /proc says of processes: of all, at the start and when records were lost, in slices
//! so that nothing else waits for it; and of one, when a sample shows that we know too little.

use std::{
    fs::{self, File},
    io::{self, Read},
    time::{Duration, Instant},
};

use everflame_profile::Str;
use rustc_hash::FxHashSet;

use super::{facts, maps, space::Space, table::Processes};
use crate::{bpf::monotonic_ns, executables::Registry};

/// How long the reading of all of /proc may hold up everything else at a time.
const SLICE: Duration = Duration::from_millis(20);
/// Longest time between two readings of a process for samples in no known mapping, seconds.
const MAX_REREAD_WAIT: u32 = 64;

impl Processes {
    /// Begins a round through /proc: everyone who is there, and nobody else.
    pub fn begin_scan(&mut self) -> io::Result<()> {
        self.shared.stats.scans.add(1);
        let pids = fs::read_dir("/proc")?.flatten();
        self.to_read = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        let there: FxHashSet<u32> = self.to_read.iter().copied().collect();
        let gone: Vec<u32> = self.all.keys().copied().filter(|pid| !there.contains(pid)).collect();
        for pid in gone {
            self.end(pid);
        }
        Ok(())
    }

    /// Goes on with the round, for a moment.
    pub fn scan_on(&mut self, registry: &mut Registry) {
        let began = Instant::now();
        while began.elapsed() < SLICE
            && let Some(pid) = self.to_read.pop()
        {
            self.read(pid, 0, registry);
        }
        if self.to_read.is_empty() {
            self.to_read = Vec::new();
        }
    }

    /// Whether a round is under way.
    pub fn is_scanning(&self) -> bool {
        !self.to_read.is_empty()
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
            let mut identity = self.identity(pid, name);
            // The kernel's own are asked for nothing: they have no executable, and are in no container.
            (identity.named, identity.located) = (status.kernel_thread, status.kernel_thread);
            self.begin(pid, since, identity, Space::default());
            if !status.kernel_thread {
                self.ask(pid);
            }
        }
        let space = if status.kernel_thread { Some(Space::default()) } else { self.read_space(pid, registry) };
        let space = space.map(|mut space| {
            if let Some(process) = self.all.get(&pid) {
                space.remember(&process.space);
            }
            self.spaces.share(space)
        });
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
            let number = registry.meet(pid, 0, &mapping);
            if !space.add(&mapping, number, 0) {
                self.shared.stats.mappings_refused.add(1);
            }
        }
        Some(space)
    }

    /// Reads processes again that had samples in no known mapping, or in no known process, but
    /// none too often.
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
}

pub(super) fn is_gone(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH)
}
