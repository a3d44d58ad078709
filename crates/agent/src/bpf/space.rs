//! First-fit allocation of runs in a numbered space that grows by chunks. Freed runs are
//! given out again only after a grace period: a walk in the kernel may still read them.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// How long a freed run stays as it was. A walk in the kernel is over in a millisecond.
const GRACE: Duration = Duration::from_secs(2);

/// Runs of units in chunks of equal size.
#[derive(Debug)]
pub struct Space {
    chunk: u32,
    max_chunks: u32,
    chunks: u32,
    /// Whether a run may cross from one chunk into the next.
    spanning: bool,
    free: BTreeMap<u32, u32>,
    resting: VecDeque<(Instant, u32, u32)>,
    used: u64,
}

impl Space {
    /// A space of at most `max_chunks` chunks of `chunk` units; none exists yet.
    pub fn new(chunk: u32, max_chunks: u32, spanning: bool) -> Self {
        Self { chunk, max_chunks, chunks: 0, spanning, free: BTreeMap::new(), resting: VecDeque::new(), used: 0 }
    }

    /// Units that are given out or resting.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Chunks that must exist.
    pub fn chunks(&self) -> u32 {
        self.chunks
    }

    /// The first unit of a free run of `length`, from chunks that exist.
    pub fn allocate(&mut self, length: u32, now: Instant) -> Option<u32> {
        self.wake(now);
        let (&start, &free) = self.free.iter().find(|&(&start, &free)| self.fits(start, free, length).is_some())?;
        let at = self.fits(start, free, length)?;
        self.free.remove(&start);
        if at > start {
            self.free.insert(start, at - start);
        }
        if start + free > at + length {
            self.free.insert(at + length, start + free - at - length);
        }
        self.used += u64::from(length);
        Some(at)
    }

    fn fits(&self, start: u32, free: u32, length: u32) -> Option<u32> {
        if free < length {
            return None;
        }
        if self.spanning || start % self.chunk + length <= self.chunk {
            return Some(start);
        }
        let next = start.next_multiple_of(self.chunk);
        (next + length <= start + free && length <= self.chunk).then_some(next)
    }

    /// Adds a chunk and says its number, or `None` where the space is as large as it may be.
    pub fn grow(&mut self) -> Option<u32> {
        if self.chunks == self.max_chunks {
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
            self.insert(start, length);
        }
    }

    fn insert(&mut self, mut start: u32, mut length: u32) {
        if let Some((&before, &n)) = self.free.range(..start).next_back()
            && before + n == start
        {
            self.free.remove(&before);
            start = before;
            length += n;
        }
        if let Some(n) = self.free.remove(&(start + length)) {
            length += n;
        }
        self.free.insert(start, length);
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
        let later = now + GRACE;
        assert_eq!(space.allocate(16, later), Some(0));
        assert_eq!(space.grow(), Some(1));
        assert_eq!(space.grow(), None);
        assert_eq!(space.used(), 16);
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
    }
}
