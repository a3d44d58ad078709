//! What of a batch may enter: samples too far in the future, older than the
//! retention or beyond a limit are left out and counted; one of them never fails
//! the batch.

use everflame_profile::{Batch, Labels, Stack};

use super::record::Rejected;

/// How far ahead of the server's clock a sample may be, in nanoseconds.
pub(crate) const FUTURE: i64 = 5 * 60 * 1_000_000_000;
/// Longest string of a label, a thread or a frame, in bytes.
pub(crate) const MAX_STRING: usize = 64 << 10;
/// Most labels of a resource or a sample.
pub(crate) const MAX_LABELS: usize = 256;
/// Most frames of a stack: twice what our agent walks.
pub(crate) const MAX_STACK: usize = 2048;
/// Most samples that one observation may stand for, so that sums stay exact.
pub(crate) const MAX_SAMPLES: u64 = 1 << 32;
/// Largest value of an observation, for the same reason (104 days of nanoseconds).
pub(crate) const MAX_VALUE: u64 = 1 << 53;

/// Takes out of a batch what is refused; returns for each profile how much that was.
pub(crate) fn admit(batch: &mut Batch, received: i64, retention: i64) -> Vec<Rejected> {
    let newest = received.saturating_add(FUTURE);
    let oldest = received.saturating_sub(retention);
    let mut refused = Vec::with_capacity(batch.profiles.len());
    let frames_ok: Vec<bool> = batch
        .frames
        .iter()
        .map(|frame| {
            let mapping = frame.mapping.as_ref();
            mapping.is_none_or(|m| m.name.len() <= MAX_STRING && m.build_id.len() <= MAX_STRING)
                && frame.kind.0.len() <= MAX_STRING
                && frame.lines.len() <= MAX_LABELS
                && frame.lines.iter().all(|l| l.function.len() <= MAX_STRING && l.file.len() <= MAX_STRING)
        })
        .collect();
    let stack_ok = |stack: &Stack| {
        stack.0.len() <= MAX_STACK
            && stack.0.iter().all(|&frame| frames_ok.get(frame as usize).copied().unwrap_or(false))
    };
    let stacks_ok: Vec<bool> = batch.stacks.iter().map(stack_ok).collect();
    let resources_ok: Vec<bool> = batch.resources.iter().map(labels_ok).collect();
    for profile in &mut batch.profiles {
        let mut rejected = Rejected::default();
        let within = resources_ok.get(profile.resource as usize).copied().unwrap_or(false)
            && profile.sample_type.name.len() <= MAX_STRING
            && profile.sample_type.unit.len() <= MAX_STRING;
        profile.samples.retain_mut(|sample| {
            let within = within
                && stacks_ok.get(sample.stack as usize).copied().unwrap_or(false)
                && sample.thread.len() <= MAX_STRING
                && labels_ok(&sample.labels);
            sample.points.retain(|point| {
                let counter = if !within || point.samples > MAX_SAMPLES || point.value.unsigned_abs() > MAX_VALUE {
                    &mut rejected.limit
                } else if point.time > newest {
                    &mut rejected.future
                } else if point.time < oldest {
                    &mut rejected.old
                } else {
                    return true;
                };
                *counter = counter.saturating_add(point.samples);
                false
            });
            !sample.points.is_empty()
        });
        rejected.profiles = u64::from(rejected != Rejected::default());
        refused.push(rejected);
    }
    // Indexes of refused stacks must stay valid, but their frames need not be.
    for (stack, _) in batch.stacks.iter_mut().zip(&stacks_ok).filter(|(_, ok)| !**ok) {
        stack.0.clear();
    }
    refused
}

fn labels_ok(labels: &Labels) -> bool {
    labels.len() <= MAX_LABELS
        && labels.iter().all(|(name, value)| name.len() <= MAX_STRING && value.len() <= MAX_STRING)
}
