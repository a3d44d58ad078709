//! A store so simple that it is plainly right, to hold the real one against; and
//! batches to feed both.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use everflame_profile::{
    Batch, Completeness, ContentId, Frame, FrameKind, Labels, Line, Mapping, Matcher, MatcherOp, Point, Profile,
    Sample, SampleType, Selector, Stack, Str,
};
use everflame_store::{LabelValue, Options, ProcessInfo, Selection, SeriesPoint, StackSums, Store};

pub const MS: i64 = 1_000_000;
pub const SECOND: i64 = 1_000 * MS;

pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64
}

pub fn options(dir: &std::path::Path) -> Options {
    Options::new(dir)
}

/// One observation with everything written out.
#[derive(Debug, Clone)]
pub struct Naive {
    pub sample_type: SampleType,
    pub resource: Labels,
    pub labels: Labels,
    pub thread: Str,
    pub tid: u32,
    pub cpu: u32,
    pub completeness: Completeness,
    /// Leaf first.
    pub stack: Vec<Frame>,
    pub time_ms: i64,
    pub samples: u64,
    pub value: i64,
}

/// Stored observations, in a list.
#[derive(Debug, Default)]
pub struct Reference {
    pub rows: Vec<Naive>,
    pub ids: BTreeSet<[u8; 16]>,
}

pub type StackKey = (Vec<String>, Vec<Frame>, Completeness);

impl Naive {
    fn own(&self, name: &str) -> Option<String> {
        let set = |labels: &Labels| {
            let exact = labels.get(name).map(|value| value.to_string());
            exact.or_else(|| {
                let plain = |n: &str| n.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
                let mut pairs = labels.iter();
                pairs.find(|(n, _)| !name.contains('.') && plain(n) == name).map(|(_, value)| value.to_string())
            })
        };
        let column = match name {
            "thread.name" | "thread_name" => (!self.thread.is_empty()).then(|| self.thread.to_string()),
            "thread.id" | "thread_id" => (self.tid != 0).then(|| self.tid.to_string()),
            "cpu.logical_number" | "cpu_logical_number" => (self.cpu != u32::MAX).then(|| self.cpu.to_string()),
            _ => None,
        };
        column.or_else(|| set(&self.labels)).or_else(|| set(&self.resource))
    }

    pub fn label(&self, name: &str) -> String {
        match name {
            "workload" => ["k8s.deployment.name", "k8s.daemonset.name"].iter().find_map(|name| self.own(name)),
            _ => self.own(name),
        }
        .unwrap_or_default()
    }

    fn selected(&self, selection: &Selection) -> bool {
        let time = (selection.from.div_euclid(MS)..(selection.until + MS - 1).div_euclid(MS)).contains(&self.time_ms);
        let fits = |matcher: &Matcher| {
            let value = self.label(&matcher.name);
            match &matcher.op {
                MatcherOp::Equal(wanted) => value == *wanted,
                MatcherOp::NotEqual(unwanted) => value != *unwanted,
                MatcherOp::Matches(regex) => regex.is_match(&value),
                MatcherOp::MatchesNot(regex) => !regex.is_match(&value),
            }
        };
        time && *self.sample_type.name == *selection.sample_type && selection.selector.matchers.iter().all(fits)
    }
}

impl Reference {
    /// Stores what no profile id says is known already; returns (stored, duplicates).
    pub fn append(&mut self, batch: &Batch) -> (u64, u64) {
        let (mut stored, mut duplicates) = (0, 0);
        for profile in &batch.profiles {
            if profile.id.is_some_and(|id| !self.ids.insert(id)) {
                duplicates += profile.samples();
                continue;
            }
            stored += profile.samples();
            for sample in &profile.samples {
                for point in &sample.points {
                    let stack = &batch.stacks[sample.stack as usize].0;
                    self.rows.push(Naive {
                        sample_type: profile.sample_type.clone(),
                        resource: batch.resources[profile.resource as usize].clone(),
                        labels: sample.labels.clone(),
                        thread: sample.thread.clone(),
                        tid: sample.tid,
                        cpu: sample.cpu,
                        completeness: sample.completeness,
                        stack: stack.iter().map(|frame| batch.frames[*frame as usize].clone()).collect(),
                        time_ms: point.time.div_euclid(MS),
                        samples: point.samples,
                        value: point.value,
                    });
                }
            }
        }
        (stored, duplicates)
    }

    pub fn selected<'a>(&'a self, selection: &'a Selection) -> impl Iterator<Item = &'a Naive> {
        self.rows.iter().filter(|row| row.selected(selection))
    }

    pub fn stacks(&self, selection: &Selection, group: &[String]) -> BTreeMap<StackKey, (u64, i64)> {
        let mut sums = BTreeMap::new();
        for row in self.selected(selection) {
            let group = group.iter().map(|name| row.label(name)).collect();
            let sum: &mut (u64, i64) = sums.entry((group, row.stack.clone(), row.completeness)).or_default();
            *sum = (sum.0 + row.samples, sum.1 + row.value);
        }
        sums
    }

    pub fn series(&self, selection: &Selection, by: Option<&str>, step: i64) -> BTreeMap<Str, Vec<SeriesPoint>> {
        let mut sums: BTreeMap<(Str, i64), (u64, i64)> = BTreeMap::new();
        for row in self.selected(selection) {
            let start = (row.time_ms as f64 / step as f64).floor() as i64 * step;
            let name = by.map(|by| row.label(by)).unwrap_or_default();
            let sum = sums.entry((Str::from(name), start)).or_default();
            *sum = (sum.0 + row.samples, sum.1 + row.value);
        }
        let mut series: BTreeMap<Str, Vec<SeriesPoint>> = BTreeMap::new();
        for ((name, start_ms), (samples, value)) in sums {
            series.entry(name).or_default().push(SeriesPoint { start_ms, samples, value });
        }
        series
    }

    pub fn labels(&self, selection: &Selection) -> Vec<String> {
        let mut names = BTreeSet::new();
        for row in self.selected(selection) {
            names.extend(row.resource.iter().chain(row.labels.iter()).map(|(name, _)| name.to_string()));
            for column in ["thread.name", "thread.id", "cpu.logical_number"] {
                if !row.label(column).is_empty() {
                    names.insert(column.to_owned());
                }
            }
        }
        names.into_iter().collect()
    }

    pub fn label_values(&self, selection: &Selection, name: &str) -> Vec<LabelValue> {
        let mut sums: BTreeMap<String, u64> = BTreeMap::new();
        for row in self.selected(selection) {
            *sums.entry(row.label(name)).or_default() += row.samples;
        }
        sums.remove("");
        let value = |(value, samples): (String, u64)| LabelValue { value: Str::from(value), samples };
        let mut values: Vec<LabelValue> = sums.into_iter().map(value).collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.samples));
        values
    }

    pub fn processes(&self, selection: &Selection) -> Vec<ProcessInfo> {
        let mut processes: BTreeMap<Vec<String>, (ProcessInfo, BTreeSet<u32>)> = BTreeMap::new();
        for row in self.selected(selection) {
            let text = |name: &str| Str::from(row.label(name));
            let container = match text("k8s.container.name") {
                name if name.is_empty() => text("container.id"),
                name => name,
            };
            let info = ProcessInfo {
                node: text("host.name"),
                pid: row.label("process.pid").parse().unwrap_or(0),
                process: text("process.executable.name"),
                thread_count: 0,
                container,
                pod: text("k8s.pod.name"),
                namespace: text("k8s.namespace.name"),
                service: text("service.name"),
                samples: 0,
                complete: 0,
                first_seen: i64::MAX,
                last_seen: i64::MIN,
            };
            let key = [&info.node, &info.process, &info.container, &info.pod, &info.namespace, &info.service];
            let mut key: Vec<String> = key.iter().map(|text| text.to_string()).collect();
            key.push(row.label("process.pid"));
            let (sum, tids) = processes.entry(key).or_insert((info, BTreeSet::new()));
            if row.tid != 0 {
                tids.insert(row.tid);
            }
            sum.thread_count = tids.len() as u64;
            sum.samples += row.samples;
            sum.complete += if row.completeness == Completeness::Complete { row.samples } else { 0 };
            sum.first_seen = sum.first_seen.min(row.time_ms * MS);
            sum.last_seen = sum.last_seen.max(row.time_ms * MS);
        }
        processes.into_values().map(|(info, _)| info).collect()
    }
}

/// An answer of the store in the reference's form; checks the promises of the trie.
pub fn written_out(sums: &StackSums) -> BTreeMap<StackKey, (u64, i64)> {
    let unique: BTreeSet<_> = sums.nodes.iter().map(|node| (node.parent, node.frame)).collect();
    assert_eq!(unique.len(), sums.nodes.len(), "nodes are unique by (parent, frame)");
    let frames: BTreeSet<_> = sums.frames.iter().collect();
    assert_eq!(frames.len(), sums.frames.len(), "frames are unique");
    let groups: BTreeSet<_> = sums.groups.iter().collect();
    assert_eq!(groups.len(), sums.groups.len(), "groups are unique");
    let mut reached = vec![false; sums.nodes.len()];
    let mut out = BTreeMap::new();
    for sum in &sums.sums {
        let mut stack = Vec::new();
        let mut at = sum.node;
        while at != u32::MAX {
            reached[at as usize] = true;
            let node = sums.nodes[at as usize];
            stack.push(sums.frames[node.frame as usize].clone());
            assert!(node.parent == u32::MAX || node.parent < at, "parents stand before children");
            at = node.parent;
        }
        let group = sums.groups[sum.group as usize].iter().map(|value| value.to_string()).collect();
        let old = out.insert((group, stack, sum.completeness), (sum.samples, sum.value));
        assert_eq!(old, None, "sums are unique by (group, node, completeness)");
    }
    assert!(reached.iter().all(|reached| *reached), "only nodes of selected stacks");
    out
}

pub fn select(query: &str, from: i64, until: i64, sample_type: &str) -> Selection {
    Selection { selector: Selector::parse(query).unwrap(), from, until, sample_type: sample_type.to_owned() }
}

/// Everything, ever.
pub fn all() -> Selection {
    select("", i64::MIN / 2, i64::MAX / 2, "cpu")
}

/// Samples stored according to a query.
pub fn total(store: &dyn Store) -> u64 {
    store.stacks(&all(), &[]).unwrap().sums.iter().map(|sum| sum.samples).sum()
}

pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(name, value)| (Str::from(*name), Str::from(*value))).collect()
}

pub fn frame(number: u64) -> Frame {
    let mapping = Mapping {
        name: Str::from(format!("lib{}.so", number % 3)),
        build_id: Str::from(if number.is_multiple_of(3) { "" } else { "abcd" }),
        content_id: number.is_multiple_of(2).then_some(ContentId(u128::from(number % 3) << 70)),
    };
    let line = Line { function: Str::from(format!("f{number}")), file: Str::from("a.py"), line: number as u32 };
    Frame {
        kind: FrameKind(Str::from(if number.is_multiple_of(4) { "cpython" } else { "native" })),
        mapping: (!number.is_multiple_of(5)).then(|| Arc::new(mapping)),
        address: number << 4,
        lines: if number.is_multiple_of(4) { vec![line.clone(), line] } else { vec![] },
    }
}

/// A batch of one profile with `count` samples of one stack, 1 ms apart, the first at `time`.
pub fn simple(id: Option<[u8; 16]>, time: i64, count: u64) -> Batch {
    let point = |index: u64| Point { time: time + index as i64 * MS, samples: 1, value: 50 * MS };
    Batch {
        resources: vec![labels(&[("host.name", "n1"), ("process.pid", "42"), ("service.name", "cart")])],
        frames: vec![frame(1), frame(2)],
        stacks: vec![Stack(vec![1, 0])],
        profiles: vec![Profile {
            id,
            resource: 0,
            sample_type: SampleType::cpu(),
            period: 50 * MS,
            samples: vec![Sample {
                stack: 0,
                completeness: Completeness::Complete,
                thread: Str::from("main"),
                tid: 42,
                cpu: 0,
                labels: Labels::default(),
                points: (0..count).map(point).collect(),
            }],
        }],
    }
}

/// A profile id from a number.
pub fn id(number: u64) -> [u8; 16] {
    (u128::from(number) + 1).to_le_bytes()
}
