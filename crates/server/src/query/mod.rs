//! Queries: parameters to a selection, sums of the store to an answer.

pub mod accounting;
pub mod diff;
pub mod flamegraph;
pub mod json;
pub mod labels;
pub mod mesh;
pub mod names;
pub mod nodes;
pub mod params;
pub mod picture;
pub mod processes;
pub mod series;
pub mod symbols;
pub mod time;
pub mod top;
pub mod tree;

use everflame_profile::Completeness;
use everflame_store::Covered;
use serde_json::{Map, Value, json};

/// The start of every answer that covers a range.
pub fn covered(covered: &Covered) -> Map<String, Value> {
    let mut answer = Map::new();
    answer.insert("from".into(), json::seconds(covered.from).into());
    answer.insert("until".into(), json::seconds(covered.until).into());
    answer.insert("resolution_s".into(), json::seconds(covered.resolution).into());
    answer
}

/// Samples whose stack is complete, and the others by reason.
pub fn completeness(by: &[u64; Completeness::ALL.len()]) -> (u64, Value) {
    let incomplete: Map<String, Value> = (Completeness::ALL.into_iter().zip(by))
        .filter(|(reason, samples)| !reason.is_complete() && **samples > 0)
        .map(|(reason, samples)| (reason.as_str().to_owned(), json!(samples)))
        .collect();
    (by[Completeness::Complete as usize], incomplete.into())
}
