//! From CLOCK_MONOTONIC, which every time of the kernel side is in, to Unix time. Their
//! distance changes when somebody sets the clock and when the machine sleeps, which
//! CLOCK_MONOTONIC does not see: what came before keeps the distance that held then.

use std::{
    collections::VecDeque,
    fs::File,
    io::Read,
    os::fd::{AsFd, BorrowedFd},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{bpf::monotonic_ns, sys};

/// A change up to this far is drift: it is followed without a step. Nanoseconds.
const DRIFT: u64 = 1_000_000;
/// Steps that are remembered; the samples of any batch are younger than the oldest.
const MOST: usize = 16;

/// The distances between the two clocks, and since when each holds.
#[derive(Debug)]
pub struct WallClock {
    steps: VecDeque<Step>,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    since: u64,
    offset: i64,
}

impl WallClock {
    /// As the clocks stand now.
    pub fn now() -> Self {
        Self::with_offset(unix_offset())
    }

    /// With a given distance from CLOCK_MONOTONIC to Unix time, nanoseconds.
    pub fn with_offset(offset: i64) -> Self {
        Self { steps: VecDeque::from([Step { since: 0, offset }]) }
    }

    /// Looks at the clocks again. What was taken between this look and the last, at one of
    /// which the distance was another, counts as before the step.
    pub fn look(&mut self) {
        self.note(monotonic_ns(), unix_offset());
    }

    fn note(&mut self, now: u64, offset: i64) {
        match self.steps.back_mut() {
            Some(last) if last.offset.abs_diff(offset) <= DRIFT => last.offset = offset,
            _ => {
                self.steps.push_back(Step { since: now, offset });
                if self.steps.len() > MOST {
                    self.steps.pop_front();
                }
            }
        }
    }

    /// The Unix time of a CLOCK_MONOTONIC time, both in nanoseconds.
    pub fn unix(&self, monotonic: u64) -> i64 {
        let held = self.steps.iter().rev().find(|step| step.since <= monotonic).or(self.steps.front());
        (monotonic as i64).saturating_add(held.map_or(0, |step| step.offset))
    }
}

/// Says at once that the distance has changed: the clock was set, or the machine woke.
#[derive(Debug)]
pub struct StepWatch(File);

impl StepWatch {
    /// Watches from now on. Where the kernel has no such thing, steps are seen by looking.
    pub fn begin() -> Option<Self> {
        sys::clock_watch().inspect_err(|e| tracing::debug!("steps of the clock are seen late: {e}")).ok().map(Self)
    }

    /// What to poll: readable after a step.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The step has been seen.
    pub fn seen(&self) {
        // It is told as an error (ECANCELED), once.
        let _ = (&self.0).read(&mut [0; 8]);
    }
}

/// Unix time minus CLOCK_MONOTONIC now, nanoseconds.
fn unix_offset() -> i64 {
    let before = monotonic_ns();
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64);
    let after = monotonic_ns();
    unix - (before + (after - before) / 2) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn times_before_a_sleep_stay() {
        let mut clock = WallClock::with_offset(1_000 * SECOND);
        clock.note(10, 1_000 * SECOND + 5);
        assert_eq!(clock.unix(7), 1_000 * SECOND + 12, "drift is followed");
        // It slept for an hour between the looks at 10 and at 20.
        clock.note(20, 4_600 * SECOND);
        assert_eq!(clock.unix(7), 1_000 * SECOND + 12);
        assert_eq!(clock.unix(20), 4_600 * SECOND + 20);
        // Somebody set it back.
        clock.note(30, 0);
        assert_eq!((clock.unix(29), clock.unix(31)), (4_600 * SECOND + 29, 31));
    }

    #[test]
    fn steps_are_bounded_and_now_is_now() {
        let mut clock = WallClock::now();
        for step in 0..100 {
            clock.note(step, step as i64 * SECOND);
        }
        assert_eq!(clock.steps.len(), MOST);
        clock.look();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64;
        assert!(clock.unix(monotonic_ns()).abs_diff(unix) < DRIFT * 10);
    }
}
