//! Allocation of runs in a numbered space that grows by chunks: the smallest hole that is
//! large enough. Freed runs are given out again only after a grace period: a walk in the
//! kernel may still read them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

/// How long a freed run stays as it was. A walk in the kernel is over in a millisecond.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// Runs of units in chunks of equal size.
#[derive(Debug)]
pub struct Space {
    chunk: u32,
    max_chunks: u32,
    chunks: u32,
    /// Whether a run may cross from one chunk into the next.
    spanning: bool,
    /// Holes: start and length. Where runs may not cross chunks, neither do holes.
    free: BTreeMap<u32, u32>,
    /// The same by length and start.
    by_length: BTreeSet<(u32, u32)>,
    resting: VecDeque<(Instant, u32, u32)>,
    used: u64,
    rests: u64,
}

impl Space {
    /// A space of at most `max_chunks` chunks of `chunk` units; none exists yet.
    pub fn new(chunk: u32, max_chunks: u32, spanning: bool) -> Self {
        Self {
            chunk,
            max_chunks,
            chunks: 0,
            spanning,
            free: BTreeMap::new(),
            by_length: BTreeSet::new(),
            resting: VecDeque::new(),
            used: 0,
            rests: 0,
        }
    }

    /// Units that are given out or resting.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Units that rest: they will be free without anybody's doing.
    pub fn rests(&self) -> u64 {
        self.rests
    }

    /// Chunks that must exist.
    pub fn chunks(&self) -> u32 {
        self.chunks
    }

    /// Whether it is as large as it may be.
    pub fn is_grown(&self) -> bool {
        self.chunks >= self.max_chunks
    }

    /// The first unit of a free run of `length`, from chunks that exist.
    pub fn allocate(&mut self, length: u32, now: Instant) -> Option<u32> {
        self.wake(now);
        let &(free, start) = self.by_length.range((length, 0)..).next()?;
        self.take_hole(start, free);
        if free > length {
            self.add_hole(start + length, free - length);
        }
        self.used += u64::from(length);
        Some(start)
    }

    /// Adds a chunk and says its number, or `None` where the space is as large as it may be.
    pub fn grow(&mut self) -> Option<u32> {
        if self.is_grown() {
            return None;
        }
        let number = self.chunks;
        self.chunks += 1;
        self.insert(number * self.chunk, self.chunk);
        Some(number)
    }

    /// Gives a run back, to be used again after the grace period.
    pub fn release(&mut self, start: u32, length: u32, now: Instant) {
        if length > 0 {
            self.rests += u64::from(length);
            self.resting.push_back((now + GRACE, start, length));
        }
    }

    fn wake(&mut self, now: Instant) {
        while let Some(&(until, start, length)) = self.resting.front() {
            if until > now {
                break;
            }
            self.resting.pop_front();
            self.used -= u64::from(length);
            self.rests -= u64::from(length);
            self.insert(start, length);
        }
    }

    fn add_hole(&mut self, start: u32, length: u32) {
        self.free.insert(start, length);
        self.by_length.insert((length, start));
    }

    fn take_hole(&mut self, start: u32, length: u32) {
        self.free.remove(&start);
        self.by_length.remove(&(length, start));
    }

    fn insert(&mut self, mut start: u32, mut length: u32) {
        let may_join = |border: u32| self.spanning || !border.is_multiple_of(self.chunk);
        let end = start + length;
        let before = self.free.range(..start).next_back().map(|(&at, &n)| (at, n));
        let before = before.filter(|(at, n)| at + n == start && may_join(start));
        let behind = self.free.get(&end).copied().filter(|_| may_join(end));
        if let Some((at, n)) = before {
            self.take_hole(at, n);
            start = at;
            length += n;
        }
        if let Some(n) = behind {
            self.take_hole(end, n);
            length += n;
        }
        self.add_hole(start, length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_come_back_after_the_grace_period_and_merge() {
        let now = Instant::now();
        let mut space = Space::new(16, 2, true);
        assert_eq!(space.allocate(1, now), None);
        assert_eq!(space.grow(), Some(0));
        let a = space.allocate(10, now).expect("room");
        let b = space.allocate(6, now).expect("room");
        assert_eq!((a, b), (0, 10));
        assert_eq!(space.allocate(1, now), None);
        space.release(a, 10, now);
        assert_eq!(space.allocate(1, now), None, "still resting");
        space.release(b, 6, now);
        assert_eq!((space.used(), space.rests()), (16, 16));
        let later = now + GRACE;
        assert_eq!(space.allocate(16, later), Some(0));
        assert_eq!(space.grow(), Some(1));
        assert_eq!(space.grow(), None);
        assert_eq!((space.used(), space.rests()), (16, 0));
    }

    #[test]
    fn a_run_spans_chunks_only_where_it_may() {
        let now = Instant::now();
        let mut spanning = Space::new(16, 4, true);
        spanning.grow();
        spanning.grow();
        assert_eq!(spanning.allocate(20, now), Some(0));
        let mut whole = Space::new(16, 4, false);
        whole.grow();
        whole.grow();
        assert_eq!(whole.allocate(10, now), Some(0));
        assert_eq!(whole.allocate(10, now), Some(16));
        assert_eq!(whole.allocate(6, now), Some(10));
        assert_eq!(whole.allocate(20, now), None);
        for (start, length) in [(0, 10), (10, 6), (16, 10)] {
            whole.release(start, length, now);
        }
        let later = now + GRACE;
        assert_eq!(whole.allocate(17, later), None, "holes do not join across chunks either");
        assert_eq!((whole.allocate(16, later), whole.allocate(16, later)), (Some(0), Some(16)));
    }

    proptest::proptest! {
        /// No two runs overlap, none crosses a border that it may not, and what is given back
        /// can all be had again in one piece.
        #[test]
        fn runs_never_overlap(
            wishes in proptest::collection::vec((1u32..40, proptest::bool::ANY, 0usize..8), 1..200),
            spanning: bool,
        ) {
            let mut now = Instant::now();
            let mut space = Space::new(64, 4, spanning);
            let mut held: Vec<(u32, u32)> = Vec::new();
            for (length, back, which) in wishes {
                if back && !held.is_empty() {
                    let (start, length) = held.swap_remove(which % held.len());
                    space.release(start, length, now);
                    now += GRACE / 3;
                    continue;
                }
                let Some(start) = space.allocate(length, now).or_else(|| {
                    space.grow();
                    space.allocate(length, now)
                }) else { continue };
                proptest::prop_assert!(start + length <= space.chunks() * 64);
                proptest::prop_assert!(spanning || start / 64 == (start + length - 1) / 64);
                proptest::prop_assert!(held.iter().all(|(s, n)| start + length <= *s || s + n <= start));
                held.push((start, length));
            }
            for (start, length) in held {
                space.release(start, length, now);
            }
            now += GRACE;
            let whole = if spanning { space.chunks() * 64 } else { 64 };
            if space.chunks() > 0 {
                proptest::prop_assert!(space.allocate(whole, now).is_some());
                proptest::prop_assert_eq!(space.used(), u64::from(whole));
            }
        }
    }
}
