//! `GET /api/v1/top`: a table of functions, files or mappings.

use axum::http::Uri;
use everflame_profile::Completeness;
use everflame_store::{Selection, StackSums, Store};
use rustc_hash::FxHashMap;
use serde_json::{Value, json};

use super::{
    completeness, covered,
    json::Unit,
    names::{Entry, Granularity, MARKER, Names},
    params::Params,
    tree::{NONE, marker},
};
use crate::{
    symbols::{Resolver, Symbols},
    web::error::ApiError,
};

/// Rows in an answer unless said.
pub const DEFAULT_ROWS: usize = 100;
/// The row of samples whose stack is complete and yet has no frame.
pub const NO_FRAMES: &str = "[no frames]";
/// The row of frames that have no file or no mapping.
pub const UNKNOWN: &str = "[unknown]";

/// What a row stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Function,
    File,
    Mapping,
}

/// What is asked for.
#[derive(Debug)]
pub struct Request {
    selection: Selection,
    by: By,
    by_total: bool,
    limit: usize,
    offset: usize,
}

/// One row under way.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    own: u64,
    total: u64,
    own_value: i64,
    total_value: i64,
}

impl Request {
    /// Reads the parameters.
    pub fn new(uri: &Uri) -> Result<Self, ApiError> {
        let params = Params::new(uri)?;
        let by = match params.choice("by", &["function", "file", "mapping"])? {
            1 => By::File,
            2 => By::Mapping,
            _ => By::Function,
        };
        Ok(Self {
            selection: params.selection()?,
            by,
            by_total: params.choice("sort", &["self", "total"])? == 1,
            limit: params.number("limit", DEFAULT_ROWS)?,
            offset: params.number("offset", 0)?,
        })
    }

    /// Answers from the store. Blocks.
    pub fn answer(&self, store: &dyn Store, symbols: &Symbols) -> Result<Vec<u8>, ApiError> {
        let sums = store.stacks(&self.selection, &[])?;
        Ok(self.table(&sums, &mut symbols.resolver()).to_string().into_bytes())
    }

    fn table(&self, sums: &StackSums, resolver: &mut Resolver) -> Value {
        let mut names = Names::new(&sums.frames, Granularity::Function, resolver);
        let mut table = Table::new(&mut names, self.by);
        let mut by_completeness = [0; Completeness::ALL.len()];
        let (mut samples, mut value) = (0, 0);
        for sum in &sums.sums {
            by_completeness[sum.completeness as usize] += sum.samples;
            samples += sum.samples;
            value += sum.value;
            table.add(sums, sum.node, sum.completeness, sum.samples, sum.value);
        }
        let rows = table.sorted(self.by_total);
        let unit = Unit::of(&sums.unit);
        let limit = if self.limit == 0 { rows.len() } else { self.limit };
        let shown: Vec<Value> = (rows.iter().skip(self.offset).take(limit))
            .map(|(entry, row)| {
                json!({
                    "name": names.names.get(entry.name),
                    "file": names.files.get(entry.file),
                    "mapping": names.mappings.get(entry.mapping),
                    "kind": names.kinds.get(entry.kind),
                    "self": row.own,
                    "total": row.total,
                    "self_value": unit.number(row.own_value),
                    "total_value": unit.number(row.total_value),
                })
            })
            .collect();
        let (complete, incomplete) = completeness(&by_completeness);
        let mut answer = covered(&sums.covered);
        answer.insert("type".into(), self.selection.sample_type.as_str().into());
        answer.insert("unit".into(), unit.as_str().into());
        answer.insert("samples".into(), samples.into());
        answer.insert("value".into(), unit.number(value).into());
        answer.insert("complete".into(), json!({"samples": complete, "incomplete": incomplete}));
        answer.insert("count".into(), rows.len().into());
        answer.insert("rows".into(), shown.into());
        Value::Object(answer)
    }
}

/// Rows by entry, folded to what the table is by.
struct Table<'a> {
    names: &'a mut Names,
    by: By,
    /// The row's entry of each entry; grows with the entries.
    folded: FxHashMap<u32, u32>,
    rows: FxHashMap<u32, Row>,
    /// The stack by which a row was last counted in total, so that recursion counts
    /// once.
    counted: FxHashMap<u32, u32>,
    stack: u32,
}

impl<'a> Table<'a> {
    fn new(names: &'a mut Names, by: By) -> Self {
        let (folded, rows, counted) = Default::default();
        Self { names, by, folded, rows, counted, stack: 0 }
    }

    fn add(&mut self, sums: &StackSums, leaf: u32, completeness: Completeness, samples: u64, value: i64) {
        self.stack += 1;
        if leaf == NONE {
            let name = if completeness.is_complete() { NO_FRAMES.to_owned() } else { marker(completeness) };
            let entry = self.names.plain(MARKER, &name);
            self.count(entry, samples, value, true);
            return;
        }
        let mut at = leaf;
        let mut own = true;
        while at != NONE {
            let node = sums.nodes[at as usize];
            let (start, end) = self.names.range(node.frame);
            for flat in (start..end).rev() {
                let entry = self.fold(self.names.flat_entry(flat));
                self.count(entry, samples, value, own);
                own = false;
            }
            at = node.parent;
        }
    }

    fn count(&mut self, entry: u32, samples: u64, value: i64, own: bool) {
        let row = self.rows.entry(entry).or_default();
        if own {
            row.own += samples;
            row.own_value += value;
        }
        if self.counted.insert(entry, self.stack) != Some(self.stack) {
            row.total += samples;
            row.total_value += value;
        }
    }

    /// The entry of the row that an entry belongs to.
    fn fold(&mut self, entry: u32) -> u32 {
        if self.by == By::Function {
            return entry;
        }
        if let Some(row) = self.folded.get(&entry) {
            return *row;
        }
        let Entry { file, mapping, .. } = self.names.entry(entry);
        let row = match self.by {
            By::File => self.names.whole_file(file, UNKNOWN),
            By::Mapping | By::Function => self.names.whole_mapping(mapping, UNKNOWN),
        };
        self.folded.insert(entry, row);
        row
    }

    /// All rows, the largest first, equal ones by their text.
    fn sorted(self, by_total: bool) -> Vec<(Entry, Row)> {
        let names = &*self.names;
        let mut rows: Vec<(Entry, Row)> = self.rows.iter().map(|(entry, row)| (names.entry(*entry), *row)).collect();
        let key = |row: &Row| if by_total { (row.total, row.own) } else { (row.own, row.total) };
        let text = |e: &Entry| (names.names.get(e.name), names.files.get(e.file), names.mappings.get(e.mapping));
        rows.sort_by(|(a, a_row), (b, b_row)| {
            (key(b_row).cmp(&key(a_row)))
                .then_with(|| text(a).cmp(&text(b)))
                .then_with(|| names.kinds.get(a.kind).cmp(names.kinds.get(b.kind)))
        });
        rows
    }
}
