//! Every sample is stored, dropped for a reason, or in flight: the server's books add up
//! after each request, whatever happens to the server, the agent or the wire between them.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod common;

use std::{fs, time::Duration};

use common::{Mood, TestAgent, TestServer, config};
use everflame_agent::{
    export::{Authorization, Credentials, Destination, ExportConfig, Exporter, Secret, SpoolLimits},
    ledger::{About, Ledger, MAX_PREDECESSORS},
};
use tonic::Code;

const LONG: Duration = Duration::from_secs(30);

fn flight(server: &TestServer, instance: &str) -> u64 {
    server.books(|b| b.reports[instance].in_flight.values().sum())
}

fn dropped(server: &TestServer, instance: &str, reason: &str) -> u64 {
    server.books(|b| b.reports[instance].dropped.get(reason).copied().unwrap_or(0))
}

fn stored(server: &TestServer, instance: &str) -> u64 {
    server.books(|b| b.stored.get(instance).copied().unwrap_or(0))
}

#[test]
fn a_quiet_day() {
    let (server, spool) = (TestServer::start(), tempfile::tempdir().unwrap());
    let mut agent = TestAgent::start(config(server.address, spool.path()), &[]);
    for _ in 0..20 {
        agent.sample(11);
    }
    agent.take(5);
    agent.consume(2);
    server.until("a report with samples in flight", |b| {
        b.reports.get(&agent.instance).is_some_and(|r| r.in_flight["ring"] == 3 && r.in_flight["aggregate"] == 2)
    });
    agent.consume(3);
    agent.push(5);
    let stopped = agent.exporter.as_ref().unwrap().stop(LONG);
    assert!(stopped.delivered);
    assert_eq!((stored(&server, &agent.instance), flight(&server, &agent.instance)), (225, 0));
    assert_eq!(server.books(|b| b.duplicates), 0);
    let left: Vec<_> = fs::read_dir(spool.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"], "a delivered spool is empty");
}

#[test]
fn a_server_that_is_away_and_comes_back_twice() {
    let (mut server, spool) = (TestServer::start(), tempfile::tempdir().unwrap());
    server.vanish();
    let mut agent = TestAgent::start(config(server.address, spool.path()), &[]);
    let mut samples = 0;
    for _ in 0..2 {
        for size in [1, 10, 100] {
            agent.sample(size);
            samples += size;
        }
        server.appear();
        server.until("what was spooled", |b| b.stored.get(&agent.instance) == Some(&samples));
        server.vanish();
        agent.sample(7);
        samples += 7;
    }
    server.appear();
    assert!(agent.exporter.as_ref().unwrap().stop(LONG).delivered);
    assert_eq!((stored(&server, &agent.instance), flight(&server, &agent.instance)), (samples, 0));
    assert!(server.books(|b| b.reports[&agent.instance].dropped.is_empty()));
}

#[test]
fn a_lost_acknowledgement_counts_once() {
    let (mut server, spool) = (TestServer::start(), tempfile::tempdir().unwrap());
    let mut agent = TestAgent::start(config(server.address, spool.path()), &[]);
    server.until("the first report", |b| b.requests > 0);
    server.mood(Mood::StoresAndHangs);
    agent.sample(10);
    server.until("the batch", |b| b.stored.get(&agent.instance) == Some(&10));
    agent.sample(5);
    server.vanish();
    server.mood(Mood::StoresAndFails);
    server.appear();
    server.until("the batch again", |b| b.duplicates >= 10);
    server.mood(Mood::Stores);
    assert!(agent.exporter.as_ref().unwrap().stop(LONG).delivered);
    assert_eq!((stored(&server, &agent.instance), flight(&server, &agent.instance)), (15, 0));
}

#[test]
fn refusals() {
    let (server, spool) = (TestServer::start(), tempfile::tempdir().unwrap());
    let mut agent = TestAgent::start(config(server.address, spool.path()), &[]);
    // What can be mended is waited for.
    for code in [Code::Unavailable, Code::Unauthenticated, Code::PermissionDenied, Code::Unimplemented, Code::Internal]
    {
        server.mood(Mood::Refuses(code));
        let before = agent.exporter.as_ref().unwrap().counters().retries.load(std::sync::atomic::Ordering::SeqCst);
        agent.sample(10);
        wait(|| agent.exporter.as_ref().unwrap().counters().retries.load(std::sync::atomic::Ordering::SeqCst) > before);
        server.mood(Mood::Stores);
    }
    server.until("all of them", |b| b.stored.get(&agent.instance) == Some(&50));
    // What cannot is dropped and counted.
    for code in [Code::InvalidArgument, Code::ResourceExhausted] {
        server.mood(Mood::Refuses(code));
        let before = agent.exporter.as_ref().unwrap().counters().refused.load(std::sync::atomic::Ordering::SeqCst);
        agent.sample(10);
        wait(|| agent.exporter.as_ref().unwrap().spool().batches == 0);
        assert!(agent.exporter.as_ref().unwrap().counters().refused.load(std::sync::atomic::Ordering::SeqCst) > before);
        server.mood(Mood::Stores);
    }
    assert!(agent.exporter.as_ref().unwrap().stop(LONG).delivered);
    assert_eq!((stored(&server, &agent.instance), dropped(&server, &agent.instance, "refused")), (50, 20));
    assert_eq!(flight(&server, &agent.instance), 0);
}

fn wait(mut so: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + LONG;
    while !so() {
        assert!(std::time::Instant::now() < end, "not seen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn killed_with_samples_in_every_stage() {
    let (mut server, spool) = (TestServer::start(), tempfile::tempdir().unwrap());
    let mut first = TestAgent::start(config(server.address, spool.path()), &[]);
    first.sample(100);
    server.until("the first batch", |b| b.stored.get(&first.instance) == Some(&100));
    server.vanish();
    first.sample(20);
    first.sample(30);
    first.take(9);
    first.consume(4);
    first.kill();
    server.appear();
    let mut second = TestAgent::start(config(server.address, spool.path()), &[&first]);
    second.sample(8);
    server.until("what the dead left", |b| b.stored.get(&first.instance) == Some(&150));
    second.kernel.ring_full.fetch_add(2, std::sync::atomic::Ordering::SeqCst);
    wait(|| second.ledger.take_closed() == [first.instance.clone()]);
    assert_eq!(dropped(&server, &first.instance, "agent_died"), 9, "5 in the ring, 4 in the aggregate");
    assert_eq!(flight(&server, &first.instance), 0);
    assert!(second.exporter.as_ref().unwrap().stop(LONG).delivered);
    assert_eq!(stored(&server, &second.instance), 8);
    assert_eq!(dropped(&server, &second.instance, "ring_full"), 2);
}

#[test]
fn killed_again_and_again_while_the_server_is_away() {
    let (mut server, spool) = (TestServer::start(), tempfile::tempdir().unwrap());
    server.vanish();
    let mut agents: Vec<TestAgent> = Vec::new();
    for round in 0..4u64 {
        let dead: Vec<&TestAgent> = agents.iter().collect();
        let mut agent = TestAgent::start(config(server.address, spool.path()), &dead);
        agent.sample(10 + round);
        agent.sample(20 + round);
        agent.take(3);
        agent.kill();
        agents.push(agent);
    }
    server.appear();
    let dead: Vec<&TestAgent> = agents.iter().collect();
    let last = TestAgent::start(config(server.address, spool.path()), &dead);
    assert!(last.exporter.as_ref().unwrap().stop(LONG).delivered);
    for (round, agent) in (0u64..).zip(&agents) {
        assert_eq!(stored(&server, &agent.instance), 30 + 2 * round);
        assert_eq!(dropped(&server, &agent.instance, "agent_died"), 3);
        assert_eq!(flight(&server, &agent.instance), 0);
    }
    server.books(|b| b.check());
}

#[test]
fn killed_between_storing_and_its_acknowledgement() {
    let (mut server, spool) = (TestServer::start(), tempfile::tempdir().unwrap());
    let mut first = TestAgent::start(config(server.address, spool.path()), &[]);
    server.until("the first report", |b| b.requests > 0);
    server.mood(Mood::StoresAndHangs);
    first.sample(40);
    server.until("the batch", |b| b.stored.get(&first.instance) == Some(&40));
    first.kill();
    server.vanish();
    server.mood(Mood::Stores);
    server.appear();
    let second = TestAgent::start(config(server.address, spool.path()), &[&first]);
    wait(|| second.ledger.take_closed() == [first.instance.clone()]);
    assert_eq!((stored(&server, &first.instance), flight(&server, &first.instance)), (40, 0));
    assert_eq!((server.books(|b| b.duplicates), dropped(&server, &first.instance, "agent_died")), (40, 0));
}

#[test]
fn after_a_reboot_the_account_beside_the_spool_is_used() {
    let (mut server, spool) = (TestServer::start(), tempfile::tempdir().unwrap());
    let mut first = TestAgent::start(config(server.address, spool.path()), &[]);
    first.sample(100);
    server.until("the first batch", |b| b.stored.get(&first.instance) == Some(&100));
    server.vanish();
    first.take(6);
    first.sample(20);
    first.kill();
    server.appear();
    // Neither region nor kernel counters are left.
    let second = TestAgent::start(config(server.address, spool.path()), &[]);
    wait(|| second.ledger.take_closed() == [first.instance.clone()]);
    assert_eq!((stored(&server, &first.instance), flight(&server, &first.instance)), (120, 0));
    assert_eq!(dropped(&server, &first.instance, "agent_died"), 6);
    server.books(|b| b.check());
}

#[test]
fn a_full_spool_drops_its_oldest_but_one() {
    let (mut server, spool) = (TestServer::start(), tempfile::tempdir().unwrap());
    server.vanish();
    let mut full = config(server.address, spool.path());
    full.limits = SpoolLimits { disk_bytes: 4000, memory_bytes: 1000 };
    let mut agent = TestAgent::start(full, &[]);
    for _ in 0..100 {
        agent.sample(20);
    }
    let usage = agent.exporter.as_ref().unwrap().spool();
    assert!(usage.disk_bytes <= 4000 && usage.memory_bytes == 0 && !usage.disk_failing, "{usage:?}");
    let on_disk: u64 = fs::read_dir(spool.path())
        .unwrap()
        .map(|f| f.unwrap())
        .filter(|f| f.file_name().to_string_lossy().ends_with(".batch"))
        .map(|f| f.metadata().unwrap().len())
        .sum();
    assert_eq!(on_disk, usage.disk_bytes);
    server.appear();
    assert!(agent.exporter.as_ref().unwrap().stop(LONG).delivered);
    let kept = usage.batches as u64 * 20;
    assert_eq!(stored(&server, &agent.instance), kept);
    assert_eq!(dropped(&server, &agent.instance, "spool_full"), 2000 - kept);
    assert_eq!(flight(&server, &agent.instance), 0);
}

#[test]
fn a_directory_that_cannot_be_written_is_replaced_by_memory() {
    let (mut server, spool) = (TestServer::start(), tempfile::tempdir().unwrap());
    server.vanish();
    // A file in the place of the directory: not even root can write into it.
    let path = spool.path().join("spool");
    fs::write(&path, "in the way").unwrap();
    let mut blocked = config(server.address, &path);
    blocked.limits = SpoolLimits { disk_bytes: 1 << 20, memory_bytes: 2000 };
    let mut agent = TestAgent::start(blocked, &[]);
    for _ in 0..30 {
        agent.sample(20);
    }
    let usage = agent.exporter.as_ref().unwrap().spool();
    assert!(usage.disk_failing && usage.disk_bytes == 0 && usage.memory_bytes <= 2000, "{usage:?}");
    // It is used as soon as it can be.
    fs::remove_file(&path).unwrap();
    agent.sample(20);
    assert!(!agent.exporter.as_ref().unwrap().spool().disk_failing);
    server.appear();
    assert!(agent.exporter.as_ref().unwrap().stop(LONG).delivered);
    let kept = (usage.batches as u64 + 1) * 20;
    assert_eq!(stored(&server, &agent.instance), kept);
    assert_eq!(dropped(&server, &agent.instance, "spool_full"), 31 * 20 - kept);
}

#[test]
fn torn_files_are_set_aside_and_counted_alone() {
    let (mut server, spool) = (TestServer::start(), tempfile::tempdir().unwrap());
    server.vanish();
    let mut first = TestAgent::start(config(server.address, spool.path()), &[]);
    for size in [10, 20, 30, 40] {
        first.sample(size);
    }
    first.kill();
    let mut files: Vec<_> = fs::read_dir(spool.path()).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "batch"));
    files.sort();
    let whole = fs::read(&files[1]).unwrap();
    fs::write(&files[1], &whole[..whole.len() / 2]).unwrap();
    fs::write(&files[2], b"").unwrap();
    fs::write(spool.path().join("something else.batch"), b"not ours").unwrap();
    server.appear();
    let second = TestAgent::start(config(server.address, spool.path()), &[&first]);
    assert!(second.exporter.as_ref().unwrap().stop(LONG).delivered);
    assert_eq!(stored(&server, &first.instance), 50);
    assert_eq!(dropped(&server, &first.instance, "spool_unreadable"), 50);
    assert_eq!(flight(&server, &first.instance), 0);
    let aside = fs::read_dir(spool.path())
        .unwrap()
        .filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == "unreadable"));
    assert_eq!(aside.count(), 2);
}

#[test]
fn two_agents_do_not_share_a_spool() {
    let (server, spool) = (TestServer::start(), tempfile::tempdir().unwrap());
    let _first = TestAgent::start(config(server.address, spool.path()), &[]);
    let kernel = common::KernelHandle(Default::default());
    let ledger = Ledger::new(common::about(), common::region(), Box::new(kernel)).unwrap();
    let second = Exporter::start(config(server.address, spool.path()), ledger.into());
    assert!(second.unwrap_err().to_string().contains("in use by another agent"));
}

#[test]
fn a_stop_without_a_server_is_bounded_and_loses_nothing() {
    let (mut server, spool) = (TestServer::start(), tempfile::tempdir().unwrap());
    server.vanish();
    let mut first = TestAgent::start(config(server.address, spool.path()), &[]);
    first.sample(10);
    let stopped = first.exporter.as_ref().unwrap().stop(Duration::from_millis(300));
    assert_eq!((stopped.delivered, stopped.left), (false, 1));
    first.kill();
    server.appear();
    let second = TestAgent::start(config(server.address, spool.path()), &[]);
    wait(|| second.ledger.take_closed() == [first.instance.clone()]);
    assert_eq!((stored(&server, &first.instance), flight(&server, &first.instance)), (10, 0));
    assert_eq!(server.books(|b| b.reports[&first.instance].dropped.clone()), Default::default());
}

#[test]
fn the_token_goes_with_every_request() {
    let (server, spool) = (TestServer::start(), tempfile::tempdir().unwrap());
    let token = spool.path().join("token");
    fs::write(&token, "one").unwrap();
    let credentials =
        Credentials { authorization: Some(Authorization::Bearer(Secret::File(token.clone()))), headers: vec![] };
    let destination = Destination { credentials, ..common::destination(server.address) };
    let with_token = ExportConfig { destination, ..config(server.address, &spool.path().join("spool")) };
    let agent = TestAgent::start(with_token, &[]);
    server.until("the first token", |b| b.headers.last().is_some_and(|h| h == "Bearer one"));
    fs::write(&token, "two").unwrap();
    server.until("the second token", |b| b.headers.last().is_some_and(|h| h == "Bearer two"));
    drop(agent);
}

#[test]
fn a_bad_region_or_name_is_refused() {
    let kernel = || Box::new(common::KernelHandle(Default::default()));
    assert!(Ledger::new(About::default(), common::region(), kernel()).is_err());
    let region = common::region();
    assert!(Ledger::new(common::about(), &region[..10], kernel()).is_err());
    let first = Ledger::new(common::about(), region, kernel()).unwrap();
    assert!(Ledger::new(common::about(), region, kernel()).is_err(), "in use");
    assert!(first.succeed(About::default(), common::region(), kernel()).is_err(), "nothing in it");
}

#[test]
fn accounts_of_a_crash_loop_do_not_pile_up() {
    let (mut server, spool) = (TestServer::start(), tempfile::tempdir().unwrap());
    server.vanish();
    let accounts = || {
        let files = fs::read_dir(spool.path()).unwrap().map(|f| f.unwrap().path());
        files.filter(|f| f.extension().is_some_and(|e| e == "account")).count()
    };
    for _ in 0..MAX_PREDECESSORS + 10 {
        let mut agent = TestAgent::start(config(server.address, spool.path()), &[]);
        agent.take(1);
        agent.kill();
    }
    assert!(accounts() <= MAX_PREDECESSORS + 1, "{}", accounts());
    fs::write(spool.path().join("broken.account"), "{").unwrap();
    server.appear();
    let last = TestAgent::start(config(server.address, spool.path()), &[]);
    assert!(last.exporter.as_ref().unwrap().stop(LONG).delivered);
    assert_eq!(accounts(), 0);
    server.books(|b| b.check());
}
