//! What is done each second and now and then. What takes a look at every process is spread
//! over time, so that ten thousand of them cost no more than a few.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::{
    facts,
    reading::is_gone,
    records::{FileId, NewMapping},
    table::{MAX_ENDED, Processes},
};
use crate::{bpf::monotonic_ns, executables::Registry};

/// Seconds in which each process is looked at once, where there are few.
const ROUND: usize = 30;
/// Processes that are looked at in a second at most.
const LOOKS_A_SECOND: usize = 64;
/// Longest time between two attempts to find files that nobody seems to have, seconds.
const MAX_SERVE_WAIT: u32 = 32;

/// What is under way of the rounds through all processes.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    to_look: Vec<u32>,
    a_second: usize,
    next: u32,
    /// Executables whose files were not to be had, when they are looked for again, and how
    /// long that is.
    unserved: FxHashSet<u32>,
    serve_from: u32,
    serve_wait: u32,
}

impl Processes {
    /// Each second: late samples' processes, no room before, who is used, who may have moved.
    pub fn tick(&mut self, registry: &mut Registry) {
        let now = self.shared.seconds();
        while let Some(&(due, pid, generation)) = self.ended.front() {
            if due > now && self.ended.len() <= MAX_ENDED {
                break;
            }
            self.ended.pop_front();
            self.shared.end_lives(pid, generation);
        }
        for pid in self.shared.take_sampled() {
            if let Some(process) = self.all.get_mut(&pid) {
                process.used = now;
            }
        }
        self.dirty.extend(self.roomless.drain());
        self.look_at_some(now);
        self.serve(registry, now);
        let usage = self.sink.usage();
        let stats = &self.shared.stats;
        stats.mapping_runs.set(usage.runs);
        stats.mapping_elements.set(usage.elements);
        stats.mapping_bytes.set(usage.bytes);
        stats.processes_ended.set(self.ended.len() as u64);
    }

    /// Who went unseen, and who moved to another container.
    fn look_at_some(&mut self, now: u32) {
        if self.rounds.to_look.is_empty() && now >= self.rounds.next {
            self.rounds.to_look = self.all.keys().copied().collect();
            self.rounds.a_second = (self.rounds.to_look.len() / ROUND + 1).min(LOOKS_A_SECOND);
            self.rounds.next = now + ROUND as u32;
        }
        for _ in 0..self.rounds.a_second {
            let Some(pid) = self.rounds.to_look.pop() else { break };
            let Some(process) = self.all.get_mut(&pid) else { continue };
            match facts::cgroup(pid, &mut self.cgroups) {
                Ok(cgroup) if cgroup != process.identity.cgroup => {
                    let mut identity = (*process.identity).clone();
                    identity.cgroup = cgroup;
                    process.identity = Arc::new(identity);
                    self.shared.correct_life(pid, Arc::clone(&process.identity));
                }
                Err(e) if is_gone(&e) => {
                    self.end(pid);
                }
                _ => {}
            }
        }
    }

    /// Finds processes that have the executables mapped of which something is to be made.
    fn serve(&mut self, registry: &mut Registry, now: u32) {
        let mut wanting = registry.wanting();
        let rounds = &mut self.rounds;
        if wanting.is_empty() || (wanting.is_subset(&rounds.unserved) && now < rounds.serve_from) {
            return;
        }
        let asked = wanting.clone();
        for (pid, process) in &self.all {
            for area in process.space.areas() {
                if wanting.remove(&area.number) {
                    let file = FileId { device: (0, 0), inode: 0 };
                    let (start, end, offset) = (area.start, area.end, area.offset);
                    let mapping = NewMapping { start, end, offset, file, inode_generation: 0, name: Box::default() };
                    registry.serve(area.number, *pid, &mapping);
                }
            }
            if wanting.is_empty() {
                break;
            }
        }
        rounds.serve_wait =
            if asked.is_subset(&rounds.unserved) { (rounds.serve_wait * 2).min(MAX_SERVE_WAIT) } else { 1 };
        rounds.serve_from = now + rounds.serve_wait;
        rounds.unserved = asked;
    }

    /// Now and then: what nobody uses.
    pub fn sweep(&mut self, registry: &mut Registry) {
        let (mut mapped, mut seen) = (FxHashSet::default(), FxHashSet::default());
        for process in self.all.values() {
            if seen.insert(process.space.identity()) {
                mapped.extend(process.space.areas().iter().map(|a| a.number));
            }
        }
        let all = &self.all;
        self.waiting.sweep(|pid| all.contains_key(&pid));
        self.strings.sweep();
        self.cgroups.sweep();
        self.past.sweep(monotonic_ns());
        self.spaces.sweep();
        registry.sweep(&mapped);
    }
}
