//! What an event of the side band changes in the table of processes.

use std::sync::Arc;

use super::{
    facts,
    records::{Event, Record},
    shared::Life,
    table::{MAX_PROCESSES, Processes},
};
use crate::{executables::Registry, identity::ProcessIdentity};

/// An exec clears the kernel's entry a little after the side band tells of it; what was
/// handed over in between is handed over again after this time (nanoseconds).
pub(super) const AFTER_EXEC: u64 = 200_000_000;

impl Processes {
    /// Takes in one event. Events come in the order of their times.
    pub fn apply(&mut self, record: Record, registry: &mut Registry) {
        let time = record.time;
        match record.event {
            Event::Map { pid, mapping } => {
                if !self.all.contains_key(&pid) {
                    self.read(pid, time, registry);
                }
                let Some(process) = self.all.get_mut(&pid).filter(|p| p.as_of < time) else { return };
                if process.image.is_none() && mapping.file.inode != 0 && !process.identified {
                    process.image = Some(mapping.name.clone());
                }
                let number = registry.meet(pid, process.parent, &mapping);
                if process.space.add(&mapping, number, time) {
                    self.dirty.insert(pid);
                } else {
                    self.shared.stats.mappings_refused.add(1);
                }
            }
            Event::Fork { pid, parent, .. } if pid != parent => self.fork(pid, parent, time, registry),
            Event::Comm { pid, exec: true, name, .. } => self.exec(pid, &name, time, registry),
            Event::Comm { pid, tid, name, .. } if pid == tid => self.rename(pid, &name),
            Event::Exit { pid, tid } => {
                if self.all.get(&pid).is_some_and(|p| p.as_of < time && (pid == tid || p.headless)) {
                    self.ending.entry(pid).or_insert(0);
                }
            }
            Event::Fork { .. } | Event::Comm { .. } | Event::Lost { .. } => {}
        }
    }

    fn fork(&mut self, pid: u32, parent: u32, time: u64, registry: &mut Registry) {
        if self.all.get(&pid).is_some_and(|p| p.as_of >= time) {
            return;
        }
        self.end(pid);
        let Some(process) = self.all.get(&parent) else {
            self.read(pid, time, registry);
            return;
        };
        let (space, kernel_thread) = (process.space.clone(), process.kernel_thread);
        let (image, identity) = (process.image.clone(), Arc::clone(&process.identity));
        let (identified, published) = (process.identified, process.published);
        if !self.has_room() {
            // The kernel copied its parent's entry, which nobody would look after.
            self.sink.remove(pid);
            return;
        }
        self.generation += 1;
        let identity = ProcessIdentity { pid, generation: self.generation, ..(*identity).clone() };
        self.begin(pid, time, identity, space);
        if !identified {
            self.ask(pid);
        }
        if let Some(process) = self.all.get_mut(&pid) {
            process.kernel_thread = kernel_thread;
            process.parent = parent;
            process.image = image;
            // The kernel copied the parent's entry.
            process.published = published;
        }
    }

    fn exec(&mut self, pid: u32, name: &[u8], time: u64, registry: &mut Registry) {
        if !self.all.contains_key(&pid) {
            self.read(pid, time, registry);
        }
        if self.all.get(&pid).is_none_or(|p| p.as_of >= time) {
            return;
        }
        let mut identity = self.identity(pid, &String::from_utf8_lossy(name));
        let Some(process) = self.all.get_mut(&pid) else { return };
        identity.cgroup = Arc::clone(&process.identity.cgroup);
        process.identity = Arc::new(identity);
        self.past.add(pid, process.since, time, std::mem::take(&mut process.space));
        process.since = time;
        process.image = None;
        process.kernel_thread = false;
        process.headless = false;
        self.shared.begin_life(pid, Life { since: time, identity: Arc::clone(&process.identity) });
        self.ask(pid);
        self.ending.remove(&pid);
        self.dirty.insert(pid);
        if self.again.len() < MAX_PROCESSES {
            self.again.push_back((time + AFTER_EXEC, pid));
        }
    }

    fn rename(&mut self, pid: u32, name: &[u8]) {
        let Some(process) = self.all.get_mut(&pid).filter(|p| p.kernel_thread) else { return };
        let name = String::from_utf8_lossy(name);
        let mut identity = (*process.identity).clone();
        identity.name = self.strings.get(facts::kernel_thread_name(&name));
        process.identity = Arc::new(identity);
        self.shared.correct_life(pid, Arc::clone(&process.identity));
    }
}
