//! Samples whose pod is still to be told wait beside the others, for at most ten seconds. They
//! are counted as in the aggregate like all, and go on under the names that are known by then.

use std::{
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use everflame_profile::{Batch, Str};
use rustc_hash::{FxHashMap, FxHashSet};

use super::Aggregate;
use crate::{
    identity::{Describe, ProcessIdentity},
    sample::RawSample,
    who::Cgroup,
};

/// How long a sample waits for the name of its pod.
pub const WAIT: Duration = Duration::from_secs(10);
/// Samples that wait, at most; when there are more, those of the container that has waited longest
/// go on.
const MAX_WAITING: usize = 16_384;
/// Containers that are remembered as never named, at most; when there are more, all are forgotten.
const MAX_GIVEN_UP: usize = 4096;

/// What became of those that waited, since the start.
#[derive(Debug, Default)]
pub struct Waited {
    /// Samples that waited.
    pub samples: AtomicU64,
    /// Containers that were not named in time.
    pub given_up: AtomicU64,
}

/// An aggregate of samples that are known as well as they will be, and those that are not yet.
#[derive(Debug)]
pub struct Lanes {
    ready: Aggregate,
    /// By container: each has a time of its own.
    waiting: FxHashMap<Key, Waiting>,
    /// Their samples.
    samples_waiting: usize,
    /// Containers that were waited for in vain: named as soon as they can be, but not waited for.
    given_up: FxHashSet<Key>,
    waited: Arc<Waited>,
}

/// Pod and container.
type Key = (Str, Str);

/// Samples of one container.
#[derive(Debug)]
struct Waiting {
    /// When the first came.
    since: Instant,
    samples: Vec<(RawSample, Arc<ProcessIdentity>)>,
}

impl Waiting {
    /// Whether more may be told of the container: all of its samples stand in the same one.
    fn is_awaited(&self, describe: &dyn Describe) -> bool {
        self.samples.first().is_some_and(|(_, process)| is_awaited(&process.cgroup, describe))
    }
}

impl Lanes {
    /// All end in this aggregate.
    pub fn new(ready: Aggregate) -> Self {
        let (waiting, given_up) = (FxHashMap::default(), FxHashSet::default());
        Self { ready, waiting, samples_waiting: 0, given_up, waited: Arc::default() }
    }

    /// What became of those that waited.
    pub fn waited(&self) -> &Arc<Waited> {
        &self.waited
    }

    /// Samples since the last seal, those that wait left out.
    pub fn samples(&self) -> u64 {
        self.ready.samples()
    }

    /// See [`Aggregate::look_at_clock`].
    pub fn look_at_clock(&mut self) {
        self.ready.look_at_clock();
    }

    /// Adds one sample; hands over the batches that are full with it.
    pub fn add(&mut self, sample: &RawSample, describe: &dyn Describe) -> Vec<Batch> {
        let name = self.ready.thread(sample);
        let process = describe.process(sample, &name);
        let key = key(&process.cgroup);
        if !is_awaited(&process.cgroup, describe) || self.given_up.contains(&key) {
            return self.pass_on(sample, process, describe).into_iter().collect();
        }
        self.waited.samples.fetch_add(1, Relaxed);
        self.samples_waiting += 1;
        let waiting = self.waiting.entry(key).or_insert_with(|| Waiting { since: Instant::now(), samples: Vec::new() });
        // What it was made of has been looked at by now, and is large.
        waiting.samples.push((RawSample { copy: None, ..sample.clone() }, process));
        if self.samples_waiting <= MAX_WAITING {
            return Vec::new();
        }
        let longest = self.waiting.iter().min_by_key(|(_, waiting)| waiting.since).map(|(key, _)| key.clone());
        longest.into_iter().flat_map(|key| self.release(&key, describe)).collect()
    }

    /// Hands over those that need not wait.
    pub fn seal(&mut self, describe: &dyn Describe) -> Option<Batch> {
        self.ready.seal(describe)
    }

    /// Those that are named by now need not wait any more, nor do those of containers that have waited
    /// for `wait`. Hands over the batches that are full with them.
    pub fn release_waited(&mut self, describe: &dyn Describe, wait: Duration) -> Vec<Batch> {
        let is_due = |waiting: &Waiting| waiting.since.elapsed() >= wait || !waiting.is_awaited(describe);
        let due: Vec<Key> = self.waiting.iter().filter(|(_, w)| is_due(w)).map(|(key, _)| key.clone()).collect();
        due.iter().flat_map(|key| self.release(key, describe)).collect()
    }

    fn release(&mut self, key: &Key, describe: &dyn Describe) -> Vec<Batch> {
        let Some(waiting) = self.waiting.remove(key) else { return Vec::new() };
        self.samples_waiting -= waiting.samples.len();
        if waiting.is_awaited(describe) {
            self.waited.given_up.fetch_add(1, Relaxed);
            if self.given_up.len() >= MAX_GIVEN_UP {
                self.given_up.clear();
            }
            self.given_up.insert(key.clone());
        }
        waiting.samples.into_iter().filter_map(|(sample, process)| self.pass_on(&sample, process, describe)).collect()
    }

    fn pass_on(&mut self, sample: &RawSample, process: Arc<ProcessIdentity>, describe: &dyn Describe) -> Option<Batch> {
        self.ready.add_of(sample, process, describe);
        if self.ready.is_full() { self.ready.seal(describe) } else { None }
    }
}

/// Whether it is in a pod of which more may be told.
fn is_awaited(cgroup: &Cgroup, describe: &dyn Describe) -> bool {
    !cgroup.pod.is_empty() && describe.location(cgroup).awaited
}

fn key(cgroup: &Cgroup) -> Key {
    (Str::clone(&cgroup.pod), Str::clone(&cgroup.container))
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use everflame_profile::{Completeness, Frame, FrameKind, Mapping};

    use super::*;
    use crate::{
        identity::ProcessIdentity,
        sample::{RawSample, RawStack},
        who::Location,
    };

    /// Odd processes are in a pod, which is named once it is told.
    #[derive(Default)]
    struct Facts {
        told: Cell<bool>,
        asked: RefCell<Vec<Str>>,
    }

    impl Describe for Facts {
        fn process(&self, sample: &RawSample, comm: &str) -> Arc<ProcessIdentity> {
            let pid = sample.pid;
            let pod = if pid % 2 == 1 { format!("pod-{pid}") } else { String::new() };
            let cgroup = Arc::new(Cgroup { pod: pod.into(), ..Cgroup::default() });
            let (name, path, service) = (comm.into(), Str::default(), Str::default());
            let (named, located) = (true, true);
            Arc::new(ProcessIdentity { pid, generation: 1, name, path, cgroup, service, named, located })
        }

        fn location(&self, cgroup: &Cgroup) -> Arc<Location> {
            self.asked.borrow_mut().push(cgroup.pod.clone());
            let awaited = !cgroup.pod.is_empty() && !self.told.get();
            let name = if cgroup.pod.is_empty() || awaited {
                Vec::new()
            } else {
                vec![("k8s.pod.name".into(), cgroup.pod.clone())]
            };
            Arc::new(Location { attributes: name, awaited, untold: awaited, ..Location::default() })
        }

        fn executable(&self, _number: u32) -> Option<Arc<Mapping>> {
            None
        }

        fn kernel_frame(&self, address: u64) -> Frame {
            Frame { kind: FrameKind(FrameKind::KERNEL.into()), mapping: None, address, lines: Vec::new() }
        }
    }

    fn sample(pid: u32, frame: u64) -> RawSample {
        RawSample {
            time: 1,
            pid,
            tid: pid,
            cpu: 0,
            cgroup: 0,
            comm: *b"name\0garbage\0\0\0\0",
            kernel_thread: false,
            completeness: Completeness::Complete,
            period: 10,
            stack: Arc::new(RawStack { kernel: vec![frame], user: vec![] }),
            late: false,
            copy: None,
        }
    }

    fn pods(batch: &Batch) -> Vec<Option<&str>> {
        let mut pods: Vec<_> = batch.resources.iter().map(|r| r.get("k8s.pod.name").map(AsRef::as_ref)).collect();
        pods.sort_unstable();
        pods
    }

    fn lanes() -> Lanes {
        Lanes::new(Aggregate::new("n", "00"))
    }

    #[test]
    fn those_that_wait_go_under_the_names_of_later() {
        let facts = Facts::default();
        let mut lanes = lanes();
        for pid in [1, 2, 3, 3] {
            assert!(lanes.add(&sample(pid, 1), &facts).is_empty());
        }
        assert_eq!((lanes.samples(), lanes.samples_waiting), (1, 3));
        assert!(lanes.release_waited(&facts, WAIT).is_empty());
        let ready = lanes.seal(&facts).unwrap();
        assert_eq!((ready.samples(), pods(&ready)), (1, vec![None]), "the others are not named, and there is time");
        facts.told.set(true);
        assert!(lanes.release_waited(&facts, WAIT).is_empty());
        let waited = lanes.seal(&facts).unwrap();
        assert_eq!((waited.samples(), pods(&waited)), (3, vec![Some("pod-1"), Some("pod-3")]));
        assert_eq!((lanes.samples_waiting, lanes.waiting.len()), (0, 0));
        lanes.add(&sample(3, 1), &facts);
        assert_eq!((lanes.samples(), lanes.samples_waiting), (1, 0), "it is known by now");
        assert_eq!((lanes.waited().samples.load(Relaxed), lanes.waited().given_up.load(Relaxed)), (3, 0));
    }

    /// The time of one that is never named is not that of another.
    #[test]
    fn each_container_has_its_time() {
        let facts = Facts::default();
        let mut lanes = lanes();
        lanes.add(&sample(1, 1), &facts);
        std::thread::sleep(Duration::from_millis(100));
        lanes.add(&sample(3, 1), &facts);
        lanes.release_waited(&facts, Duration::from_millis(100));
        assert_eq!((lanes.samples(), lanes.samples_waiting), (1, 1));
        facts.told.set(true);
        lanes.release_waited(&facts, WAIT);
        assert_eq!((lanes.samples(), lanes.waited().given_up.load(Relaxed)), (2, 1));
    }

    #[test]
    fn nobody_waits_twice_in_vain() {
        let facts = Facts::default();
        let mut lanes = lanes();
        lanes.add(&sample(1, 1), &facts);
        lanes.release_waited(&facts, Duration::ZERO);
        assert_eq!(pods(&lanes.seal(&facts).unwrap()), [None]);
        lanes.add(&sample(1, 1), &facts);
        assert_eq!((lanes.samples(), lanes.samples_waiting), (1, 0));
        // It is named all the same when it can be.
        facts.told.set(true);
        assert_eq!(pods(&lanes.seal(&facts).unwrap()), [Some("pod-1")]);
        assert_eq!(lanes.waited().given_up.load(Relaxed), 1);
        facts.told.set(false);
        for pid in 0..=MAX_GIVEN_UP as u32 {
            lanes.add(&sample(2 * pid + 3, 1), &facts);
        }
        lanes.release_waited(&facts, Duration::ZERO);
        assert!(lanes.given_up.len() <= MAX_GIVEN_UP);
        assert_eq!(lanes.samples_waiting, 0);
    }

    #[test]
    fn when_too_much_waits_the_oldest_goes_on_unnamed() {
        let facts = Facts::default();
        let mut lanes = lanes();
        lanes.add(&sample(3, 1), &facts);
        for number in 0..MAX_WAITING as u64 {
            assert!(lanes.add(&sample(1, number), &facts).is_empty());
        }
        assert_eq!((lanes.samples_waiting, lanes.samples()), (MAX_WAITING, 1));
        lanes.add(&sample(1, 1), &facts);
        // From there on that pod is not waited for.
        lanes.add(&sample(1, 1), &facts);
        assert_eq!((lanes.samples_waiting, lanes.samples()), (0, MAX_WAITING as u64 + 3));
        let batch = lanes.seal(&facts).unwrap();
        assert_eq!((batch.samples(), pods(&batch)), (MAX_WAITING as u64 + 3, vec![None, None]));
    }
}
