//! Sums by stack that are written by hand, and a store that answers with them.

use std::sync::Arc;

use everflame_profile::{Completeness, Frame, FrameKind, Line, Mapping, Selector};
use everflame_server::symbols::Symbols;
use everflame_store::{
    Accounting, Append, Appended, Covered, LabelValue, NodeInfo, ProcessInfo, Selection, SeriesSums, StackSum,
    StackSums, Store, StoreError, StoreStats, TrieNode, TypeInfo,
};
use serde_json::Value;

/// Nanoseconds that a sample is worth here.
pub const PERIOD: i64 = 52_631_578;

/// Collects stacks given as names, outermost first.
#[derive(Debug, Default)]
pub struct Sums(pub StackSums);

impl Sums {
    pub fn new() -> Self {
        let covered = Covered { from: 1_000_000_000, until: 2_500_000_000, resolution: 0 };
        Self(StackSums { covered, unit: "nanoseconds".into(), ..StackSums::default() })
    }

    /// Adds samples of one stack in the group of these label values.
    pub fn add(&mut self, group: &[&str], stack: &[Frame], completeness: Completeness, samples: u64) -> &mut Self {
        let sums = &mut self.0;
        let group: Vec<Arc<str>> = group.iter().map(|v| Arc::from(*v)).collect();
        let group = place(&mut sums.groups, group);
        let mut node = u32::MAX;
        for frame in stack {
            let frame = place(&mut sums.frames, frame.clone());
            node = place(&mut sums.nodes, TrieNode { parent: node, frame });
        }
        let same = |s: &&mut StackSum| (s.group, s.node, s.completeness) == (group, node, completeness);
        let value = samples as i64 * PERIOD;
        match sums.sums.iter_mut().find(same) {
            Some(sum) => {
                sum.samples += samples;
                sum.value += value;
            }
            None => sums.sums.push(StackSum { group, node, completeness, samples, value }),
        }
        self
    }
}

fn place<T: PartialEq>(list: &mut Vec<T>, item: T) -> u32 {
    match list.iter().position(|other| *other == item) {
        Some(at) => at as u32,
        None => {
            list.push(item);
            (list.len() - 1) as u32
        }
    }
}

/// A native frame with one name, in the mapping `app`.
pub fn frame(name: &str) -> Frame {
    inlined(&[name], 0)
}

/// A native frame of functions inlined into each other, innermost first.
pub fn inlined(names: &[&str], address: u64) -> Frame {
    let line = |name: &&str| Line { function: Arc::from(*name), file: Arc::from("app.c"), line: address as u32 };
    Frame { kind: kind("native"), mapping: Some(mapping("app")), address, lines: names.iter().map(line).collect() }
}

/// A frame without a name.
pub fn unnamed(module: &str, address: u64) -> Frame {
    Frame { kind: kind("native"), mapping: Some(mapping(module)), address, lines: Vec::new() }
}

pub fn frames(names: &[&str]) -> Vec<Frame> {
    names.iter().map(|name| frame(name)).collect()
}

fn kind(name: &str) -> FrameKind {
    FrameKind(Arc::from(name))
}

fn mapping(name: &str) -> Arc<Mapping> {
    Arc::new(Mapping { name: Arc::from(name), build_id: Arc::from(""), content_id: None })
}

/// Answers every query for stacks with the same sums, regrouped as asked: the groups
/// are taken as they were written, or merged where no label is asked for.
pub struct Fixed {
    pub sums: StackSums,
    /// Why nothing can be appended.
    pub append: fn() -> StoreError,
}

/// One that only answers.
pub fn fixed(sums: &StackSums) -> Fixed {
    Fixed { sums: sums.clone(), append: || StoreError::Unusable("this store only answers".into()) }
}

impl Store for Fixed {
    fn stacks(&self, _: &Selection, group: &[String]) -> Result<StackSums, StoreError> {
        let mut sums = self.sums.clone();
        if group.is_empty() {
            sums.groups = vec![Vec::new()];
            let mut merged: Vec<StackSum> = Vec::new();
            for mut sum in sums.sums.drain(..) {
                sum.group = 0;
                match merged.iter_mut().find(|m| (m.node, m.completeness) == (sum.node, sum.completeness)) {
                    Some(same) => {
                        same.samples += sum.samples;
                        same.value += sum.value;
                    }
                    None => merged.push(sum),
                }
            }
            sums.sums = merged;
        }
        Ok(sums)
    }

    fn take(&self, _: Append) -> Result<Appended, StoreError> {
        Err((self.append)())
    }

    fn series(&self, _: &Selection, _: Option<&str>, _: i64) -> Result<SeriesSums, StoreError> {
        Ok(SeriesSums::default())
    }

    fn labels(&self, _: &Selection) -> Result<(Covered, Vec<String>), StoreError> {
        Ok(Default::default())
    }

    fn label_values(&self, _: &Selection, _: &str) -> Result<(Covered, Vec<LabelValue>), StoreError> {
        Ok(Default::default())
    }

    fn processes(&self, _: &Selection) -> Result<(Covered, Vec<ProcessInfo>), StoreError> {
        Ok(Default::default())
    }

    fn types(&self, _: &Selector) -> Result<Vec<TypeInfo>, StoreError> {
        Ok(Vec::new())
    }

    fn nodes(&self) -> Result<Vec<NodeInfo>, StoreError> {
        Ok(Vec::new())
    }

    fn accounting(&self) -> Result<Vec<Accounting>, StoreError> {
        Ok(Vec::new())
    }

    fn stats(&self) -> StoreStats {
        StoreStats::default()
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// The answer to a flame graph query.
pub fn flamegraph(sums: &StackSums, query: &str) -> Value {
    serde_json::from_slice(&flamegraph_bytes(sums, query)).expect("JSON")
}

/// The answer to a flame graph query, as it is sent.
pub fn flamegraph_bytes(sums: &StackSums, query: &str) -> Vec<u8> {
    let uri = format!("/api/v1/flamegraph?{query}").parse().expect("a URI");
    let request = everflame_server::query::flamegraph::Request::new(&uri).expect("parameters");
    let directory = tempfile::tempdir().expect("a directory");
    let symbols = Symbols::open(directory.path(), Default::default()).expect("a symbol directory");
    request.answer(&fixed(sums), &symbols).expect("an answer")
}

/// The answer to a query for the top.
pub fn top(sums: &StackSums, query: &str) -> Value {
    let uri = format!("/api/v1/top?{query}").parse().expect("a URI");
    let request = everflame_server::query::top::Request::new(&uri).expect("parameters");
    let directory = tempfile::tempdir().expect("a directory");
    let symbols = Symbols::open(directory.path(), Default::default()).expect("a symbol directory");
    let answer = request.answer(&fixed(sums), &symbols).expect("an answer");
    serde_json::from_slice(&answer).expect("JSON")
}
