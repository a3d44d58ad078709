//! Samples whose walk the kernel had to break off because it had not been told yet what it
//! needed: a process of a few milliseconds is over before its mappings are in the kernel's
//! table. They come with a copy of the stack and wait here until the news up to their time is
//! taken in and the tables they need are made; then the same walk is made on the host.
//!
//! What waits is bounded in bytes and in time. What cannot wait goes on as the kernel found it,
//! with the kernel's reason.

use std::{
    cell::RefCell,
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use everflame_profile::Completeness;
use rustc_hash::FxHashSet;

use super::{
    code::{Code, Seen},
    shared::Shared,
    space::Space,
    table::Processes,
};
use crate::{
    bpf::{
        abi,
        host::{TableView, Walked, walk},
        monotonic_ns,
    },
    executables::{ANON, Place, Registry},
    sample::{RawSample, RawStack, UserFrame, UserStack},
};

/// Bytes of samples that wait to be looked at. It is apart from the next, so that those whose
/// tables are there find room while others wait for theirs.
const MAX_INBOX: usize = 2 << 20;
/// Bytes of samples that were looked at and wait. When there are more, the oldest go on.
const MAX_WAITING: usize = 2 << 20;
/// How long a sample waits for tables at most, nanoseconds.
const PATIENCE: u64 = 5_000_000_000;

/// Between the thread that reads the ring and the tracker.
#[derive(Debug, Default)]
pub struct Exchange(Mutex<Boxes>);

#[derive(Debug, Default)]
struct Boxes {
    inbox: Vec<RawSample>,
    outbox: Vec<RawSample>,
    inbox_bytes: usize,
    /// Samples that came in and are not in the outbox.
    waiting: usize,
    /// Nothing is to wait any more.
    hurry: bool,
}

impl Exchange {
    fn lock(&self) -> MutexGuard<'_, Boxes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a late sample in, or gives it back where there is no room.
    pub fn offer(&self, sample: RawSample) -> Result<(), RawSample> {
        let mut boxes = self.lock();
        let bytes = size(&sample);
        if sample.copy.is_none() || boxes.inbox_bytes + bytes > MAX_INBOX {
            return Err(sample);
        }
        boxes.inbox_bytes += bytes;
        boxes.waiting += 1;
        boxes.inbox.push(sample);
        Ok(())
    }

    /// Samples that are as whole as they will be.
    pub fn take(&self) -> Vec<RawSample> {
        std::mem::take(&mut self.lock().outbox)
    }

    /// Samples that came in and are not in the outbox yet.
    pub fn waiting(&self) -> usize {
        self.lock().waiting
    }

    /// From now on nothing waits.
    pub fn hurry(&self) {
        self.lock().hurry = true;
    }
}

fn size(sample: &RawSample) -> usize {
    size_of::<RawSample>() + sample.copy.as_ref().map_or(0, |copy| copy.size())
}

/// The tracker's part.
#[derive(Debug, Default)]
pub struct Late {
    waiting: VecDeque<Waiting>,
    mappings: Vec<abi::Mapping>,
    code: RefCell<Code>,
    /// Executables whose tables are waited for.
    awaited: FxHashSet<u32>,
}

#[derive(Debug)]
struct Waiting {
    sample: RawSample,
    until: u64,
    needs: Needs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// The news up to its time.
    News,
    /// The table of an executable.
    Table(u32),
    /// Its process, which nobody knew and which is read again.
    Process,
    /// What will never come.
    Nothing,
}

impl Late {
    /// Whether something waits for news only, which are there in a moment.
    pub fn is_soon(&self) -> bool {
        self.waiting.iter().any(|w| !matches!(w.needs, Needs::Table(_)))
    }

    /// Walks what can be walked now that all news up to `horizon` are taken in.
    pub fn turn(&mut self, horizon: u64, processes: &Processes, registry: &Registry, shared: &Shared) {
        let now = monotonic_ns();
        let (fresh, hurry) = {
            let mut boxes = shared.late.lock();
            boxes.inbox_bytes = 0;
            (std::mem::take(&mut boxes.inbox), boxes.hurry)
        };
        shared.stats.late_samples.add(fresh.len() as u64);
        let arrived = fresh.into_iter().map(|sample| Waiting { sample, until: now + PATIENCE, needs: Needs::News });
        self.waiting.extend(arrived);
        if self.waiting.is_empty() {
            return;
        }
        self.code.get_mut().turn(shared);
        let mut done = Vec::new();
        let mut kept = VecDeque::with_capacity(self.waiting.len());
        registry.look(&mut |tables| {
            let sources = Sources { processes, registry, shared, tables, code: &self.code };
            for mut waiting in self.waiting.drain(..) {
                let last = hurry || now >= waiting.until;
                let outcome = match waiting.needs {
                    Needs::News if waiting.sample.time > horizon && !last => Err(Needs::News),
                    Needs::Table(number) if registry.is_awaited(number) && !last => Err(Needs::Table(number)),
                    needs => attempt(&waiting.sample, needs, &mut self.mappings, &sources),
                };
                match outcome {
                    Err(needs) if !last && needs != Needs::Nothing => {
                        waiting.needs = needs;
                        kept.push_back(waiting);
                    }
                    outcome => {
                        let stat = if outcome.is_ok() { &shared.stats.late_walked } else { &shared.stats.late_gave_up };
                        stat.add(1);
                        done.push(finish(waiting.sample, outcome.ok()));
                    }
                }
            }
        });
        self.waiting = kept;
        self.say_awaited(registry);
        let gone = let_go(&mut self.waiting, MAX_WAITING);
        shared.stats.late_refused.add(gone.len() as u64);
        done.extend(gone);
        shared.stats.late_waiting_bytes.set(bytes(&self.waiting) as u64);
        let mut boxes = shared.late.lock();
        boxes.waiting -= done.len();
        boxes.outbox.extend(done);
    }

    /// Lets those tables come first that the samples wait for.
    fn say_awaited(&mut self, registry: &Registry) {
        let tables =
            self.waiting.iter().filter_map(|w| if let Needs::Table(number) = w.needs { Some(number) } else { None });
        let awaited: FxHashSet<u32> = tables.collect();
        if awaited != self.awaited {
            registry.prefer(awaited.clone());
            self.awaited = awaited;
        }
    }
}

fn bytes(waiting: &VecDeque<Waiting>) -> usize {
    waiting.iter().map(|waiting| size(&waiting.sample)).sum()
}

/// Lets the oldest go on as they are until the rest takes at most so many bytes.
fn let_go(waiting: &mut VecDeque<Waiting>, most: usize) -> Vec<RawSample> {
    let mut over = bytes(waiting).saturating_sub(most);
    let mut gone = Vec::new();
    while over > 0
        && let Some(oldest) = waiting.pop_front()
    {
        over = over.saturating_sub(size(&oldest.sample));
        gone.push(finish(oldest.sample, None));
    }
    gone
}

/// What walks go by.
struct Sources<'a> {
    processes: &'a Processes,
    registry: &'a Registry,
    shared: &'a Shared,
    tables: &'a TableView<'a>,
    code: &'a RefCell<Code>,
}

/// Walks a sample's stack over the mappings of its time, or says what is still missing.
fn attempt(
    sample: &RawSample,
    needs: Needs,
    mappings: &mut Vec<abi::Mapping>,
    sources: &Sources<'_>,
) -> Result<Walked, Needs> {
    let Sources { processes, registry, shared, tables, code } = *sources;
    let Some(copy) = &sample.copy else { return Err(needs) };
    let Some(space) = processes.space_at(sample.pid, sample.time) else {
        if needs == Needs::Process {
            return Err(Needs::Nothing);
        }
        shared.note_unknown(sample.pid);
        return Err(Needs::Process);
    };
    place(space, sample.time, registry, mappings);
    let seen = Seen { copy, pid: sample.pid, space, processes, code, shared };
    let mut walked = walk(copy.registers, mappings, tables, &seen);
    if let Some(number) = walked.waits_for {
        shared.touch(number);
        if registry.is_awaited(number) {
            return Err(Needs::Table(number));
        }
    }
    if walked.completeness == Completeness::UnreadableMemory && is_cut(copy) {
        walked.completeness = Completeness::DepthLimit;
    }
    Ok(walked)
}

/// Whether the stack goes on where the copy ends.
fn is_cut(copy: &UserStack) -> bool {
    copy.bytes.len() > abi::STACK_BYTES - 4096
}

/// The mappings that were there at a time, as the walk wants them. Those of executables that
/// nothing is known of yet have no table yet either, which is what ends the walk.
pub(super) fn place(space: &Space, time: u64, registry: &Registry, mappings: &mut Vec<abi::Mapping>) {
    mappings.clear();
    for area in space.areas().iter().filter(|area| area.since <= time) {
        let (executable, bias) = match registry.place(area.number, area.start, area.offset) {
            Place::File(number, bias) => (number, bias),
            Place::Anon => (ANON, 0),
            Place::NotYet => (area.number, 0),
        };
        let pages = u32::try_from((area.end - area.start) / 4096).unwrap_or(u32::MAX);
        mappings.push(abi::Mapping { start: area.start, bias, pages, executable });
    }
}

/// The sample as it goes on: with what the walk found, or as it was.
fn finish(sample: RawSample, walked: Option<Walked>) -> RawSample {
    let sample = RawSample { late: false, copy: None, ..sample };
    let Some(walked) = walked else { return sample };
    let completeness = match walked.completeness {
        Completeness::Complete if sample.stack.kernel.len() >= abi::KERNEL_FRAMES => Completeness::DepthLimit,
        completeness => completeness,
    };
    let user = walked.frames.into_iter().map(UserFrame).collect();
    let stack = Arc::new(RawStack { kernel: sample.stack.kernel.clone(), user });
    RawSample { completeness, stack, ..sample }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::host::Registers;

    fn sample(time: u64, bytes: usize) -> RawSample {
        let copy = UserStack { registers: Registers::default(), start: 0, code: None, bytes: vec![0; bytes].into() };
        RawSample {
            time,
            pid: 1,
            tid: 1,
            cpu: 0,
            cgroup: 0,
            comm: [0; 16],
            kernel_thread: false,
            completeness: Completeness::UnknownMapping,
            period: 1,
            stack: Arc::default(),
            late: true,
            copy: Some(Arc::new(copy)),
        }
    }

    #[test]
    fn a_full_inbox_gives_back() {
        let exchange = Exchange::default();
        let each = size(&sample(0, 32_000));
        let room = MAX_INBOX / each;
        for time in 0..room {
            assert!(exchange.offer(sample(time as u64, 32_000)).is_ok());
        }
        assert_eq!(exchange.offer(sample(7, 32_000)).unwrap_err().time, 7);
        assert_eq!((exchange.waiting(), exchange.take().len()), (room, 0));
        let without = RawSample { copy: None, ..sample(8, 0) };
        assert!(exchange.offer(without).is_err(), "there is nothing to walk");
    }

    #[test]
    fn the_oldest_go_on_as_they_are_when_too_much_waits() {
        let waiting = |time| Waiting { sample: sample(time, 1000), until: 0, needs: Needs::Table(9) };
        let mut all: VecDeque<Waiting> = (0..10).map(waiting).collect();
        let most = bytes(&all) * 7 / 10;
        let gone = let_go(&mut all, most);
        assert_eq!(gone.iter().map(|s| s.time).collect::<Vec<_>>(), [0, 1, 2]);
        let kept = |s: &RawSample| s.completeness == Completeness::UnknownMapping && s.copy.is_none() && !s.late;
        assert!(gone.iter().all(kept));
        assert_eq!((all.len(), bytes(&all) <= most), (7, true));
        assert!(let_go(&mut all, most).is_empty());
    }
}
