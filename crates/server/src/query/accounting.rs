//! `GET /api/v1/accounting`: every sample an agent took, and where it is.

use std::collections::BTreeMap;

use everflame_store::{Accounting, Store};
use serde_json::{Value, json};

use super::{completeness, json::seconds};
use crate::web::error::ApiError;

/// Answers from the store. Blocks.
pub fn answer(store: &dyn Store) -> Result<Vec<u8>, ApiError> {
    let instances: Vec<Value> = store.accounting()?.iter().map(instance).collect();
    Ok(json!({ "instances": instances }).to_string().into_bytes())
}

/// Each figure as it was counted; what the server dropped stands beside what the
/// agent dropped.
fn instance(account: &Accounting) -> Value {
    let report = &account.report;
    let mut dropped: BTreeMap<&str, u64> = report.dropped.iter().map(|(reason, n)| (reason.as_str(), *n)).collect();
    for (reason, samples) in &account.dropped {
        *dropped.entry(reason).or_default() += samples;
    }
    let (complete, incomplete) = completeness(&account.by_completeness);
    json!({
        "node": report.node,
        "instance": report.instance,
        "since": seconds(report.since),
        "taken": report.taken,
        "idle": report.idle,
        "stored": account.stored,
        "in_flight": report.in_flight,
        "dropped": dropped,
        "missed": {"sure": report.missed_sure, "perhaps_idle": report.missed_perhaps_idle},
        "complete": complete,
        "incomplete": incomplete,
    })
}
