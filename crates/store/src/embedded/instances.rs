//! What is known of each agent instance: its newest report and what of its samples
//! was stored or refused. Outlives blocks and retention.

use std::collections::BTreeMap;

use everflame_profile::{Completeness, Report};
use serde::{Deserialize, Serialize};

use super::record::Rejected;
use crate::query::{Accounting, NodeInfo};

/// The account of one instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Instance {
    pub report: Report,
    /// Unix nanoseconds when a report was last received.
    pub last_seen: i64,
    pub stored: u64,
    /// By [`Completeness`] as number; shorter lists are older files.
    pub by_completeness: Vec<u64>,
    pub rejected_future: u64,
    pub rejected_old: u64,
    pub rejected_limit: u64,
    pub rejected_invalid: u64,
}

/// All instances, the longest unseen forgotten beyond a limit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Instances {
    pub by_id: BTreeMap<String, Instance>,
    pub forgotten: u64,
}

impl Instances {
    /// Takes a report that came with a record, and what became of the record.
    pub fn record(
        &mut self,
        report: &Report,
        received: i64,
        stored: &[u64; Completeness::ALL.len()],
        rejected: &Rejected,
        limit: usize,
    ) {
        let id = key(report);
        if !self.by_id.contains_key(&id) && self.by_id.len() >= limit.max(1) {
            let oldest = self.by_id.iter().min_by_key(|(_, known)| known.last_seen).map(|(id, _)| id.clone());
            if let Some(oldest) = oldest {
                tracing::warn!(instance = oldest, limit, "too many agent instances: the longest unseen is forgotten");
                self.by_id.remove(&oldest);
                self.forgotten += 1;
            }
        }
        let known = self.by_id.entry(id).or_default();
        if known.report.instance.is_empty() || report.sequence >= known.report.sequence {
            let older = std::mem::replace(&mut known.report, report.clone());
            // It is said now and then, and holds until it is said anew.
            known.report.second_opinion = known.report.second_opinion.take().or(older.second_opinion);
        }
        known.last_seen = known.last_seen.max(received);
        known.by_completeness.resize(Completeness::ALL.len(), 0);
        for (sum, count) in known.by_completeness.iter_mut().zip(stored) {
            *sum = sum.saturating_add(*count);
            known.stored = known.stored.saturating_add(*count);
        }
        known.rejected_future = known.rejected_future.saturating_add(rejected.future);
        known.rejected_old = known.rejected_old.saturating_add(rejected.old);
        known.rejected_limit = known.rejected_limit.saturating_add(rejected.limit);
        known.rejected_invalid = known.rejected_invalid.saturating_add(rejected.invalid);
    }

    pub fn nodes(&self) -> Vec<NodeInfo> {
        let node = |known: &Instance| NodeInfo { report: known.report.clone(), last_seen: known.last_seen };
        self.by_id.values().map(node).collect()
    }

    pub fn accounting(&self) -> Vec<Accounting> {
        let account = |known: &Instance| {
            let mut by_completeness = [0; Completeness::ALL.len()];
            for (sum, count) in by_completeness.iter_mut().zip(&known.by_completeness) {
                *sum = *count;
            }
            let dropped = [
                ("rejected_future", known.rejected_future),
                ("rejected_old", known.rejected_old),
                ("rejected_limit", known.rejected_limit),
                ("rejected_invalid", known.rejected_invalid),
            ];
            let dropped = dropped.into_iter().filter(|(_, count)| *count > 0);
            Accounting {
                report: known.report.clone(),
                stored: known.stored,
                dropped: dropped.map(|(reason, count)| (reason.to_owned(), count)).collect(),
                by_completeness,
            }
        };
        self.by_id.values().map(account).collect()
    }
}

/// An account is of one instance in one project: who writes into a project cannot touch the
/// accounts of another, whatever instance it claims to be.
fn key(report: &Report) -> String {
    match report.project.as_str() {
        "" => report.instance.clone(),
        project => format!("{project}/{}", report.instance),
    }
}
