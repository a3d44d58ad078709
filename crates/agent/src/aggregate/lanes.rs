//! Samples whose pod is still to be told wait beside the others, for at most ten seconds. They
//! are counted as in the aggregate like all, and go on under the names that are known by then.

use std::{
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use everflame_profile::{Batch, Str};
use rustc_hash::FxHashSet;

use super::Aggregate;
use crate::{identity::Describe, sample::RawSample, who::Cgroup};

/// How long a sample waits for the name of its pod.
pub const WAIT: Duration = Duration::from_secs(10);
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

/// Two aggregates: one for samples that are known as well as they will be, one for the others.
#[derive(Debug)]
pub struct Lanes {
    ready: Aggregate,
    waiting: Aggregate,
    /// When the first of those that wait came.
    since: Option<Instant>,
    /// Containers that were waited for in vain: named as soon as they can be, but not waited for.
    given_up: FxHashSet<(Str, Str)>,
    waited: Arc<Waited>,
}

impl Lanes {
    /// `make` makes an empty aggregate.
    pub fn new(make: impl Fn() -> Aggregate) -> Self {
        let (ready, waiting) = (make(), make().beside());
        Self { ready, waiting, since: None, given_up: FxHashSet::default(), waited: Arc::default() }
    }

    /// What became of those that waited.
    pub fn waited(&self) -> &Arc<Waited> {
        &self.waited
    }

    /// Samples since the last seal, those that wait left out.
    pub fn samples(&self) -> u64 {
        self.ready.samples()
    }

    /// Samples that wait.
    pub fn waiting(&self) -> u64 {
        self.waiting.samples()
    }

    /// See [`Aggregate::look_at_clock`].
    pub fn look_at_clock(&mut self) {
        self.ready.look_at_clock();
        self.waiting.look_at_clock();
    }

    /// Adds one sample; hands over the batch that is full with it.
    pub fn add(&mut self, sample: &RawSample, describe: &dyn Describe) -> Option<Batch> {
        let name = self.ready.thread(sample);
        let process = describe.process(sample, &name);
        let cgroup = &process.cgroup;
        let awaited =
            !cgroup.pod.is_empty() && describe.location(cgroup).awaited && !self.given_up.contains(&key(cgroup));
        if !awaited {
            self.ready.add_of(sample, process, describe);
            return if self.ready.is_full() { self.ready.seal(describe) } else { None };
        }
        self.since.get_or_insert_with(Instant::now);
        self.waited.samples.fetch_add(1, Relaxed);
        self.waiting.add_of(sample, process, describe);
        if self.waiting.is_full() { self.seal_waiting(describe) } else { None }
    }

    /// Hands over those that need not wait.
    pub fn seal(&mut self, describe: &dyn Describe) -> Option<Batch> {
        self.ready.seal(describe)
    }

    /// Hands over those that waited, once all of them are named or the first has waited for `wait`.
    pub fn seal_waited(&mut self, describe: &dyn Describe, wait: Duration) -> Option<Batch> {
        let since = self.since?;
        let named = || self.waiting.processes().all(|process| !describe.location(&process.cgroup).awaited);
        if since.elapsed() < wait && !named() {
            return None;
        }
        self.seal_waiting(describe)
    }

    fn seal_waiting(&mut self, describe: &dyn Describe) -> Option<Batch> {
        self.since = None;
        let unnamed = self.waiting.processes().map(|process| &process.cgroup);
        let unnamed: FxHashSet<_> =
            unnamed.filter(|cgroup| describe.location(cgroup).awaited).map(|c| key(c)).collect();
        self.waited.given_up.fetch_add(unnamed.len() as u64, Relaxed);
        if self.given_up.len() + unnamed.len() > MAX_GIVEN_UP {
            self.given_up.clear();
        }
        self.given_up.extend(unnamed);
        self.waiting.seal(describe)
    }
}

fn key(cgroup: &Cgroup) -> (Str, Str) {
    (Str::clone(&cgroup.pod), Str::clone(&cgroup.container))
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use everflame_profile::{Completeness, Frame, FrameKind, Mapping};

    use super::*;
    use crate::{
        aggregate::MAX_STACKS,
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

    #[test]
    fn those_that_wait_go_under_the_names_of_later() {
        let facts = Facts::default();
        let mut lanes = Lanes::new(|| Aggregate::new("n", "00"));
        for pid in [1, 2, 3, 3] {
            assert!(lanes.add(&sample(pid, 1), &facts).is_none());
        }
        assert_eq!((lanes.samples(), lanes.waiting()), (1, 3));
        let ready = lanes.seal(&facts).unwrap();
        assert_eq!((ready.samples(), pods(&ready)), (1, vec![None]));
        assert!(lanes.seal_waited(&facts, WAIT).is_none(), "they are not named, and there is time");
        facts.told.set(true);
        let waited = lanes.seal_waited(&facts, WAIT).unwrap();
        assert_eq!((waited.samples(), pods(&waited)), (3, vec![Some("pod-1"), Some("pod-3")]));
        assert_ne!(ready.profiles[0].id, waited.profiles[0].id, "a server would take one for the other");
        assert_eq!((lanes.waiting(), lanes.seal_waited(&facts, Duration::ZERO)), (0, None));
        lanes.add(&sample(3, 1), &facts);
        assert_eq!((lanes.samples(), lanes.waiting()), (1, 0), "it is known by now");
        assert_eq!((lanes.waited().samples.load(Relaxed), lanes.waited().given_up.load(Relaxed)), (3, 0));
    }

    #[test]
    fn nobody_waits_twice_in_vain() {
        let facts = Facts::default();
        let mut lanes = Lanes::new(|| Aggregate::new("n", "00"));
        lanes.add(&sample(1, 1), &facts);
        let waited = lanes.seal_waited(&facts, Duration::ZERO).unwrap();
        assert_eq!(pods(&waited), [None]);
        lanes.add(&sample(1, 1), &facts);
        assert_eq!((lanes.samples(), lanes.waiting()), (1, 0));
        // It is named all the same when it can be.
        facts.told.set(true);
        assert_eq!(pods(&lanes.seal(&facts).unwrap()), [Some("pod-1")]);
        assert_eq!(lanes.waited().given_up.load(Relaxed), 1);
        facts.told.set(false);
        for pid in 0..=MAX_GIVEN_UP as u32 {
            lanes.add(&sample(2 * pid + 3, 1), &facts);
        }
        lanes.seal_waited(&facts, Duration::ZERO).unwrap();
        assert!(lanes.given_up.len() <= MAX_GIVEN_UP + 1);
    }

    #[test]
    fn when_too_much_waits_it_goes_on_unnamed() {
        let facts = Facts::default();
        let mut lanes = Lanes::new(|| Aggregate::new("n", "00"));
        let mut out = 0;
        for number in 0..MAX_STACKS as u64 + 10 {
            out += lanes.add(&sample(1, number), &facts).map_or(0, |batch| batch.samples());
        }
        // From there on the pod is not waited for.
        assert_eq!((out, lanes.waiting(), lanes.samples()), (MAX_STACKS as u64, 0, 10));
    }
}
