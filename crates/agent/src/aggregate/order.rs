//! The order of what a batch holds, and how exact its times are: what compression lives on.

use std::cmp::Ordering;

use everflame_profile::{Frame, Stack};

/// Frames by what they say and stacks by their roots, without repetition: neighbours then
/// share most of their bytes, which halves the frames on the wire. Says which number each
/// stack has now.
pub(super) fn in_order(frames: Vec<Frame>, stacks: Vec<Stack>) -> (Vec<Frame>, Vec<Stack>, Vec<u32>) {
    let (frames, frame_numbers) = sorted(frames, Frame::cmp);
    let renumbered = |frame: u32| frame_numbers.get(frame as usize).copied().unwrap_or(0);
    let stacks = stacks.into_iter().map(|stack| Stack(stack.0.into_iter().map(renumbered).collect())).collect();
    let (stacks, stack_numbers) = sorted(stacks, |a: &Stack, b: &Stack| a.0.iter().rev().cmp(b.0.iter().rev()));
    (frames, stacks, stack_numbers)
}

/// The values in an order, and the place that each has in it.
fn sorted<T>(values: Vec<T>, order: impl Fn(&T, &T) -> Ordering) -> (Vec<T>, Vec<u32>) {
    let mut numbered: Vec<(u32, T)> = (0..).zip(values).collect();
    numbered.sort_unstable_by(|a, b| order(&a.1, &b.1));
    let mut places = vec![0; numbered.len()];
    for (place, (number, _)) in (0..).zip(&numbered) {
        places[*number as usize] = place;
    }
    (numbered.into_iter().map(|(_, value)| value).collect(), places)
}

/// Times are exact to a millisecond, and the bits below that are zeros that cost nothing on
/// the wire: 2^20 ns, so that they are whole bytes. A tick of a virtual CPU is later than it
/// should be by more.
pub(super) fn rounded(time: i64) -> i64 {
    const BITS: u32 = 20;
    time.saturating_add(1 << (BITS - 1)) >> BITS << BITS
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use everflame_profile::FrameKind;

    use super::*;

    #[test]
    fn what_is_sorted_says_the_same() {
        let frame = |address| Frame { kind: FrameKind(Arc::from("native")), mapping: None, address, lines: Vec::new() };
        let frames: Vec<Frame> = [50, 10, 40, 20, 30].map(frame).into();
        let stacks: Vec<Stack> = [vec![0, 1, 2], vec![3, 1], vec![], vec![4, 2], vec![2]].map(Stack).into();
        let said = |frames: &[Frame], stack: &Stack| -> Vec<u64> {
            stack.0.iter().map(|f| frames[*f as usize].address).collect()
        };
        let before: Vec<_> = stacks.iter().map(|s| said(&frames, s)).collect();
        let (frames, stacks, numbers) = in_order(frames, stacks);
        let after: Vec<_> = numbers.iter().map(|n| said(&frames, &stacks[*n as usize])).collect();
        assert_eq!(after, before);
        let roots: Vec<_> = stacks.iter().map(|s| said(&frames, s).into_iter().rev().collect::<Vec<_>>()).collect();
        assert!(roots.is_sorted() && frames.is_sorted(), "{roots:?}");
    }

    #[test]
    fn times_are_exact_to_a_millisecond() {
        for time in [0, 1, 1_800_000_000_123_456_789, i64::MAX] {
            assert!(rounded(time).abs_diff(time) <= 1 << 20, "{time}");
            assert_eq!(rounded(time) % (1 << 20), 0);
        }
    }
}
