//! What a crash leaves: kill -9, torn tails, half-done steps between block, state
//! and log. Everything acknowledged is there exactly once.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use common::{all, id, now, options, simple, total};
use everflame_profile::{Batch, Report, Str};
use everflame_store::{Embedded, Options, Store, StoreError};

const CHILD_DIR: &str = "EVERFLAME_STORE_TEST_CHILD_DIR";
const CHILD_START: &str = "EVERFLAME_STORE_TEST_CHILD_START";

/// A batch that is known by its number: the thread's name, and how many samples.
fn numbered(number: u64) -> Batch {
    let mut batch = simple(Some(id(number)), now() - 1_000_000_000, number % 7 + 1);
    batch.profiles[0].samples[0].thread = Str::from(format!("t{number}"));
    batch
}

fn small_heads(dir: &Path) -> Options {
    // Small enough that blocks are written and merged while the child is killed.
    Options { head_rows: 200, ..options(dir) }
}

fn append(store: &Embedded, batch: &Batch) -> everflame_store::Appended {
    loop {
        match store.append(batch, None, now()) {
            Err(StoreError::Busy(_)) => std::thread::sleep(Duration::from_millis(2)),
            other => return other.unwrap(),
        }
    }
}

fn by_number(store: &Embedded) -> BTreeMap<u64, u64> {
    let (_, values) = store.label_values(&all(), "thread.name").unwrap();
    values.iter().map(|value| (value.value[1..].parse().unwrap(), value.samples)).collect()
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn only_segment(dir: &Path) -> std::path::PathBuf {
    let mut segments: Vec<_> = fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    segments.pop().unwrap()
}

/// Not a test of its own: the process that [`killed`] kills.
#[test]
fn child_appends_until_killed() {
    let (Ok(dir), Ok(start)) = (std::env::var(CHILD_DIR), std::env::var(CHILD_START)) else { return };
    let store = Embedded::open(small_heads(Path::new(&dir))).unwrap();
    let next = AtomicU64::new(start.parse().unwrap());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let appended = append(&store, &numbered(number));
                    assert_eq!(appended.stored, number % 7 + 1);
                    writeln!(std::io::stdout().lock(), "acknowledged {number}").unwrap();
                    if number.is_multiple_of(100) {
                        let _ = store.tend();
                    }
                }
            });
        }
    });
}

#[test]
fn killed_processes_lose_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    let mut start = 0;
    for round in 0..5_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child_appends_until_killed", "--exact", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .env(CHILD_START, start.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // After so many acknowledgements, in the midst of the next ones.
        let wanted = 150 + 90 * round as usize;
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        for line in lines {
            if let Some(number) = line.unwrap().strip_prefix("acknowledged ") {
                acknowledged.push(number.parse::<u64>().unwrap());
                seen += 1;
                if seen == wanted {
                    child.kill().unwrap();
                }
            }
        }
        assert!(seen >= wanted, "the child ended by itself: {:?}", child.wait());
        child.wait().unwrap();
        let store = Embedded::open(small_heads(dir.path())).unwrap();
        let stored = by_number(&store);
        for number in &acknowledged {
            assert_eq!(stored.get(number), Some(&(number % 7 + 1)), "round {round}, batch {number}");
        }
        // What was not acknowledged is there whole or not at all, and may come again.
        for (number, samples) in &stored {
            assert_eq!(*samples, number % 7 + 1, "round {round}, batch {number}");
        }
        start = acknowledged.iter().max().unwrap() + 100;
        for number in start - 100..start {
            append(&store, &numbered(number));
        }
        acknowledged.extend(start - 100..start);
        for number in acknowledged.iter().rev().take(50) {
            assert_eq!(append(&store, &numbered(*number)).stored, 0, "a duplicate");
        }
        let stored = by_number(&store);
        for number in &acknowledged {
            assert_eq!(stored.get(number), Some(&(number % 7 + 1)), "round {round}, batch {number}");
        }
    }
}

#[test]
fn a_torn_tail_is_cut_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(options(dir.path())).unwrap();
    let mut ends = vec![store.stats().wal_bytes];
    for number in 0..6 {
        append(&store, &numbered(number));
        ends.push(store.stats().wal_bytes);
    }
    drop(store);
    let whole = fs::read(only_segment(dir.path())).unwrap();
    assert_eq!(whole.len() as u64, *ends.last().unwrap());
    let cuts = (0..40).map(|step| ends[0] + (whole.len() as u64 - ends[0]) * step / 39);
    for cut in cuts {
        let image = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), image.path());
        fs::write(only_segment(image.path()), &whole[..cut as usize]).unwrap();
        let store = Embedded::open(options(image.path())).unwrap();
        let kept = ends.iter().filter(|end| **end <= cut).count() as u64 - 1;
        assert_eq!(by_number(&store).len() as u64, kept);
        assert_eq!(store.stats().torn_records, u64::from(!ends.contains(&cut)));
        // What was lost was not acknowledged; its sender sends it again.
        for number in 0..6 {
            append(&store, &numbered(number));
        }
        drop(store);
        let store = Embedded::open(options(image.path())).unwrap();
        assert_eq!(by_number(&store), (0..6).map(|number| (number, number % 7 + 1)).collect());
        assert_eq!(store.stats().torn_records, 0);
    }
}

#[test]
fn a_damaged_log_is_said_and_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(options(dir.path())).unwrap();
    let mut ends = vec![store.stats().wal_bytes as usize];
    for number in 0..4 {
        append(&store, &numbered(number));
        ends.push(store.stats().wal_bytes as usize);
    }
    drop(store);
    let whole = fs::read(only_segment(dir.path())).unwrap();
    for at in (0..whole.len()).step_by(7) {
        let image = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), image.path());
        let mut bytes = whole.clone();
        bytes[at] ^= 0x41;
        fs::write(only_segment(image.path()), bytes).unwrap();
        let store = Embedded::open(options(image.path())).unwrap();
        let kept = ends.iter().filter(|end| **end <= at).count().saturating_sub(1) as u64;
        assert_eq!(by_number(&store).len() as u64, kept, "damage at {at}");
        assert_eq!(store.stats().torn_records, 1);
        append(&store, &numbered(9));
        drop(store);
        let store = Embedded::open(options(image.path())).unwrap();
        assert_eq!(by_number(&store).len() as u64, kept + 1);
    }
}

#[test]
fn steps_that_a_crash_left_half_done_count_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let report = |sequence| Report { instance: "i".to_owned(), sequence, ..Report::default() };
    let store = Embedded::open(options(path)).unwrap();
    for number in 0..3 {
        store.append(&numbered(number), Some(&report(number)), now()).unwrap();
    }
    let before = tempfile::tempdir().unwrap();
    copy_dir(path, before.path());
    store.flush().unwrap();
    drop(store);
    let check = |path: &Path| {
        let store = Embedded::open(options(path)).unwrap();
        assert_eq!(by_number(&store), (0..3).map(|number| (number, number % 7 + 1)).collect());
        let accounting = store.accounting().unwrap();
        assert_eq!((accounting.len(), accounting[0].stored, accounting[0].report.sequence), (1, 6, 2));
        for number in 0..3 {
            assert_eq!(append(&store, &numbered(number)).stored, 0);
        }
    };
    check(path);
    // The block is there, but the log was not removed and the state not written.
    let image = tempfile::tempdir().unwrap();
    copy_dir(path, image.path());
    copy_dir(&before.path().join("log"), &image.path().join("log"));
    fs::remove_file(image.path().join("state.json")).unwrap();
    check(image.path());
    check(image.path());
    // The state was written too, the log not yet removed.
    let image = tempfile::tempdir().unwrap();
    copy_dir(path, image.path());
    copy_dir(&before.path().join("log"), &image.path().join("log"));
    check(image.path());
    // The block was being written.
    let image = tempfile::tempdir().unwrap();
    copy_dir(before.path(), image.path());
    for block in fs::read_dir(path.join("blocks")).unwrap() {
        let block = block.unwrap();
        let temporary = image.path().join("blocks").join(format!(".new-{}", block.file_name().to_str().unwrap()));
        copy_dir(&block.path(), &temporary);
        fs::remove_file(temporary.join("meta.json")).unwrap();
    }
    check(image.path());
    let left = fs::read_dir(image.path().join("blocks")).unwrap();
    assert!(left.map(|entry| entry.unwrap().file_name()).all(|name| !name.to_str().unwrap().starts_with('.')));
}

#[test]
fn a_merge_replaces_its_sources_even_where_a_crash_left_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(options(dir.path())).unwrap();
    let before = tempfile::tempdir().unwrap();
    for number in 0..6 {
        if number == 5 {
            // Before the block that makes the keeper merge them while we copy.
            copy_dir(&dir.path().join("blocks"), before.path());
        }
        append(&store, &numbered(number));
        store.flush().unwrap();
    }
    store.tend().unwrap();
    let merged = store.stats();
    assert!(merged.blocks <= 2, "{merged:?}");
    assert_eq!(merged.block_rows, (1..=6).sum::<u64>());
    drop(store);
    copy_dir(before.path(), &dir.path().join("blocks"));
    let store = Embedded::open(options(dir.path())).unwrap();
    assert_eq!(store.stats().blocks, merged.blocks);
    assert_eq!(total(&store), (1..=6).sum::<u64>());
    for number in 0..6 {
        assert_eq!(append(&store, &numbered(number)).stored, 0, "ids are merged too");
    }
    drop(store);
    let left = fs::read_dir(dir.path().join("blocks")).unwrap().count() as u64;
    assert_eq!(left, merged.blocks, "sources are removed");
}
