//! Every query against the plain reference, over random batches with flushes, merges
//! and restarts in between.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{MS, Reference, SECOND, frame, labels, now, options, select, written_out};
use everflame_profile::{Batch, Completeness, Labels, Point, Profile, Sample, SampleType, Stack, Str};
use everflame_store::{Embedded, Selection, Store};
use proptest::prelude::*;

/// Labels of samples: none, one of their own, one that hides the resource's, one that is a column.
const SETS: &[&[(&str, &str)]] = &[&[], &[("span", "a")], &[("service.name", "own")], &[("thread.name", "t9")]];

#[derive(Debug, Clone)]
enum Step {
    Append(Batch),
    Flush,
    Tend,
    Restart,
}

fn resources() -> impl Strategy<Value = Labels> {
    let value = |values: &'static [&'static str]| prop::sample::select(values);
    (
        value(&["", "shop", "pay"]),
        value(&["", "cart", "cart-db", "web"]),
        value(&["n1", "n2"]),
        value(&["", "0", "1", "42", "007", "4294967296"]),
        value(&["", "c1"]),
        value(&["", "d1"]),
        value(&["", "envoy", "python3"]),
    )
        .prop_map(|(namespace, service, node, pid, container, deployment, process)| {
            labels(&[
                ("k8s.namespace.name", namespace),
                ("service.name", service),
                ("host.name", node),
                ("process.pid", pid),
                ("container.id", container),
                ("k8s.deployment.name", deployment),
                ("process.executable.name", process),
            ])
        })
}

fn samples(base: i64, stacks: usize) -> impl Strategy<Value = Sample> {
    let point = (0..7200 * SECOND, 1..4_u64, -5..100_i64);
    let sets = prop::sample::select(SETS);
    (
        0..stacks as u32,
        0..11_u8,
        prop::sample::select(&["", "main", "worker"][..]),
        0..3_u32,
        prop::sample::select(&[0, 1, u32::MAX][..]),
        sets,
        prop::collection::vec(point, 1..4),
    )
        .prop_map(move |(stack, completeness, thread, tid, cpu, set, points)| Sample {
            stack,
            completeness: Completeness::from_u8(completeness).unwrap(),
            thread: Str::from(thread),
            tid,
            cpu,
            labels: labels(set),
            points: points
                .into_iter()
                .map(|(time, samples, value)| Point { time: base + time, samples, value: value * MS })
                .collect(),
        })
}

fn batches(base: i64) -> impl Strategy<Value = Batch> {
    let stacks = prop::collection::vec(prop::collection::vec(0..12_u32, 0..6), 1..6);
    let first_frame = 0..4_u64;
    (prop::collection::btree_set(resources(), 1..4), stacks, first_frame).prop_flat_map(
        move |(resources, stacks, first_frame)| {
            let stacks: std::collections::BTreeSet<Vec<u32>> = stacks.into_iter().collect();
            let profile = (
                prop::option::of(0..6_u64),
                0..resources.len() as u32,
                prop::bool::weighted(0.8),
                prop::collection::vec(samples(base, stacks.len()), 0..8),
            );
            let profile = profile.prop_map(|(id, resource, cpu, samples)| Profile {
                id: id.map(common::id),
                resource,
                sample_type: match cpu {
                    true => SampleType::cpu(),
                    false => SampleType { name: Str::from("alloc"), unit: Str::from("bytes") },
                },
                period: 50 * MS,
                samples,
            });
            prop::collection::vec(profile, 0..5).prop_map(move |profiles| Batch {
                resources: resources.iter().cloned().collect(),
                frames: (first_frame..first_frame + 12).map(frame).collect(),
                stacks: stacks.iter().cloned().map(Stack).collect(),
                profiles,
            })
        },
    )
}

fn selections(base: i64) -> impl Strategy<Value = Selection> {
    let query = prop::sample::select(
        &[
            "",
            r#"{namespace="shop"}"#,
            r#"{service=~"cart.*"}"#,
            r#"{service!~"cart.*",namespace!=""}"#,
            r#"{service="own"}"#,
            r#"{thread="main"}"#,
            r#"{thread_name=~"t.*|"}"#,
            r#"{pid="42"}"#,
            r#"{pid!="42",cpu=~"1|"}"#,
            r#"{pid="007"}"#,
            r#"{thread_id="2",span="a"}"#,
            r#"{host_name="n1"}"#,
            r#"{"host.name"!="n1"}"#,
            r#"{workload="d1",process!="envoy"}"#,
            r#"{"no.such.label"=""}"#,
            r#"{nothing!=""}"#,
        ][..],
    );
    let range = prop_oneof![
        Just((-SECOND, 7201 * SECOND)),
        (0..7200 * SECOND, 0..7200 * SECOND).prop_map(|(a, b)| (a.min(b), a.max(b) + 1)),
    ];
    (query, range, prop::bool::weighted(0.8)).prop_map(move |(query, (from, until), cpu)| {
        select(query, base + from, base + until, if cpu { "cpu" } else { "alloc" })
    })
}

fn check(store: &Embedded, reference: &Reference, selection: &Selection) {
    for group in [&[][..], &["process"], &["service", "thread"], &["pid", "span", "workload"], &["cpu"]] {
        let group: Vec<String> = group.iter().map(|name| everflame_profile::resolve_label(name)).collect();
        let sums = store.stacks(selection, &group).unwrap();
        assert_eq!(written_out(&sums), reference.stacks(selection, &group), "{selection:?} by {group:?}");
        assert!(sums.covered.from <= selection.from && sums.covered.until >= selection.until);
        assert!(sums.covered.from > selection.from - MS && sums.covered.until < selection.until + MS);
    }
    for (by, step) in [(None, 1000), (Some("service.name"), 60_000), (Some("thread.id"), 7), (Some("workload"), 1)] {
        let series = store.series(selection, by, step).unwrap();
        assert_eq!(series.series, reference.series(selection, by, step), "{selection:?} by {by:?} {step}");
    }
    assert_eq!(store.labels(selection).unwrap().1, reference.labels(selection));
    for name in ["service.name", "thread.name", "process.pid", "workload", "host_name", "nothing"] {
        let values = store.label_values(selection, name).unwrap().1;
        assert_eq!(values, reference.label_values(selection, name), "{selection:?} {name}");
    }
    let (_, mut processes) = store.processes(selection).unwrap();
    assert!(processes.is_sorted_by_key(|process| std::cmp::Reverse(process.samples)));
    let mut expected = reference.processes(selection);
    for list in [&mut processes, &mut expected] {
        list.sort_by_key(|process| format!("{process:?}"));
    }
    assert_eq!(processes, expected, "{selection:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_those_of_the_reference(
        (steps, selections) in {
            // Two hours that may lie across an hour's end and are over or not.
            let base = now() - 8000 * SECOND;
            let step = prop_oneof![
                5 => batches(base).prop_map(Step::Append),
                2 => Just(Step::Flush),
                1 => Just(Step::Tend),
                1 => Just(Step::Restart),
            ];
            (prop::collection::vec(step, 1..14), prop::collection::vec(selections(base), 4))
        }
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Embedded::open(options(dir.path())).unwrap();
        let mut reference = Reference::default();
        for step in &steps {
            match step {
                Step::Append(batch) => {
                    let appended = store.append(batch, None, now()).unwrap();
                    prop_assert_eq!((appended.stored, appended.duplicates), reference.append(batch));
                }
                Step::Flush => store.flush().unwrap(),
                Step::Tend => store.tend().unwrap(),
                Step::Restart => {
                    drop(store);
                    store = Embedded::open(options(dir.path())).unwrap();
                }
            }
        }
        for selection in selections.iter().chain([&common::all()]) {
            check(&store, &reference, selection);
        }
        let stats = store.stats();
        prop_assert_eq!((stats.head_rows + stats.block_rows) as usize, reference.rows.len());
    }
}

/// Blocks of several row groups: parts of groups, whole ones, and their merge.
#[test]
fn many_row_groups_are_read_in_part() {
    const ROWS: i64 = 150_000;
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(options(dir.path())).unwrap();
    let base = (now() - 7200 * SECOND) / (10 * SECOND) * (10 * SECOND);
    let sums = |query: &str, from: i64, until: i64| {
        let sums = store.stacks(&select(query, base + from * MS, base + until * MS, "cpu"), &[]).unwrap();
        let add = |sum: (u64, i64), part: &everflame_store::StackSum| (sum.0 + part.samples, sum.1 + part.value);
        sums.sums.iter().fold((0, 0), add)
    };
    // Service number s has a sample at every millisecond; its value is s times the millisecond.
    for half in 0..2 {
        for service in 1..=3 {
            let mut batch = common::simple(None, base, 0);
            batch.resources[0] = labels(&[("service.name", &format!("s{service}")), ("process.pid", "9")]);
            let sample = &mut batch.profiles[0].samples[0];
            let point = |ms: i64| Point { time: base + ms * MS, samples: 1, value: service * ms };
            sample.points = (half * ROWS / 2..(half + 1) * ROWS / 2).map(point).collect();
            store.append(&batch, None, now()).unwrap();
        }
        store.flush().unwrap();
    }
    let check = || {
        for (from, until) in [(-5, ROWS + 5), (0, 1), (1000, 140_000), (74_990, 75_010), (ROWS - 1, ROWS)] {
            let (first, end) = (from.max(0), until.min(ROWS));
            let of_time: i64 = (first..end).sum();
            for (query, services, factor) in [
                ("", 3, 6),
                (r#"{service="s2"}"#, 1, 2),
                (r#"{service!="s2"}"#, 2, 4),
                (r#"{service="s3",pid="9"}"#, 1, 3),
                (r#"{pid="8"}"#, 0, 0),
            ] {
                let expected = ((services * (end - first)) as u64, factor * of_time);
                assert_eq!(sums(query, from, until), expected, "{query} {from} {until}");
            }
        }
    };
    check();
    store.tend().unwrap();
    check();
    let series = store.series(&select("", base, base + 200 * SECOND, "cpu"), Some("service.name"), 10_000).unwrap();
    assert_eq!(series.series.len(), 3);
    assert!(series.series.values().all(|points| points.len() == 15 && points.iter().all(|p| p.samples == 10_000)));
}
