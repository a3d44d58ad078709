//! Groups: the values of some labels in a row, numbered as they come up.

use std::sync::Arc;

use everflame_profile::Str;
use rustc_hash::FxHashMap;

use super::{
    binding::{BoundLabel, Key},
    dictionary::Names,
    row::Row,
    rows_reader::Columns,
};

/// The group labels bound to a source.
#[derive(Debug, Clone)]
pub(crate) struct GroupLabels(pub Arc<Vec<BoundLabel>>);

impl GroupLabels {
    /// Columns that they read.
    pub fn columns(&self) -> Columns {
        self.0.iter().fold(Columns::NONE, |columns, label| columns.with(label.columns))
    }
}

/// The groups of one task.
#[derive(Debug)]
pub(crate) struct Groups {
    labels: GroupLabels,
    /// Whether each series is in one group.
    by_series: bool,
    of_series: FxHashMap<u32, u32>,
    ids: FxHashMap<Vec<Key>, u32>,
    keys: Vec<Vec<Key>>,
    last: Option<u32>,
    scratch: Vec<Key>,
}

impl Groups {
    pub fn new(labels: &GroupLabels) -> Self {
        let by_series = labels.0.iter().all(|label| label.by_series);
        Self {
            labels: labels.clone(),
            by_series,
            of_series: FxHashMap::default(),
            ids: FxHashMap::default(),
            keys: Vec::new(),
            last: None,
            scratch: Vec::new(),
        }
    }

    /// The number of a row's group.
    pub fn of(&mut self, row: &Row) -> u32 {
        if self.by_series
            && let Some(&group) = self.of_series.get(&row.series)
        {
            return group;
        }
        self.scratch.clear();
        self.scratch.extend(self.labels.0.iter().map(|label| label.key(row)));
        // Neighbours are mostly alike.
        if let Some(last) = self.last
            && self.keys[last as usize] == self.scratch
        {
            return last;
        }
        let group = match self.ids.get(&self.scratch) {
            Some(&group) => group,
            None => {
                let group = self.keys.len() as u32;
                self.ids.insert(self.scratch.clone(), group);
                self.keys.push(self.scratch.clone());
                group
            }
        };
        self.last = Some(group);
        if self.by_series {
            self.of_series.insert(row.series, group);
        }
        group
    }

    /// The values of each group. Two groups may have the same.
    pub fn values(&self, names: &Names) -> Vec<Vec<Str>> {
        let values = |keys: &Vec<Key>| {
            self.labels.0.iter().zip(keys).map(|(label, key)| label.value(*key, names)).collect::<Vec<_>>()
        };
        self.keys.iter().map(values).collect()
    }
}

/// Groups of several tasks and sources under one numbering.
#[derive(Debug, Default)]
pub(crate) struct AllGroups {
    ids: FxHashMap<Vec<Str>, u32>,
    pub values: Vec<Vec<Str>>,
}

impl AllGroups {
    pub fn id(&mut self, values: Vec<Str>) -> u32 {
        *self.ids.entry(values).or_insert_with_key(|values| {
            self.values.push(values.clone());
            self.values.len() as u32 - 1
        })
    }
}
