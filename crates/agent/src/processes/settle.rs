//! After each look at the side band: who came is asked who it is, who may have gone is looked
//! at, and what changed is handed to the kernel.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{
    events::AFTER_EXEC,
    facts,
    table::{Process, Processes},
};
use crate::executables::Registry;

/// Processes a second that are asked who they are, in the long run: it takes three or four
/// files of /proc each. In a storm most are gone before; their names came with their images.
const ASKED_A_SECOND: u32 = 200;
/// Those that are asked at once after a quiet time, as at the start.
const ASKED_AT_ONCE: u32 = 8_192;
/// Those that are asked at one time: everything else waits for them.
const ASKED_TOGETHER: usize = 64;
/// How often it is looked whether a process whose first thread ended is gone.
const EXIT_LOOKS: u8 = 20;

/// How many processes may be asked now.
#[derive(Debug)]
pub(super) struct Purse {
    left: u32,
    second: u32,
}

impl Default for Purse {
    fn default() -> Self {
        Self { left: ASKED_AT_ONCE, second: 0 }
    }
}

impl Purse {
    fn fill(&mut self, now: u32) {
        let seconds = now.saturating_sub(self.second);
        self.second = now;
        self.left = self.left.saturating_add(seconds.saturating_mul(ASKED_A_SECOND)).min(ASKED_AT_ONCE);
    }
}

impl Processes {
    /// Brings everything up to date with the events taken in, which are all up to `horizon`.
    pub fn settle(&mut self, registry: &mut Registry, horizon: u64) {
        self.ask_some();
        self.look_at_endings();
        while let Some(&(_, pid)) = self.again.front().filter(|(due, _)| *due <= horizon) {
            self.again.pop_front();
            self.dirty.insert(pid);
        }
        for pid in std::mem::take(&mut self.dirty) {
            self.publish(pid, registry, horizon);
        }
        self.shared.stats.processes.set(self.all.len() as u64);
        self.shared.stats.processes_unidentified.set(self.unidentified.len() as u64);
    }

    /// How soon [`settle`](Self::settle) wants to be called again, in nanoseconds; `None` where
    /// there is no hurry.
    pub fn unsettled(&self) -> Option<u64> {
        let ending = (!self.ending.is_empty() || (!self.unidentified.is_empty() && self.purse.left > 0)).then_some(0);
        let soon = !self.again.is_empty() || !self.unidentified.is_empty();
        ending.or(soon.then_some(AFTER_EXEC))
    }

    fn ask_some(&mut self) {
        self.purse.fill(self.shared.seconds());
        let mut together = Vec::new();
        while self.purse.left > 0
            && together.len() < ASKED_TOGETHER
            && let Some((pid, generation)) = self.unidentified.pop_front()
        {
            // Those that are gone, or run another image by now, cost nothing.
            let same = |p: &&mut Process| p.identity.generation == generation && !p.identified;
            if self.all.get_mut(&pid).as_ref().is_some_and(same) {
                self.purse.left -= 1;
                together.push(pid);
            }
        }
        let mut services = self.services(&together);
        for pid in together {
            self.identify(pid, services.remove(&pid));
        }
    }

    /// The service names of those who live and have one. They are read together: to wait for
    /// another thread costs more than the reading.
    fn services(&mut self, pids: &[u32]) -> FxHashMap<u32, String> {
        let asked = |pid: &&u32| self.read_service && !self.ending.contains_key(pid);
        let pids: Vec<u32> = pids.iter().filter(asked).copied().collect();
        if pids.is_empty() {
            return FxHashMap::default();
        }
        let together = pids.clone();
        let read = move || together.into_iter().map(|pid| (pid, facts::service(pid))).collect();
        if let Some(services) = self.patience.call(read) {
            return services;
        }
        // One of them hangs: the others are not to suffer for it.
        let mut services = FxHashMap::default();
        for pid in pids {
            match self.patience.call(move || facts::service(pid)) {
                Some(service) => _ = services.insert(pid, service),
                None => self.shared.stats.calls_hung.add(1),
            }
        }
        services
    }

    fn identify(&mut self, pid: u32, service: Option<String>) {
        let Some(process) = self.all.get_mut(&pid) else { return };
        process.identified = true;
        let mut identity = (*process.identity).clone();
        // One that has ended by now is what it mapped, where its parent was.
        let ends = self.ending.contains_key(&pid);
        let image = process.image.take().map(|image| facts::name_and_path(&image, &mut self.strings));
        let named = image.or_else(|| (!ends).then(|| facts::executable(pid, &mut self.strings).ok()).flatten());
        if let Some((name, path)) = named {
            (identity.name, identity.path, identity.named) = (name, path, true);
        }
        if !ends && let Ok(cgroup) = facts::cgroup(pid, &mut self.cgroups) {
            (identity.cgroup, identity.located) = (cgroup, true);
        }
        if let Some(service) = service {
            identity.service = self.strings.get(&service);
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purse_is_filled_by_time_and_holds_so_much() {
        let mut purse = Purse { left: 0, second: 100 };
        purse.fill(100);
        assert_eq!(purse.left, 0);
        purse.fill(102);
        assert_eq!(purse.left, 2 * ASKED_A_SECOND);
        purse.fill(100_000);
        assert_eq!(purse.left, ASKED_AT_ONCE);
    }
}
