//! The head: the newest rows in memory, in the order of the log, with their
//! dictionaries. It becomes a block; its generation is that of its log segment.

use std::sync::Arc;

use everflame_profile::{Batch, Completeness, Labels, ProfileId};

use super::{
    chunked::Chunked,
    dictionary::{Interner, Names, Series, Stacks},
    frames::Hashes,
    row::{Row, floor_ms},
};

/// A head that grows.
#[derive(Debug)]
pub(crate) struct Head {
    pub generation: u64,
    pub dictionary: Interner,
    pub rows: Chunked<Row>,
    /// Profile ids that the generation's records carry, for the duplicate window.
    pub ids: Vec<ProfileId>,
    /// When its first record was received, Unix nanoseconds.
    pub begun: Option<i64>,
    /// Records applied (some carry a report only).
    pub records: u64,
}

/// One moment of a head: what a query reads.
#[derive(Debug)]
pub(crate) struct HeadView {
    pub names: Names,
    pub stacks: Stacks,
    pub rows: Chunked<Row>,
}

/// What a record adds, in the ids of its generation.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Addition {
    /// Of the profiles whose samples these are.
    pub ids: Vec<ProfileId>,
    pub rows: Vec<Row>,
}

/// A batch in the ids of a head, on its way to the log.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    pub addition: Addition,
    /// Samples in duplicate profiles.
    pub duplicates: u64,
    /// Samples put under the overflow series.
    pub overflowed: u64,
}

impl Addition {
    /// Samples by completeness.
    pub fn samples(&self) -> [u64; Completeness::ALL.len()] {
        let mut samples = [0_u64; Completeness::ALL.len()];
        for row in &self.rows {
            let sum = &mut samples[row.completeness as usize];
            *sum = sum.saturating_add(row.samples);
        }
        samples
    }
}

impl Head {
    pub fn new(generation: u64) -> Self {
        Self {
            generation,
            dictionary: Interner::new(),
            rows: Chunked::default(),
            ids: Vec::new(),
            begun: None,
            records: 0,
        }
    }

    /// Makes rows of a batch but for the profiles listed in `duplicates` (ascending).
    /// Changes the dictionaries only: the rows are added once they are in the log, and
    /// entries whose rows never came to be do no harm.
    pub fn prepare(&mut self, batch: &Batch, hashes: &Hashes, duplicates: &[u32], series_limit: usize) -> Prepared {
        let mut prepared = Prepared::default();
        let is_duplicate = |index: usize| duplicates.binary_search(&(index as u32)).is_ok();
        let mut wanted = vec![false; batch.stacks.len()];
        for (index, profile) in batch.profiles.iter().enumerate() {
            if is_duplicate(index) {
                prepared.duplicates = prepared.duplicates.saturating_add(profile.samples());
                continue;
            }
            prepared.addition.ids.extend(profile.id);
            for sample in &profile.samples {
                wanted[sample.stack as usize] = true;
            }
        }
        let leaves = self.dictionary.leaves(batch, hashes, &wanted);
        for (index, profile) in batch.profiles.iter().enumerate() {
            if is_duplicate(index) || profile.samples.is_empty() {
                continue;
            }
            let (labels, pid) = split_pid(&batch.resources[profile.resource as usize]);
            let series = Series { sample_type: profile.sample_type.clone(), labels };
            let known = self.dictionary.series(series, series_limit);
            let series = known.unwrap_or_else(|| self.dictionary.overflow_series(&profile.sample_type));
            for sample in &profile.samples {
                let row = Row {
                    series,
                    pid,
                    period: profile.period,
                    thread: self.dictionary.thread(&sample.thread),
                    tid: sample.tid,
                    cpu: sample.cpu,
                    labels: self.dictionary.set(&sample.labels),
                    node: leaves[sample.stack as usize],
                    completeness: sample.completeness,
                    ..Row::EMPTY
                };
                let points = sample.points.iter();
                prepared.addition.rows.extend(points.map(|point| Row {
                    time: floor_ms(point.time),
                    samples: point.samples,
                    value: point.value,
                    ..row
                }));
            }
            if known.is_none() {
                prepared.overflowed = prepared.overflowed.saturating_add(profile.samples());
            }
        }
        prepared
    }

    /// Adds what is in the log.
    pub fn add(&mut self, addition: Addition, received: i64) {
        self.records += 1;
        self.begun.get_or_insert(received);
        self.ids.extend(addition.ids);
        for row in addition.rows {
            self.rows.push(row);
        }
    }

    pub fn view(&self) -> Arc<HeadView> {
        Arc::new(HeadView {
            names: self.dictionary.names.clone(),
            stacks: self.dictionary.stacks.clone(),
            rows: self.rows.clone(),
        })
    }

    /// Bytes of memory, roughly.
    pub fn bytes(&self) -> usize {
        self.rows.len() * size_of::<Row>() + self.dictionary.bytes() + self.ids.len() * 16
    }
}

/// Takes `process.pid` out of a resource's labels where it is a number: each process
/// would be a series of its own otherwise.
fn split_pid(labels: &Labels) -> (Labels, u32) {
    let pid = labels.get("process.pid").and_then(|value| {
        let pid: u32 = value.parse().ok()?;
        (pid != 0 && pid.to_string() == **value).then_some(pid)
    });
    match pid {
        Some(pid) => (labels.iter().filter(|(name, _)| **name != *"process.pid").cloned().collect(), pid),
        None => (labels.clone(), 0),
    }
}
