//! Two walks of one stack, frame by frame.

use everflame_profile::Completeness;

use super::message::End;
use crate::sample::UserFrame;

/// What comes of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The same frames, and both say that the last is a root.
    Agree,
    /// The first frame in which they differ, or where only one of them sees a root. The step
    /// from the frame before led there.
    Differ(usize),
    /// The sampler stopped and said why; the second walk sees this frame next.
    Shorter(usize),
    /// The second walk ended first, with all frames before the same.
    NotJudged(&'static str),
}

/// Compares the sampler's frames with those of the second walk.
pub fn compare(ours: &[UserFrame], completeness: Completeness, theirs: &[UserFrame], end: End) -> Verdict {
    if completeness == Completeness::TableChanged || ours.is_empty() {
        return Verdict::NotJudged("no_stack");
    }
    if let Some(at) = ours.iter().zip(theirs).position(|(a, b)| a != b) {
        return Verdict::Differ(at);
    }
    if theirs.len() > ours.len() {
        return match completeness {
            Completeness::Complete => Verdict::Differ(ours.len()),
            _ => Verdict::Shorter(ours.len()),
        };
    }
    match end {
        End::Root if ours.len() > theirs.len() => Verdict::Differ(theirs.len()),
        End::Root if completeness == Completeness::Complete => Verdict::Agree,
        // It knows that this is a root, which the sampler did not see.
        End::Root => Verdict::Shorter(ours.len()),
        end => Verdict::NotJudged(end.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(numbers: &[u64]) -> Vec<UserFrame> {
        numbers.iter().map(|n| UserFrame(*n)).collect()
    }

    #[test]
    fn every_way_in_which_two_walks_can_meet() {
        let ours = frames(&[1, 2, 3]);
        let whole = Completeness::Complete;
        let stopped = Completeness::NoUnwindInfo;
        for (completeness, theirs, end, verdict) in [
            (whole, &[1, 2, 3][..], End::Root, Verdict::Agree),
            (whole, &[1, 9, 3], End::Root, Verdict::Differ(1)),
            (whole, &[1, 9], End::StackTooShort, Verdict::Differ(1)),
            (whole, &[1, 2], End::Root, Verdict::Differ(2)),
            (whole, &[1, 2, 3, 4], End::Root, Verdict::Differ(3)),
            (whole, &[1, 2], End::StackTooShort, Verdict::NotJudged("stack_too_short")),
            (whole, &[1, 2, 3], End::NoUnwindData, Verdict::NotJudged("no_unwind_data")),
            (stopped, &[1, 2, 3, 4], End::NoModule, Verdict::Shorter(3)),
            (stopped, &[1, 2, 3], End::Root, Verdict::Shorter(3)),
            (stopped, &[1, 2, 3], End::NoUnwindData, Verdict::NotJudged("no_unwind_data")),
            (stopped, &[1, 2], End::Root, Verdict::Differ(2)),
            (Completeness::TableChanged, &[1, 2, 3], End::Root, Verdict::NotJudged("no_stack")),
        ] {
            assert_eq!(
                compare(&ours, completeness, &frames(theirs), end),
                verdict,
                "{completeness:?} {theirs:?} {end:?}"
            );
        }
    }
}
