//! Sums by time, by label value and by process, and the names of labels.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use everflame_profile::Str;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    binding::BoundLabel,
    groups::{AllGroups, GroupLabels, Groups},
    row::{NANOS_PER_MS, Row},
    rows_reader::Columns,
    scan::{Fold, Source, covered, scan},
};
use crate::query::{LabelValue, ProcessInfo, Selection, SeriesPoint, SeriesSums};

const TOTALS: Columns = Columns::SAMPLES.with(Columns::VALUE);

fn bind_labels<'a>(labels: &'a [&'a [&'a str]], columns: Columns) -> impl Fn(&Source) -> (GroupLabels, Columns) + 'a {
    move |source| {
        let labels = labels.iter().map(|labels| BoundLabel::first_of(labels, source.names())).collect();
        let labels = GroupLabels(Arc::new(labels));
        let columns = columns.with(labels.columns());
        (labels, columns)
    }
}

struct SeriesFold {
    groups: Groups,
    step_ms: i64,
    sums: FxHashMap<(u32, i64), (u64, i64)>,
}

impl Fold for SeriesFold {
    fn row(&mut self, row: &Row) {
        let start = row.time.div_euclid(self.step_ms).saturating_mul(self.step_ms);
        let sum = self.sums.entry((self.groups.of(row), start)).or_default();
        sum.0 = sum.0.saturating_add(row.samples);
        sum.1 = sum.1.saturating_add(row.value);
    }
}

/// Answers [`crate::Store::series`].
pub(crate) fn series(
    sources: &[Source],
    selection: &Selection,
    by: Option<&str>,
    step_ms: i64,
    unit: String,
) -> io::Result<SeriesSums> {
    let names = by.map(everflame_profile::label::candidates);
    let labels: Vec<&[&str]> = names.iter().map(Vec::as_slice).collect();
    let bind = bind_labels(&labels, TOTALS.with(Columns::TIME));
    let fold = |labels: &GroupLabels| SeriesFold {
        groups: Groups::new(labels),
        step_ms: step_ms.max(1),
        sums: FxHashMap::default(),
    };
    let folded = scan(sources, selection, bind, fold)?;
    let mut sums: BTreeMap<Str, BTreeMap<i64, (u64, i64)>> = BTreeMap::new();
    for (source, (_, folds)) in sources.iter().zip(folded) {
        for fold in folds {
            let values = fold.groups.values(source.names());
            for ((group, start), (samples, value)) in fold.sums {
                let name = values[group as usize].first().cloned().unwrap_or_default();
                let sum = sums.entry(name).or_default().entry(start).or_default();
                sum.0 = sum.0.saturating_add(samples);
                sum.1 = sum.1.saturating_add(value);
            }
        }
    }
    let points = |points: BTreeMap<i64, (u64, i64)>| {
        let point = |(start_ms, (samples, value))| SeriesPoint { start_ms, samples, value };
        points.into_iter().map(point).collect()
    };
    let series = sums.into_iter().map(|(name, sums)| (name, points(sums))).collect();
    Ok(SeriesSums { covered: covered(selection), unit, series })
}

struct ValueFold {
    groups: Groups,
    samples: Vec<u64>,
}

impl Fold for ValueFold {
    fn row(&mut self, row: &Row) {
        let group = self.groups.of(row) as usize;
        if group >= self.samples.len() {
            self.samples.resize(group + 1, 0);
        }
        self.samples[group] = self.samples[group].saturating_add(row.samples);
    }
}

/// Answers [`crate::Store::label_values`]; samples without the label are left out.
pub(crate) fn label_values(sources: &[Source], selection: &Selection, name: &str) -> io::Result<Vec<LabelValue>> {
    let names = everflame_profile::label::candidates(name);
    let labels = [names.as_slice()];
    let fold = |labels: &GroupLabels| ValueFold { groups: Groups::new(labels), samples: Vec::new() };
    let folded = scan(sources, selection, bind_labels(&labels, Columns::SAMPLES), fold)?;
    let mut sums: FxHashMap<Str, u64> = FxHashMap::default();
    for (source, (_, folds)) in sources.iter().zip(folded) {
        for fold in folds {
            for (values, samples) in fold.groups.values(source.names()).into_iter().zip(fold.samples) {
                let sum = sums.entry(values.into_iter().next().unwrap_or_default()).or_default();
                *sum = sum.saturating_add(samples);
            }
        }
    }
    sums.remove("");
    let mut values: Vec<LabelValue> = sums.into_iter().map(|(value, samples)| LabelValue { value, samples }).collect();
    values.sort_unstable_by(|a, b| b.samples.cmp(&a.samples).then_with(|| a.value.cmp(&b.value)));
    Ok(values)
}

#[derive(Default)]
struct NameFold {
    series: FxHashSet<u32>,
    sets: FxHashSet<u32>,
    /// thread.name, process.pid, thread.id, cpu.logical_number
    columns: [bool; 4],
}

impl Fold for NameFold {
    fn row(&mut self, row: &Row) {
        self.series.insert(row.series);
        self.sets.insert(row.labels);
        let [thread, pid, tid, cpu] = &mut self.columns;
        *thread |= row.thread != 0;
        *pid |= row.pid != 0;
        *tid |= row.tid != 0;
        *cpu |= row.cpu != u32::MAX;
    }
}

/// Answers [`crate::Store::labels`].
pub(crate) fn labels(sources: &[Source], selection: &Selection) -> io::Result<Vec<String>> {
    const COLUMNS: Columns = Columns::SERIES
        .with(Columns::LABELS)
        .with(Columns::THREAD)
        .with(Columns::PID)
        .with(Columns::TID)
        .with(Columns::CPU);
    let folded = scan(sources, selection, |_| ((), COLUMNS), |()| NameFold::default())?;
    let mut names: BTreeSet<Str> = BTreeSet::new();
    for (source, (_, folds)) in sources.iter().zip(folded) {
        for fold in folds {
            let dictionary = source.names();
            let of_series = fold.series.iter().filter_map(|id| dictionary.series.get(*id)).map(|s| &s.labels);
            let of_sets = fold.sets.iter().filter_map(|id| dictionary.sets.get(*id)).map(|set| &**set);
            for labels in of_series.chain(of_sets) {
                names.extend(labels.iter().map(|(name, _)| name.clone()));
            }
            let columns = ["thread.name", "process.pid", "thread.id", "cpu.logical_number"];
            let seen = columns.into_iter().zip(fold.columns).filter(|(_, seen)| *seen);
            names.extend(seen.map(|(name, _)| Str::from(name)));
        }
    }
    Ok(names.iter().map(|name| name.to_string()).collect())
}

#[derive(Default, Clone)]
struct Process {
    tids: FxHashSet<u32>,
    samples: u64,
    complete: u64,
    first: i64,
    last: i64,
}

impl Process {
    fn merge(&mut self, other: &Self) {
        if other.samples == 0 && other.tids.is_empty() && other.first > other.last {
            return;
        }
        self.tids.extend(&other.tids);
        self.samples = self.samples.saturating_add(other.samples);
        self.complete = self.complete.saturating_add(other.complete);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }

    fn none() -> Self {
        Self { first: i64::MAX, last: i64::MIN, ..Self::default() }
    }
}

struct ProcessFold {
    groups: Groups,
    processes: Vec<Process>,
}

impl Fold for ProcessFold {
    fn row(&mut self, row: &Row) {
        let group = self.groups.of(row) as usize;
        if group >= self.processes.len() {
            self.processes.resize(group + 1, Process::none());
        }
        let process = &mut self.processes[group];
        if row.tid != 0 {
            process.tids.insert(row.tid);
        }
        process.samples = process.samples.saturating_add(row.samples);
        if row.completeness.is_complete() {
            process.complete = process.complete.saturating_add(row.samples);
        }
        process.first = process.first.min(row.time);
        process.last = process.last.max(row.time);
    }
}

/// Answers [`crate::Store::processes`].
pub(crate) fn processes(sources: &[Source], selection: &Selection) -> io::Result<Vec<ProcessInfo>> {
    const LABELS: [&[&str]; 7] = [
        &["host.name"],
        &["process.pid"],
        &["process.executable.name"],
        &["k8s.container.name", "container.name", "container.id"],
        &["k8s.pod.name"],
        &["k8s.namespace.name"],
        &["service.name"],
    ];
    const COLUMNS: Columns = Columns::SAMPLES.with(Columns::TID).with(Columns::TIME).with(Columns::COMPLETENESS);
    let fold = |labels: &GroupLabels| ProcessFold { groups: Groups::new(labels), processes: Vec::new() };
    let folded = scan(sources, selection, bind_labels(&LABELS, COLUMNS), fold)?;
    let mut groups = AllGroups::default();
    let mut sums: Vec<Process> = Vec::new();
    for (source, (_, folds)) in sources.iter().zip(folded) {
        for fold in folds {
            for (values, process) in fold.groups.values(source.names()).into_iter().zip(&fold.processes) {
                let group = groups.id(values) as usize;
                if group >= sums.len() {
                    sums.resize(group + 1, Process::none());
                }
                sums[group].merge(process);
            }
        }
    }
    let info = |(values, sum): (&Vec<Str>, &Process)| {
        let value = |index: usize| values.get(index).cloned().unwrap_or_default();
        ProcessInfo {
            node: value(0),
            pid: value(1).parse().unwrap_or(0),
            process: value(2),
            thread_count: sum.tids.len() as u64,
            container: value(3),
            pod: value(4),
            namespace: value(5),
            service: value(6),
            samples: sum.samples,
            complete: sum.complete,
            first_seen: sum.first.saturating_mul(NANOS_PER_MS),
            last_seen: sum.last.saturating_mul(NANOS_PER_MS),
        }
    };
    let mut processes: Vec<ProcessInfo> = groups.values.iter().zip(&sums).map(info).collect();
    processes.sort_by(|a, b| {
        let key = |p: &ProcessInfo| {
            (std::cmp::Reverse(p.samples), p.node.clone(), p.pid, p.process.clone(), p.container.clone())
        };
        key(a).cmp(&key(b))
    });
    Ok(processes)
}
