//! Every limit is reached: what is refused is counted, and the rest goes on.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{collections::BTreeMap, fs, time::Duration};

use common::{MS, SECOND, all, id, labels, now, options, select, simple, total};
use everflame_profile::{Completeness, Report, SecondOpinion, Str};
use everflame_store::{Append, Appended, Embedded, Options, Store, StoreError};

fn open(options: Options) -> Embedded {
    Embedded::open(options).unwrap()
}

fn reopen(store: Embedded, options: &Options) -> Embedded {
    drop(store);
    open(options.clone())
}

fn report(instance: &str, sequence: u64) -> Report {
    Report { instance: instance.to_owned(), sequence, taken: 100 * sequence, ..Report::default() }
}

#[test]
fn future_and_old_samples_are_refused_counted_and_never_fail_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { retention_age: Duration::from_secs(3600), ..options(dir.path()) };
    let store = open(options.clone());
    let received = now();
    let mut batch = simple(Some(id(1)), received - SECOND, 2);
    let points = &mut batch.profiles[0].samples[0].points;
    let mut point = points[0];
    for (offset, samples) in [(299, 10), (301, 20), (-3599, 40), (-3601, 80)] {
        (point.time, point.samples) = (received + offset * SECOND, samples);
        points.push(point);
    }
    let expected =
        Appended { stored: 52, rejected_future: 20, rejected_old: 80, rejected_profiles: 1, ..Appended::default() };
    assert_eq!(store.append(&batch, Some(&report("a", 1)), received).unwrap(), expected);
    // The same profile again: neither stored nor refused a second time.
    let again = store.append(&batch, Some(&report("a", 2)), received).unwrap();
    assert_eq!(again, Appended { duplicates: 152, ..Appended::default() });
    let check = |store: &Embedded| {
        let account = &store.accounting().unwrap()[0];
        assert_eq!((account.stored, account.report.sequence), (52, 2));
        assert_eq!(account.by_completeness[Completeness::Complete as usize], 52);
        let dropped = BTreeMap::from([("rejected_future".to_owned(), 20), ("rejected_old".to_owned(), 80)]);
        assert_eq!(account.dropped, dropped);
        assert_eq!(total(store), 52);
    };
    check(&store);
    let store = reopen(store, &options);
    check(&store);
    store.flush().unwrap();
    check(&reopen(store, &options));
}

#[test]
fn what_was_broken_is_in_the_account_once() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let store = open(options.clone());
    let append =
        |batch, invalid, sequence| Append { batch, invalid, report: Some(report("a", sequence)), received: now() };
    let request = append(simple(Some(id(1)), now(), 2), 7, 1);
    assert_eq!(store.take(request.clone()).unwrap(), Appended { stored: 2, ..Appended::default() });
    // The answer was lost, the request comes again.
    assert_eq!(store.take(request).unwrap(), Appended { duplicates: 2, ..Appended::default() });
    // Nothing was good.
    assert_eq!(store.take(append(Default::default(), 5, 2)).unwrap(), Appended::default());
    let check = |store: &Embedded| {
        let account = &store.accounting().unwrap()[0];
        assert_eq!((account.stored, account.report.sequence), (2, 2));
        assert_eq!(account.dropped, BTreeMap::from([("rejected_invalid".to_owned(), 12)]));
    };
    check(&store);
    let store = reopen(store, &options);
    check(&store);
    store.flush().unwrap();
    check(&reopen(store, &options));
}

#[test]
fn what_is_too_large_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(options(dir.path()));
    let long = "x".repeat(70_000);
    let mut cases = Vec::new();
    let mut case = |change: &dyn Fn(&mut everflame_profile::Batch)| {
        let mut batch = simple(None, now(), 3);
        change(&mut batch);
        cases.push(batch);
    };
    case(&|batch| batch.resources[0] = labels(&[("a", &long)]));
    case(&|batch| batch.resources[0] = (0..300).map(|n| (Str::from(format!("l{n}")), Str::from("v"))).collect());
    case(&|batch| batch.stacks[0].0 = vec![0; 3000]);
    case(&|batch| batch.frames[0].kind.0 = Str::from(long.as_str()));
    case(&|batch| batch.profiles[0].samples[0].thread = Str::from(long.as_str()));
    case(&|batch| batch.profiles[0].samples[0].labels = labels(&[("a", &long)]));
    case(&|batch| batch.profiles[0].samples[0].points.iter_mut().for_each(|point| point.value = i64::MIN));
    // Indexes that point nowhere are a caller's mistake, but no reason to fail.
    case(&|batch| batch.profiles[0].resource = 7);
    case(&|batch| batch.profiles[0].samples[0].stack = 7);
    case(&|batch| batch.stacks[0].0 = vec![9]);
    for batch in &cases {
        let appended = store.append(batch, Some(&report("a", 1)), now()).unwrap();
        assert_eq!((appended.stored, appended.rejected_limit, appended.rejected_profiles), (0, 3, 1));
    }
    let mut batch = simple(None, now(), 1);
    batch.profiles[0].samples[0].points[0].samples = u64::MAX;
    assert_eq!(store.append(&batch, None, now()).unwrap().rejected_limit, u64::MAX);
    let store = reopen(store, &options(dir.path()));
    assert_eq!(store.accounting().unwrap()[0].dropped["rejected_limit"], 3 * cases.len() as u64);
    assert_eq!((total(&store), store.stats().torn_records), (0, 0));
}

#[test]
fn series_beyond_the_limit_go_under_one_name() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { series_limit: 3, ..options(dir.path()) };
    let store = open(options.clone());
    for number in 0..10 {
        let mut batch = simple(None, now(), 2);
        batch.resources[0] = labels(&[("service.name", &format!("s{number}")), ("process.pid", "7")]);
        store.append(&batch, None, now()).unwrap();
    }
    assert_eq!((store.stats().series_overflowed, store.stats().series_limit), (14, 3));
    let overflow = |store: &Embedded| {
        let selection = select(r#"{everflame_overflow="true",pid="7"}"#, 0, i64::MAX / 2, "cpu");
        let sums = store.stacks(&selection, &["service.name".to_owned()]).unwrap();
        assert_eq!(sums.groups, [[Str::from("")]]);
        sums.sums.iter().map(|sum| sum.samples).sum::<u64>()
    };
    assert_eq!((overflow(&store), total(&store)), (14, 20));
    store.flush().unwrap();
    let store = reopen(store, &options);
    assert_eq!((overflow(&store), total(&store)), (14, 20));
    assert_eq!(store.label_values(&all(), "service.name").unwrap().1.len(), 3);
}

/// A profile of which all was refused leaves its id, though no block has a row to keep it with.
#[test]
fn what_was_refused_as_a_whole_is_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let mut store = open(options.clone());
    let batch = simple(Some(id(1)), now() + 3600 * SECOND, 2);
    let refused = Appended { rejected_future: 2, rejected_profiles: 1, ..Appended::default() };
    assert_eq!(store.append(&batch, Some(&report("a", 1)), now()).unwrap(), refused);
    for _ in 0..2 {
        store.flush().unwrap();
        store = reopen(store, &options);
        let again = store.append(&batch, Some(&report("a", 1)), now()).unwrap();
        assert_eq!(again, Appended { duplicates: 2, ..Appended::default() });
    }
    assert_eq!(store.accounting().unwrap()[0].dropped, BTreeMap::from([("rejected_future".to_owned(), 2)]));
}

#[test]
fn the_duplicate_window_spans_restarts_and_forgets_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { profile_ids: 4, ..options(dir.path()) };
    let mut store = open(options.clone());
    let append = |store: &Embedded, number| store.append(&simple(Some(id(number)), now(), 1), None, now()).unwrap();
    for number in 0..4 {
        assert_eq!(append(&store, number).stored, 1);
        if number == 1 {
            store.flush().unwrap();
        }
        store = reopen(store, &options);
    }
    for number in 0..4 {
        assert_eq!(append(&store, number).duplicates, 1);
    }
    assert_eq!(append(&store, 4).stored, 1);
    assert_eq!(store.stats().dedup_evicted, 1);
    assert_eq!(append(&store, 0).stored, 1, "the oldest was forgotten");
    assert_eq!(append(&store, 4).duplicates, 1);
    // Without an id nothing is a duplicate.
    for _ in 0..2 {
        assert_eq!(store.append(&simple(None, now(), 1), None, now()).unwrap().stored, 1);
    }
    // Twice in one batch is twice, too.
    let mut batch = simple(Some(id(77)), now(), 3);
    batch.profiles.push(batch.profiles[0].clone());
    let appended = store.append(&batch, None, now()).unwrap();
    assert_eq!((appended.stored, appended.duplicates), (3, 3));
}

#[test]
fn reports_the_newest_wins_and_the_longest_unseen_instance_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { instances: 2, ..options(dir.path()) };
    let store = open(options.clone());
    let append = |store: &Embedded, instance, sequence, received| {
        store.append(&simple(None, now(), 1), Some(&report(instance, sequence)), received).unwrap()
    };
    let start = now();
    append(&store, "a", 5, start);
    append(&store, "a", 3, start + 1);
    append(&store, "b", 1, start + 2);
    let sequences = |store: &Embedded| -> Vec<(String, u64, u64)> {
        let accounting = store.accounting().unwrap();
        accounting.into_iter().map(|a| (a.report.instance, a.report.sequence, a.stored)).collect()
    };
    assert_eq!(sequences(&store), [("a".to_owned(), 5, 2), ("b".to_owned(), 1, 1)]);
    assert_eq!(store.nodes().unwrap()[0].last_seen, start + 1);
    append(&store, "c", 1, start + 3);
    // An empty batch keeps its report.
    store.append(&Default::default(), Some(&report("c", 2)), start + 4).unwrap();
    let expected = [("b".to_owned(), 1, 1), ("c".to_owned(), 2, 1)];
    assert_eq!(sequences(&store), expected);
    store.flush().unwrap();
    let store = reopen(store, &options);
    assert_eq!(sequences(&store), expected);
    assert_eq!(store.stats().wal_bytes, 16, "the log is empty");
}

#[test]
fn retention_by_age_drops_blocks_but_not_accounts() {
    let dir = tempfile::tempdir().unwrap();
    let wide = options(dir.path());
    let store = open(wide.clone());
    store.append(&simple(Some(id(1)), now() - 7200 * SECOND, 5), Some(&report("a", 1)), now()).unwrap();
    store.flush().unwrap();
    store.append(&simple(Some(id(2)), now() - 60 * SECOND, 3), Some(&report("a", 2)), now()).unwrap();
    store.flush().unwrap();
    store.tend().unwrap();
    assert_eq!((total(&store), store.stats().expired), (8, 0));
    let narrow = Options { retention_age: Duration::from_secs(3600), ..wide };
    let store = reopen(store, &narrow);
    store.tend().unwrap();
    assert_eq!((total(&store), store.stats().expired, store.stats().blocks), (3, 5, 1));
    assert_eq!(store.accounting().unwrap()[0].stored, 8);
    // Late, but within the retention.
    let late = store.append(&simple(None, now() - 3500 * SECOND, 2), None, now()).unwrap();
    assert_eq!(late.stored, 2);
    assert_eq!(total(&store), 5);
    drop(store);
    assert_eq!(fs::read_dir(dir.path().join("blocks")).unwrap().count(), 1);
}

#[test]
fn retention_by_bytes_drops_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(options(dir.path()));
    // Hours apart, so that they are not merged.
    for number in 0..4_u64 {
        store.append(&simple(None, now() - (5 - number as i64) * 7200 * SECOND, number + 1), None, now()).unwrap();
        store.flush().unwrap();
    }
    let stats = store.stats();
    assert_eq!(stats.blocks, 4);
    let fewer = Options { retention_bytes: stats.block_bytes * 2 / 3, ..options(dir.path()) };
    let store = reopen(store, &fewer);
    store.tend().unwrap();
    assert_eq!((total(&store), store.stats().expired), (3 + 4, 1 + 2));
    assert!(store.stats().block_bytes <= fewer.retention_bytes);
}

#[test]
fn appends_beyond_those_that_may_wait_are_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(Options { waiting_appends: 2, ..options(dir.path()) });
    let stored = std::sync::atomic::AtomicU64::new(0);
    let busy = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let counter = match store.append(&simple(None, now(), 1), None, now()) {
                        Ok(_) => &stored,
                        Err(StoreError::Busy(waiting)) => {
                            assert_eq!(waiting, 2);
                            &busy
                        }
                        Err(other) => panic!("{other}"),
                    };
                    counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
    });
    let (stored, busy) = (stored.into_inner(), busy.into_inner());
    assert_eq!((stored + busy, total(&store)), (320, stored));
    assert!(busy > 0);
}

#[test]
fn queries_run_while_blocks_are_written_merged_and_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(Options { head_rows: 50, cache_bytes: 10_000, ..options(dir.path()) });
    let base = now() - 60 * SECOND;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut stored = 0;
            for number in 0..300_u64 {
                match store.append(&simple(None, base + number as i64 * MS, 3), None, now()) {
                    Ok(appended) => stored += appended.stored,
                    Err(StoreError::Busy(_)) => std::thread::sleep(Duration::from_millis(5)),
                    Err(other) => panic!("{other}"),
                }
                if number % 60 == 59 {
                    store.tend().unwrap();
                }
            }
            stored
        });
        let mut last = 0;
        while !writer.is_finished() {
            let seen = total(&store);
            assert!(seen >= last && seen.is_multiple_of(3), "whole batches, and none is lost: {last} {seen}");
            last = seen;
            assert!(store.stats().cache_bytes <= 10_000);
        }
        assert_eq!(total(&store), writer.join().unwrap());
    });
}

#[test]
fn a_second_opinion_holds_until_it_is_said_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(options(dir.path()));
    let said = |agree| Some(SecondOpinion { every: 1000, agree, ..SecondOpinion::default() });
    for (sequence, says, holds) in [(1, None, None), (2, said(7), said(7)), (3, None, said(7)), (4, said(9), said(9))] {
        let report = Report { second_opinion: says, ..report("a", sequence) };
        store.append(&simple(Some(id(sequence)), now(), 1), Some(&report), now()).unwrap();
        let node = &store.nodes().unwrap()[0];
        assert_eq!((node.report.sequence, &node.report.second_opinion), (sequence, &holds));
    }
}
