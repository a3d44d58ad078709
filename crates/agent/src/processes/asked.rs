//! Questions to the tracker about the mappings of a process, from threads that can wait.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use super::{late::place, table::Processes};
use crate::{bpf::abi::Mapping, executables::Registry};

/// Questions that wait at the same time; further ones are not taken.
pub const MAX_ASKED: usize = 16;
/// The tracker answers in its next turn, unless a call that it makes hangs.
const WITHIN: Duration = Duration::from_secs(2);

/// What was asked and not answered yet.
#[derive(Debug, Default)]
pub struct Asked(Mutex<Vec<Question>>);

#[derive(Debug)]
struct Question {
    pid: u32,
    time: u64,
    answer: SyncSender<Option<Vec<Mapping>>>,
}

impl Asked {
    fn lock(&self) -> MutexGuard<'_, Vec<Question>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for the mappings that a process had at a time. `wake` makes the tracker look.
    pub fn ask(&self, pid: u32, time: u64, wake: impl Fn()) -> Option<Vec<Mapping>> {
        let answer = self.put(pid, time)?;
        wake();
        answer.recv_timeout(WITHIN).ok().flatten()
    }

    fn put(&self, pid: u32, time: u64) -> Option<Receiver<Option<Vec<Mapping>>>> {
        let (answer, answered) = sync_channel(1);
        let mut waiting = self.lock();
        if waiting.len() >= MAX_ASKED {
            return None;
        }
        waiting.push(Question { pid, time, answer });
        Some(answered)
    }

    /// The tracker's part: answers all.
    pub fn answer(&self, processes: &Processes, registry: &Registry) {
        let waiting = std::mem::take(&mut *self.lock());
        for question in waiting {
            let mappings = processes.space_at(question.pid, question.time).map(|space| {
                let mut mappings = Vec::new();
                place(space, question.time, registry, &mut mappings);
                mappings
            });
            // It may have given up.
            let _ = question.answer.try_send(mappings);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_are_not_taken() {
        let asked = Asked::default();
        let waiting: Vec<_> = (0..MAX_ASKED as u32).map(|pid| asked.put(pid, 1).expect("there is room")).collect();
        assert!(asked.put(99, 1).is_none());
        assert_eq!(waiting.len(), asked.lock().len());
    }
}
