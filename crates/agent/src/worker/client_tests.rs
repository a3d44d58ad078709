//! A worker that is this test program again, and files that do their worst.

use std::{io::Write, time::Duration};

use super::*;
use crate::worker::protocol::{Facts, Wish, is_table};

/// The worker itself.
#[test]
fn worker_process() {
    if std::env::var_os("EVERFLAME_TEST_WORKER").is_some() {
        super::super::main();
    }
}

/// Starts this test program as the worker.
pub(crate) fn command() -> WorkerCommand {
    WorkerCommand {
        program: std::env::current_exe().unwrap(),
        arguments: ["worker::client::tests::worker_process", "--exact", "--test-threads=1"].map(Into::into).to_vec(),
        environment: vec![("EVERFLAME_TEST_WORKER".into(), "1".into())],
        memory: None,
        share: Share::Quick,
    }
}

fn worker(timeout: Duration) -> Worker {
    Worker::new(command(), timeout)
}

fn ask(worker: &mut Worker, bytes: &[u8], wish: Wish) -> Result<Vec<u8>, WorkerError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    worker.ask(&file, &Request { size: bytes.len() as u64, wish, name: "name".into() })
}

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn makes_facts_table_and_index_of_a_real_file() {
    let bytes = std::fs::read("/proc/self/exe").unwrap();
    let mut worker = worker(PATIENCE);
    let facts = Facts::from_bytes(&ask(&mut worker, &bytes, Wish::Facts).unwrap()).unwrap();
    let direct = everflame_symbols::inspect(&bytes).unwrap();
    assert_eq!((facts.content_id, facts.segments), (direct.content_id, direct.segments));
    assert!(is_table(&ask(&mut worker, &bytes, Wish::Table).unwrap()));
    let index = ask(&mut worker, &bytes, Wish::Index).unwrap();
    assert_eq!(everflame_symbols::Index::parse(index.as_slice()).unwrap().name(), "name");
}

#[test]
fn survives_whatever_a_file_does() {
    let mut worker = worker(PATIENCE);
    assert_eq!(ask(&mut worker, b"echo", Wish::Fault).unwrap(), b"echo");
    assert!(matches!(ask(&mut worker, b"", Wish::Facts), Err(WorkerError::Refused(_))));
    assert!(matches!(ask(&mut worker, b"\x7fELF garbage", Wish::Table), Err(WorkerError::Refused(_))));
    let Err(WorkerError::Refused(reason)) = ask(&mut worker, b"panic", Wish::Fault) else { panic!("not refused") };
    assert!(reason.contains("as asked"), "{reason}");
    assert_eq!(worker.starts(), 1, "none of it ended the worker");
    assert!(matches!(ask(&mut worker, b"abort", Wish::Fault), Err(WorkerError::Died(_))));
    assert_eq!(ask(&mut worker, b"echo", Wish::Fault).unwrap(), b"echo");
    assert!(matches!(ask(&mut worker, b"memory", Wish::Fault), Err(WorkerError::Died(_))), "memory has a limit");
    assert_eq!(ask(&mut worker, b"echo", Wish::Fault).unwrap(), b"echo");
    assert_eq!(worker.starts(), 3);
}

#[test]
fn a_file_that_is_cut_while_it_is_read_costs_a_worker_only() {
    let mut worker = worker(PATIENCE);
    let file = tempfile::tempfile().unwrap();
    file.set_len(8 << 20).unwrap();
    // The worker maps as much as there is, so one that shrinks before is just short.
    let request = Request { size: 16 << 20, wish: Wish::Fault, name: String::new() };
    assert_eq!(worker.ask(&file, &request).unwrap().len(), 8 << 20);
    let request = Request { size: u64::MAX, ..request };
    assert!(matches!(worker.ask(&file, &request), Err(WorkerError::Refused(_))));
}

#[test]
fn a_worker_that_hangs_is_ended() {
    let mut worker = worker(Duration::from_secs(2));
    assert!(matches!(ask(&mut worker, b"hang", Wish::Fault), Err(WorkerError::Timeout(_))));
    assert_eq!(ask(&mut worker, b"echo", Wish::Fault).unwrap(), b"echo");
    assert_eq!(worker.starts(), 2);
}

#[test]
fn a_worker_that_ended_between_two_files_did_not_end_over_the_second() {
    let mut worker = worker(PATIENCE);
    assert_eq!(ask(&mut worker, b"echo", Wish::Fault).unwrap(), b"echo");
    let child = &mut worker.running.as_mut().unwrap().child;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(ask(&mut worker, b"echo", Wish::Fault).unwrap(), b"echo");
    assert_eq!(worker.starts(), 2);
}

#[test]
fn it_has_no_rights() {
    let mut worker = worker(PATIENCE);
    let answer = ask(&mut worker, b"break out", Wish::Fault).unwrap();
    assert_eq!(String::from_utf8(answer).unwrap(), "open false run false write false connect false");
    let pid = worker.running.as_ref().unwrap().child.id();
    // The test program runs a test on a thread of its own, the last.
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let tid = threads.map(|t| t.unwrap().file_name().into_string().unwrap().parse::<u32>().unwrap()).max().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).unwrap();
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
    if field("Uid:").starts_with("65534") {
        assert_eq!(field("Uid:"), "65534\t65534\t65534\t65534");
        assert_eq!(field("Gid:"), "65534\t65534\t65534\t65534");
        assert_eq!(field("Groups:"), "");
    } else {
        eprintln!("SKIPPED in part: without root the worker keeps its user");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2", "its system calls are filtered");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    worker.rest();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).try_exists().unwrap(), "at rest there is none");
}

#[test]
fn no_worker_is_an_error_of_its_own() {
    let command = WorkerCommand { program: "/nonexistent".into(), ..Default::default() };
    let mut worker = Worker::new(command, PATIENCE);
    assert!(matches!(ask(&mut worker, b"x", Wish::Facts), Err(WorkerError::Start(_))));
}
