//! What waits at the gate, what passes, and what is counted.

use std::cell::Cell;

use everflame_profile::{Completeness, ContentId, Frame, FrameKind, Mapping, Str};

use super::*;
use crate::{
    bpf::host::Registers,
    filter::Rules,
    sample::{RawStack, UserFrame, UserStack},
    who::Cgroup,
};

const WAIT: Duration = Duration::from_secs(10);

/// Processes by number: those above 100 are in a pod, whose namespace is `shop` once it is told.
#[derive(Default)]
struct Facts {
    told: Cell<bool>,
}

impl Describe for Facts {
    fn process(&self, sample: &RawSample, comm: &str) -> Arc<ProcessIdentity> {
        let pod = if sample.pid > 100 { "p1" } else { "" };
        let cgroup = Arc::new(Cgroup { pod: pod.into(), ..Cgroup::default() });
        let (name, path, service) = (Str::from(comm), Str::from("/bin/x"), Str::default());
        Arc::new(ProcessIdentity {
            pid: sample.pid,
            generation: 1,
            name,
            path,
            cgroup,
            service,
            named: true,
            located: true,
        })
    }

    fn location(&self, cgroup: &Cgroup) -> Arc<Location> {
        let untold = !cgroup.pod.is_empty() && !self.told.get();
        let namespace = if cgroup.pod.is_empty() || untold { None } else { Some("shop") };
        let attributes = namespace.map(|name| ("k8s.namespace.name".into(), name.into()));
        Arc::new(Location { attributes: attributes.into_iter().collect(), untold, ..Location::default() })
    }

    fn executable(&self, number: u32) -> Option<Arc<Mapping>> {
        let content_id = Some(ContentId(number.into()));
        Some(Arc::new(Mapping { name: "x".into(), build_id: "".into(), content_id }))
    }

    fn kernel_frame(&self, address: u64) -> Frame {
        Frame { kind: FrameKind(FrameKind::KERNEL.into()), mapping: None, address, lines: Vec::new() }
    }
}

fn sample(pid: u32) -> RawSample {
    let copy = UserStack { registers: Registers::default(), code: None, start: 0, bytes: Box::new([0; 64]) };
    RawSample {
        time: 1,
        pid,
        tid: pid,
        cpu: 0,
        cgroup: 0,
        comm: *b"cart\0garbage\0\0\0\0",
        kernel_thread: false,
        completeness: Completeness::Complete,
        period: 10,
        stack: Arc::new(RawStack { kernel: vec![1], user: vec![UserFrame(u64::from(pid + 1000) << 44 | 7)] }),
        late: false,
        copy: Some(Arc::new(copy)),
    }
}

fn gate(allow: &str, deny: &str) -> Gate {
    let filter = Filter { allow: Rules::parse(allow).unwrap(), deny: Rules::parse(deny).unwrap() };
    Gate::new(filter, Origin::new("n1", None))
}

fn pids(samples: &[RawSample]) -> Vec<u32> {
    samples.iter().map(|sample| sample.pid).collect()
}

#[test]
fn what_is_shut_out_is_counted_and_its_executables_are_not_cleared() {
    let facts = Facts::default();
    let mut gate = gate("", r#"{pid="2"}"#);
    let (passed, dropped) = gate.pass(vec![sample(1), sample(2), sample(2), sample(3)], &facts, WAIT);
    assert_eq!((pids(&passed), dropped), (vec![1, 3], 2));
    assert!(passed.iter().all(|sample| sample.copy.is_some()), "those that go on are as they were");
    let cleared = [1001, 1002, 1003].map(|number| gate.cleared().has(ContentId(number)));
    assert_eq!(cleared, [true, false, true]);
}

#[test]
fn what_nobody_can_judge_waits_and_is_judged_by_what_is_told() {
    for (deny, expected, dropped) in
        [(r#"{namespace="shop"}"#, vec![], 2), (r#"{namespace="bank"}"#, vec![101, 101], 0)]
    {
        let facts = Facts::default();
        let mut gate = gate("", deny);
        assert_eq!(pids(&gate.pass(vec![sample(1), sample(101)], &facts, WAIT).0), [1]);
        assert_eq!(gate.pass(vec![sample(101)], &facts, WAIT).1, 0);
        assert_eq!(gate.figures().held.load(Relaxed), 2);
        assert!(!gate.cleared().has(ContentId(1101)), "it may be shut out");
        facts.told.set(true);
        let (passed, gone) = gate.pass(Vec::new(), &facts, WAIT);
        assert_eq!((pids(&passed), gone), (expected, dropped));
        assert!(passed.iter().all(|sample| sample.copy.is_none()), "the copy was not kept");
        assert_eq!((gate.figures().held.load(Relaxed), gate.figures().unknown.load(Relaxed)), (0, 0));
    }
}

#[test]
fn what_nobody_tells_in_time_is_shut_out() {
    let facts = Facts::default();
    let mut gate = gate("", r#"{namespace="bank"}"#);
    gate.pass(vec![sample(101)], &facts, WAIT);
    let (passed, dropped) = gate.pass(vec![sample(1)], &facts, Duration::ZERO);
    assert_eq!((pids(&passed), dropped, gate.figures().unknown.load(Relaxed)), (vec![1], 1, 1));
}

#[test]
fn of_too_many_the_oldest_are_shut_out() {
    let facts = Facts::default();
    let mut gate = gate(r#"{namespace="shop"}"#, "");
    let many = (0..MAX_HELD as u32 + 3).map(|number| sample(101 + number)).collect();
    assert_eq!(gate.pass(many, &facts, WAIT).1, 3);
    assert_eq!(gate.figures().crowded.load(Relaxed), 3);
    assert!(gate.judged.len() <= MAX_JUDGED);
    facts.told.set(true);
    let (passed, dropped) = gate.pass(Vec::new(), &facts, WAIT);
    assert_eq!((passed.len(), passed[0].pid, dropped), (MAX_HELD, 104, 0));
}
