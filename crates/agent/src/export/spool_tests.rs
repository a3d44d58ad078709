//! Kills the agent before every single effect of a day's work and checks that its
//! successor's account adds up, with the ledger's memory and (as after a reboot) without.

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use everflame_profile::Report;

use super::{
    Packer,
    spool::{Spool, SpoolLimits},
};
use crate::ledger::{About, KernelCounters, KernelCounts, Ledger, REGION_WORDS, new_instance};

thread_local! {
    /// Effects until the kill; negative for none.
    static FUSE: Cell<i64> = const { Cell::new(-1) };
}

/// The text of the panic that stands for a kill.
const KILL: &str = "killed by the test";

pub(super) fn strike() {
    let left = FUSE.get();
    if left == 0 {
        // Not again while unwinding or in the successor.
        FUSE.set(-1);
        std::panic::resume_unwind(Box::new(KILL));
    }
    FUSE.set(left - 1);
}

#[derive(Clone, Default)]
struct Ring(Arc<AtomicU64>);

impl KernelCounters for Ring {
    fn snapshot(&self) -> KernelCounts {
        let ring = self.0.load(SeqCst);
        KernelCounts { taken: ring, ring, ..KernelCounts::default() }
    }
}

/// The server's books.
#[derive(Default)]
struct Books {
    seen: HashSet<(String, u64)>,
    stored: HashMap<String, u64>,
    reports: HashMap<String, Report>,
}

impl Books {
    fn take(&mut self, batch: Option<(&str, u64, u64)>, report: Report) {
        if let Some((instance, sequence, samples)) = batch
            && self.seen.insert((instance.to_string(), sequence))
        {
            *self.stored.entry(instance.to_string()).or_default() += samples;
        }
        let known = self.reports.get(&report.instance).map_or(0, |r| r.sequence);
        assert!(report.sequence > known, "reports go on");
        self.reports.insert(report.instance.clone(), report);
    }

    fn residual(&self, instance: &str) -> i64 {
        let Some(report) = self.reports.get(instance) else { return 0 };
        let gone = report.in_flight.values().chain(report.dropped.values()).sum::<u64>();
        report.taken as i64 - (gone + self.stored.get(instance).copied().unwrap_or(0)) as i64
    }
}

fn ledger(region: &'static [AtomicU64], ring: &Ring) -> Arc<Ledger> {
    let about = About { instance: new_instance().unwrap(), ..About::default() };
    Arc::new(Ledger::new(about, region, Box::new(ring.clone())).unwrap())
}

fn region() -> &'static [AtomicU64] {
    Vec::leak((0..REGION_WORDS).map(|_| AtomicU64::new(0)).collect())
}

fn open(directory: &Path, ledger: &Arc<Ledger>) -> Spool {
    // Room for a few of the batches below.
    let limits = SpoolLimits { disk_bytes: 500, memory_bytes: 1000 };
    Spool::open(directory, limits, ledger.clone()).unwrap()
}

fn sample(spool: &mut Spool, ledger: &Ledger, ring: &Ring, samples: u64) {
    ring.0.fetch_add(samples, SeqCst);
    strike();
    ledger.consumed(samples);
    strike();
    let packed = Packer::default().pack(format!("{samples} samples, some of them").as_bytes()).unwrap();
    spool.push(&packed, samples);
}

/// One request about the head, as the sender makes it.
fn send(spool: &mut Spool, ledger: &Ledger, books: &mut Books, answered: bool) {
    let Some(head) = spool.head() else { return };
    let (instance, samples) = (head.name.instance.clone(), head.name.samples);
    ledger.change(&instance, |f| {
        f.spool -= samples;
        f.sent += samples;
    });
    strike();
    if spool.packed(&head).is_err() {
        return spool.unreadable();
    }
    strike();
    let report = ledger.report_of(&instance, samples).unwrap();
    books.take(Some((&instance, head.name.sequence, samples)), report);
    assert_eq!(books.residual(&instance), 0);
    strike();
    if answered {
        spool.acknowledged();
    } else {
        ledger.change(&instance, |f| {
            f.sent -= samples;
            f.spool += samples;
        });
    }
}

/// Batches come, are acknowledged, come again, overflow, are refused and unreadable.
fn day(spool: &mut Spool, directory: &Path, ledger: &Ledger, ring: &Ring, books: &mut Books) {
    for samples in [10, 20, 30] {
        sample(spool, ledger, ring, samples);
    }
    send(spool, ledger, books, true);
    send(spool, ledger, books, false);
    for samples in [40, 50, 60, 70] {
        sample(spool, ledger, ring, samples);
    }
    send(spool, ledger, books, true);
    let head = spool.head().expect("more than two batches fit");
    std::fs::write(directory.join(head.name.file_name()), "torn").unwrap();
    send(spool, ledger, books, true);
    sample(spool, ledger, ring, 80);
    send(spool, ledger, books, true);
    ring.0.fetch_add(3, SeqCst);
    ledger.consumed(2);
}

/// A day that is cut short before its effect number `fuse`; `false` if it was not.
fn killed_day(fuse: i64, reboot: bool) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let (ring, memory, mut books) = (Ring::default(), region(), Books::default());
    let first = ledger(memory, &ring);
    let name = first.instance();
    let mut spool = open(directory.path(), &first);
    FUSE.set(fuse);
    let day = catch_unwind(AssertUnwindSafe(|| day(&mut spool, directory.path(), &first, &ring, &mut books)));
    FUSE.set(-1);
    if let Err(payload) = &day {
        assert_eq!(payload.downcast_ref(), Some(&KILL), "a panic that is no kill, at {fuse}");
    }
    drop(spool); // the kernel lets go of the lock
    drop(first);
    assert_eq!(books.residual(&name), 0);

    let second = ledger(region(), &Ring::default());
    if !reboot {
        second.succeed(About::default(), memory, Box::new(ring.clone())).unwrap();
    }
    let mut spool = open(directory.path(), &second);
    let known = second.report_of(&name, 0);
    if let Some(report) = known {
        books.take(None, report);
        if !reboot {
            assert_eq!(books.reports[&name].taken, ring.0.load(SeqCst));
        }
    }
    while spool.head().is_some() {
        send(&mut spool, &second, &mut books, true);
    }
    if let Some(report) = second.report_of(&name, 0) {
        books.take(None, report);
        assert_eq!(books.residual(&name), 0, "fuse {fuse}, reboot {reboot}: {:?}", books.reports[&name]);
        assert_eq!(books.reports[&name].in_flight.values().sum::<u64>(), 0);
    }
    day.is_err()
}

#[test]
fn a_kill_at_any_moment_leaves_an_account_that_adds_up() {
    let mut fuse = 0;
    while killed_day(fuse, false) {
        fuse += 1;
    }
    assert!(fuse > 80, "the day has many effects: {fuse}");
}

#[test]
fn a_reboot_at_any_moment_leaves_an_account_that_adds_up() {
    let mut fuse = 0;
    while killed_day(fuse, true) {
        fuse += 1;
    }
    assert!(fuse > 80, "the day has many effects: {fuse}");
}
