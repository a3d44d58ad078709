//! Labels bound to one head or block: conditions and groups are worked out once per
//! series, label set and thread name, and rows only look up.

use everflame_profile::{
    Matcher, MatcherOp, Str,
    label::{candidates, means},
};
use rustc_hash::FxHashMap;

use super::{dictionary::Names, row::Row, rows_reader::Columns};

/// Attributes that are columns of a row.
const COLUMNS: [(&str, RowColumn); 4] = [
    ("thread.name", RowColumn::Thread),
    ("process.pid", RowColumn::Pid),
    ("thread.id", RowColumn::Tid),
    ("cpu.logical_number", RowColumn::Cpu),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowColumn {
    Thread,
    Pid,
    Tid,
    Cpu,
}

/// A label's value in one row, as small as it goes. Equal keys of one binding mean
/// equal values; equal values may have several keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// Index into the binding's values; 0 is the missing label.
    Value(u32),
    /// Index into the thread names.
    Thread(u32),
    /// A pid, tid or cpu.
    Number(u32),
}

/// One attribute that a label may stand for.
#[derive(Debug)]
struct Attribute {
    column: Option<RowColumn>,
    /// Value by label set, where any set has the attribute.
    sets: Option<Vec<u32>>,
    /// Value by series.
    series: Vec<u32>,
}

/// A label bound to a head's or block's dictionary.
#[derive(Debug)]
pub(crate) struct BoundLabel {
    attributes: Vec<Attribute>,
    values: Vec<Str>,
    /// Whether the series alone decides.
    pub by_series: bool,
    /// Columns that [`BoundLabel::key`] reads.
    pub columns: Columns,
}

impl BoundLabel {
    /// Binds a label (as `resolve_label` leaves it).
    pub fn new(label: &str, names: &Names) -> Self {
        Self::first_of(&candidates(label), names)
    }

    /// Binds the first of several labels that is set.
    pub fn first_of(labels: &[&str], names: &Names) -> Self {
        let mut values = vec![Str::from("")];
        let mut ids: FxHashMap<Str, u32> = FxHashMap::default();
        let mut value_id = |value: Option<&Str>| match value {
            Some(value) => *ids.entry(value.clone()).or_insert_with(|| {
                values.push(value.clone());
                values.len() as u32 - 1
            }),
            None => 0,
        };
        let mut attributes = Vec::new();
        for label in labels {
            let find = |labels: &everflame_profile::Labels| match labels.get(label) {
                Some(value) => Some(value.clone()),
                None => labels.iter().find(|(name, _)| means(label, name)).map(|(_, value)| value.clone()),
            };
            let series = names.series.iter().map(|series| value_id(find(&series.labels).as_ref())).collect();
            let sets: Vec<u32> = names.sets.iter().map(|set| value_id(find(set).as_ref())).collect();
            let sets = sets.iter().any(|value| *value != 0).then_some(sets);
            let column = COLUMNS.into_iter().find(|(name, _)| means(label, name)).map(|(_, column)| column);
            attributes.push(Attribute { column, sets, series });
        }
        let mut columns = Columns::SERIES;
        for attribute in &attributes {
            columns = match attribute.column {
                Some(RowColumn::Thread) => columns.with(Columns::THREAD),
                Some(RowColumn::Pid) => columns.with(Columns::PID),
                Some(RowColumn::Tid) => columns.with(Columns::TID),
                Some(RowColumn::Cpu) => columns.with(Columns::CPU),
                None => columns,
            };
            if attribute.sets.is_some() {
                columns = columns.with(Columns::LABELS);
            }
        }
        let by_series = columns == Columns::SERIES;
        Self { attributes, values, by_series, columns }
    }

    /// The value's key in a row. Columns go before the sample's labels, these before
    /// the resource's.
    pub fn key(&self, row: &Row) -> Key {
        for attribute in &self.attributes {
            match attribute.column {
                Some(RowColumn::Thread) if row.thread != 0 => return Key::Thread(row.thread),
                Some(RowColumn::Pid) if row.pid != 0 => return Key::Number(row.pid),
                Some(RowColumn::Tid) if row.tid != 0 => return Key::Number(row.tid),
                Some(RowColumn::Cpu) if row.cpu != u32::MAX => return Key::Number(row.cpu),
                _ => {}
            }
            let of_set = attribute.sets.as_ref().and_then(|sets| sets.get(row.labels as usize));
            match of_set {
                Some(value) if *value != 0 => return Key::Value(*value),
                _ => {}
            }
            match attribute.series.get(row.series as usize) {
                Some(value) if *value != 0 => return Key::Value(*value),
                _ => {}
            }
        }
        Key::Value(0)
    }

    /// The value behind a key.
    pub fn value(&self, key: Key, names: &Names) -> Str {
        match key {
            Key::Value(value) => self.values.get(value as usize).cloned(),
            Key::Thread(thread) => names.threads.get(thread).cloned(),
            Key::Number(number) => Some(Str::from(number.to_string())),
        }
        .unwrap_or_default()
    }
}

/// A condition bound to a dictionary.
#[derive(Debug)]
pub(crate) struct BoundMatcher<'a> {
    pub label: BoundLabel,
    op: &'a MatcherOp,
    values: Vec<bool>,
    threads: Vec<bool>,
}

/// What a thread of a query remembers of the numbers it has tested.
pub(crate) type Tested = FxHashMap<u32, bool>;

impl<'a> BoundMatcher<'a> {
    pub fn new(matcher: &'a Matcher, names: &Names) -> Self {
        let label = BoundLabel::new(&matcher.name, names);
        let values = label.values.iter().map(|value| matcher.op.accepts(value)).collect();
        let has_threads = label.attributes.iter().any(|attribute| attribute.column == Some(RowColumn::Thread));
        let threads = names.threads.iter().filter(|_| has_threads).map(|name| matcher.op.accepts(name)).collect();
        Self { label, op: &matcher.op, values, threads }
    }

    pub fn accepts(&self, row: &Row, tested: &mut Tested) -> bool {
        match self.label.key(row) {
            Key::Value(value) => self.values.get(value as usize).copied().unwrap_or(false),
            Key::Thread(thread) => self.threads.get(thread as usize).copied().unwrap_or(false),
            Key::Number(number) => *tested.entry(number).or_insert_with(|| self.op.accepts(&number.to_string())),
        }
    }
}
