//! Two exporters beside each other: each server's books add up after each request, and what happens to
//! one server delays and loses nothing of the other.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod common;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use common::{Kernel, KernelHandle, Mood, TestServer};
use everflame_agent::{
    export::{ExportConfig, Exporter, Exporters, MAX_EXPORTERS, SpoolLimits, remove_abandoned},
    ledger::{About, Ledger, REGION_WORDS, exporter_key, left_by, of_place},
    status::Metrics,
};
use tonic::Code;

const LONG: Duration = Duration::from_secs(30);
const NAMES: [&str; 2] = ["main", "second"];

/// An agent with two exporters and without its kernel side.
struct Pair {
    instance: String,
    kernel: Arc<Kernel>,
    memory: &'static [AtomicU64],
    exporters: Option<Exporters>,
    sequence: u64,
}

impl Pair {
    /// `which` of the servers it has exporters to, in this order.
    fn start(servers: [&TestServer; 2], which: &[usize], spool: &Path, disk_bytes: u64, dead: &[&Pair]) -> Self {
        let memory: &[AtomicU64] = Vec::leak((0..REGION_WORDS * MAX_EXPORTERS).map(|_| AtomicU64::new(0)).collect());
        let (kernel, about) = (Arc::new(Kernel::default()), common::about());
        let all = which.iter().enumerate().map(|(place, &server)| {
            let key = exporter_key((server > 0).then_some(NAMES[server]));
            let region = of_place(memory, place, key);
            let ledger = Arc::new(Ledger::new(about.clone(), region, Box::new(KernelHandle(kernel.clone()))).unwrap());
            for dead in dead {
                if let Some(region) = left_by(dead.memory, key) {
                    let kernel = Box::new(KernelHandle(dead.kernel.clone()));
                    ledger.succeed(About { node: "n1".into(), ..About::default() }, region, kernel).unwrap();
                }
            }
            let mut config = ExportConfig {
                limits: SpoolLimits { disk_bytes, memory_bytes: 1 << 20 },
                ..common::config(servers[server].address, &spool.join(NAMES[server]))
            };
            config.destination.name = NAMES[server].into();
            Exporter::start(config, ledger).unwrap()
        });
        let exporters = Exporters::new(all.collect(), dead.iter().map(|dead| dead.instance.clone()));
        Self { instance: about.instance, kernel, memory, exporters: Some(exporters), sequence: 0 }
    }

    fn exporters(&self) -> &Exporters {
        self.exporters.as_ref().unwrap()
    }

    fn sample(&mut self, samples: u64) {
        self.kernel.ring.fetch_add(samples, SeqCst);
        self.exporters().consumed(samples);
        self.sequence += 1;
        self.exporters().push(&common::batch(&self.instance, self.sequence, samples));
    }

    /// What a kill leaves: the memory, the kernel's counters, the spools.
    fn kill(&mut self) {
        drop(self.exporters.take());
    }

    fn batches(&self) -> Vec<usize> {
        self.exporters().iter().map(|exporter| exporter.spool().batches).collect()
    }
}

/// Stored, in flight, and dropped by the reasons, as of the last report.
fn account(server: &TestServer, instance: &str) -> (u64, u64, Vec<(String, u64)>) {
    server.books(|b| {
        let report = &b.reports[instance];
        let dropped = report.dropped.clone().into_iter().collect();
        (b.stored.get(instance).copied().unwrap_or(0), report.in_flight.values().sum(), dropped)
    })
}

fn wait(mut so: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !so() {
        assert!(Instant::now() < end, "not seen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn one_that_is_away_or_refuses_costs_the_other_nothing() {
    let (first, mut second, spool) = (TestServer::start(), TestServer::start(), tempfile::tempdir().unwrap());
    second.vanish();
    let mut agent = Pair::start([&first, &second], &[0, 1], spool.path(), 64 << 20, &[]);
    for _ in 0..20 {
        agent.sample(10);
    }
    first.until("all that was sampled", |b| b.stored.get(&agent.instance) == Some(&200));
    wait(|| agent.batches() == [0, 20]);
    // It comes back but does not let us in; the other does not notice.
    second.mood(Mood::Refuses(Code::Unauthenticated));
    second.appear();
    agent.sample(7);
    first.until("the batch after", |b| b.stored.get(&agent.instance) == Some(&207));
    wait(|| agent.exporters().iter().nth(1).unwrap().failure().is_some_and(|why| why.contains("401")));
    assert!(agent.exporters().ready().is_ok());
    second.mood(Mood::Stores);
    second.until("all of it", |b| b.stored.get(&agent.instance) == Some(&207));
    assert!(agent.exporters().stop(LONG).delivered);
    for server in [&first, &second] {
        assert_eq!(account(server, &agent.instance), (207, 0, vec![]));
    }
}

#[test]
fn a_full_spool_is_in_its_own_account_alone() {
    let (first, mut second, spool) = (TestServer::start(), TestServer::start(), tempfile::tempdir().unwrap());
    second.vanish();
    let mut agent = Pair::start([&first, &second], &[0, 1], spool.path(), 4096, &[]);
    for _ in 0..100 {
        agent.sample(10);
        // As fast as it is taken: only the second is to overflow.
        let sampled = agent.kernel.ring.load(SeqCst);
        first.until("the batch", |b| b.stored.get(&agent.instance) == Some(&sampled));
    }
    let disk: Vec<u64> = agent.exporters().iter().map(|exporter| exporter.spool().disk_bytes).collect();
    assert!(disk[0] <= 4096 && (1..=4096).contains(&disk[1]), "{disk:?}");
    second.appear();
    assert!(agent.exporters().stop(LONG).delivered);
    assert_eq!(account(&first, &agent.instance), (1000, 0, vec![]));
    let (stored, in_flight, dropped) = account(&second, &agent.instance);
    assert_eq!((in_flight, dropped), (0, vec![("spool_full".to_owned(), 1000 - stored)]));
    assert!(stored > 0 && stored < 1000, "{stored}");
}

#[test]
fn killed_with_both_spools_half_full() {
    let (mut first, mut second, spool) = (TestServer::start(), TestServer::start(), tempfile::tempdir().unwrap());
    let mut dead = Pair::start([&first, &second], &[0, 1], spool.path(), 64 << 20, &[]);
    dead.sample(100);
    for server in [&first, &second] {
        server.until("the first batch", |b| b.stored.get(&dead.instance) == Some(&100));
    }
    first.vanish();
    dead.sample(20);
    second.vanish();
    dead.sample(30);
    dead.kernel.ring.fetch_add(9, SeqCst);
    dead.exporters().consumed(4);
    dead.kill();
    // Its successor finds the second server there, and the first one later.
    second.appear();
    let mut agent = Pair::start([&first, &second], &[0, 1], spool.path(), 64 << 20, &[&dead]);
    agent.sample(8);
    second.until("what the dead left", |b| b.stored.get(&dead.instance) == Some(&150));
    wait(|| agent.exporters().iter().nth(1).unwrap().ledger().predecessors().is_empty());
    assert_eq!(agent.exporters().take_closed(), Vec::<String>::new(), "the other account is open");
    first.appear();
    let mut closed = Vec::new();
    wait(|| {
        closed.extend(agent.exporters().take_closed());
        !closed.is_empty()
    });
    assert_eq!(closed, [dead.instance.clone()], "both are closed, told once");
    assert!(agent.exporters().stop(LONG).delivered);
    for server in [&first, &second] {
        assert_eq!(account(server, &dead.instance), (150, 0, vec![("agent_died".to_owned(), 9)]));
        assert_eq!(account(server, &agent.instance), (8, 0, vec![]));
    }
}

#[test]
fn exporters_come_and_go_between_runs() {
    let (mut first, mut second, spool) = (TestServer::start(), TestServer::start(), tempfile::tempdir().unwrap());
    first.vanish();
    second.vanish();
    // One alone, then both in another order of places, then the main one alone again.
    let mut one = Pair::start([&first, &second], &[1], spool.path(), 64 << 20, &[]);
    one.sample(10);
    one.kill();
    let mut two = Pair::start([&first, &second], &[0, 1], spool.path(), 64 << 20, &[&one]);
    two.sample(20);
    assert_eq!(two.batches(), [1, 2], "what the first left is the second exporter's");
    two.kill();
    first.appear();
    second.appear();
    let last = Pair::start([&first, &second], &[0], spool.path(), 64 << 20, &[&one, &two]);
    let mut closed = BTreeSet::new();
    wait(|| {
        closed.extend(last.exporters().take_closed());
        closed.len() == 2
    });
    assert!(last.exporters().stop(LONG).delivered);
    assert_eq!(account(&first, &two.instance), (20, 0, vec![]));
    assert!(first.books(|b| !b.reports.contains_key(&one.instance)), "it had no exporter to the first");
    assert_eq!(second.books(|b| b.requests), 0);
}

#[test]
fn a_spool_that_nobody_empties_any_more_is_removed() {
    let spool = tempfile::tempdir().unwrap();
    let batches = spool.path().join("also/gone%3A4317");
    std::fs::create_dir_all(&batches).unwrap();
    std::fs::write(batches.join("0123456789abcdef0123456789abcdef-0000000000000001-5.batch"), "x").unwrap();
    let mut kept = common::destination("127.0.0.1:4317".parse().unwrap());
    kept.name = "kept:4317".into();
    std::fs::create_dir_all(spool.path().join("also/kept%3A4317")).unwrap();
    remove_abandoned(spool.path(), &[kept]);
    let left: Vec<_> = std::fs::read_dir(spool.path().join("also")).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(left, ["kept%3A4317"]);
    remove_abandoned(&spool.path().join("none"), &[]);
}

#[test]
fn metrics_name_the_exporter() {
    let (first, mut second, spool) = (TestServer::start(), TestServer::start(), tempfile::tempdir().unwrap());
    second.vanish();
    let mut agent = Pair::start([&first, &second], &[0, 1], spool.path(), 64 << 20, &[]);
    agent.sample(10);
    first.until("the batch", |b| b.stored.get(&agent.instance) == Some(&10));
    wait(|| agent.batches() == [0, 1]);
    wait(|| agent.exporters().iter().nth(1).unwrap().failure().is_some());
    let mut metrics = Metrics::default();
    agent.exporters().metrics(&mut metrics);
    let text = metrics.into_text();
    let mut types: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
    let all = types.len();
    types.sort_unstable();
    types.dedup();
    assert_eq!(types.len(), all, "the figures of a name stand together: {text}");
    for line in [
        "samples_acknowledged_total{exporter=\"main\"} 10",
        "samples_acknowledged_total{exporter=\"second\"} 0",
        "spool_batches{exporter=\"main\"} 0",
        "spool_batches{exporter=\"second\"} 1",
        "server_failing{exporter=\"main\"} 0",
        "server_failing{exporter=\"second\"} 1",
        "samples_taken_total 10",
    ] {
        assert!(text.lines().any(|have| have == format!("everflame_agent_{line}")), "{line}: {text}");
    }
}
