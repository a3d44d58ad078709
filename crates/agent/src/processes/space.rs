//! The executable part of a process's address space.

use std::{collections::HashSet, sync::Arc};

use super::records::NewMapping;

/// Executable mappings that are kept of one process.
pub const MAX_AREAS: usize = 4096;

/// An executable mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Area {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Where it begins in the file.
    pub offset: u64,
    /// Executable number, or `ANON`.
    pub number: u32,
    /// Since when it is there (CLOCK_MONOTONIC, nanoseconds); 0 where nobody saw it come.
    pub since: u64,
}

impl Area {
    fn is_same(&self, other: &Self) -> bool {
        *self == Self { since: self.since, ..*other }
    }
}

/// Executable mappings, sorted, without overlap. Cheap to clone: a fork has its parent's
/// until one of the two changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Space {
    areas: Arc<Vec<Area>>,
}

impl Space {
    /// The mappings, sorted by start.
    pub fn areas(&self) -> &[Area] {
        &self.areas
    }

    /// The same for two that are one in memory.
    pub fn identity(&self) -> usize {
        Arc::as_ptr(&self.areas) as usize
    }

    /// Adds a mapping; what lies below it is replaced, as in the process. `number` is `None`
    /// for what nothing is to be known of. Says whether there was room.
    pub fn add(&mut self, mapping: &NewMapping, number: Option<u32>, since: u64) -> bool {
        let (start, end) = (mapping.start, mapping.end);
        let first = self.areas.partition_point(|a| a.end <= start);
        let behind = self.areas.partition_point(|a| a.start < end);
        let mut pieces = [None; 3];
        if first < behind {
            let (head, tail) = (self.areas[first], self.areas[behind - 1]);
            pieces[0] = (head.start < start).then_some(Area { end: start, ..head });
            pieces[2] = (tail.end > end).then(|| Area { start: end, offset: tail.offset + (end - tail.start), ..tail });
        }
        pieces[1] = number.map(|number| Area { start, end, offset: mapping.offset, number, since });
        let kept = pieces.iter().flatten().count();
        if self.areas.len() - (behind.max(first) - first) + kept > MAX_AREAS {
            return false;
        }
        let areas = Arc::make_mut(&mut self.areas);
        areas.splice(first..behind.max(first), pieces.into_iter().flatten());
        true
    }

    /// Gives all mappings of one number to another. Says whether there were any.
    pub fn renumber(&mut self, old: u32, new: u32) -> bool {
        if !self.areas.iter().any(|a| a.number == old) {
            return false;
        }
        for area in Arc::make_mut(&mut self.areas).iter_mut().filter(|a| a.number == old) {
            area.number = new;
        }
        true
    }

    /// Takes over what is known of when the same mappings came.
    pub fn remember(&mut self, earlier: &Self) {
        for at in 0..self.areas.len() {
            let area = &self.areas[at];
            let known = earlier.areas.partition_point(|a| a.start < area.start);
            let known = earlier.areas.get(known).filter(|known| known.since > 0 && known.is_same(area));
            if let Some(since) = known.map(|known| known.since) {
                Arc::make_mut(&mut self.areas)[at].since = since;
            }
        }
    }
}

/// Spaces that were read one by one though their processes are forks of each other, once.
#[derive(Debug, Default)]
pub struct Spaces(HashSet<Space>);

impl Spaces {
    /// The shared form.
    pub fn share(&mut self, mut space: Space) -> Space {
        if let Some(known) = self.0.get(&space) {
            return known.clone();
        }
        Arc::make_mut(&mut space.areas).shrink_to_fit();
        self.0.insert(space.clone());
        space
    }

    /// Forgets those that nobody has any more.
    pub fn sweep(&mut self) {
        self.0.retain(|space| Arc::strong_count(&space.areas) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes::records::FileId;

    fn mapping(start: u64, end: u64, offset: u64) -> NewMapping {
        let file = FileId { device: (0, 1), inode: 1 };
        NewMapping { start, end, offset, file, inode_generation: 0, name: Box::default() }
    }

    fn list(space: &Space) -> Vec<(u64, u64, u64, u32)> {
        space.areas().iter().map(|a| (a.start, a.end, a.offset, a.number)).collect()
    }

    #[test]
    fn the_newest_wins_where_they_overlap() {
        let mut space = Space::default();
        assert!(space.add(&mapping(100, 200, 0), Some(8), 0));
        assert!(space.add(&mapping(300, 400, 0), Some(9), 0));
        assert!(space.add(&mapping(140, 160, 7), Some(10), 0));
        assert_eq!(list(&space), [(100, 140, 0, 8), (140, 160, 7, 10), (160, 200, 60, 8), (300, 400, 0, 9)]);
        assert!(space.add(&mapping(150, 350, 0), Some(11), 0));
        assert_eq!(list(&space), [(100, 140, 0, 8), (140, 150, 7, 10), (150, 350, 0, 11), (350, 400, 50, 9)]);
        assert!(space.add(&mapping(0, 1000, 0), None, 0));
        assert_eq!(list(&space), []);
    }

    #[test]
    fn a_full_space_refuses_and_stays_as_it_is() {
        let mut space = Space::default();
        for n in 0..MAX_AREAS as u64 {
            assert!(space.add(&mapping(n * 10, n * 10 + 5, 0), Some(8), 0));
        }
        let before = space.clone();
        assert!(!space.add(&mapping(7, 9, 0), Some(8), 0));
        assert!(!space.add(&mapping(2, 3, 0), Some(8), 0), "it would cut one in two");
        assert_eq!(space, before);
        assert!(space.add(&mapping(0, 25, 0), Some(8), 0), "one that replaces others has room");
    }

    #[test]
    fn equal_spaces_are_one_until_they_differ() {
        let mut spaces = Spaces::default();
        let read = |numbers: &[u32]| {
            let mut space = Space::default();
            for number in numbers {
                let start = u64::from(*number) * 100;
                assert!(space.add(&mapping(start, start + 10, 0), Some(*number), 0));
            }
            space
        };
        let (one, other) = (spaces.share(read(&[8, 9])), spaces.share(read(&[8, 9])));
        assert_eq!(one.identity(), other.identity());
        let mut fork = one.clone();
        assert!(!fork.renumber(10, 11));
        assert_eq!(fork.identity(), one.identity());
        assert!(fork.renumber(9, 11));
        assert_ne!(fork.identity(), one.identity());
        assert_eq!(list(&one), list(&other));
        spaces.sweep();
        assert_eq!(spaces.0.len(), 1);
        drop((one, other));
        spaces.sweep();
        assert_eq!(spaces.0.len(), 0);
    }

    #[test]
    fn what_is_read_again_keeps_its_time() {
        let (mut early, mut read) = (Space::default(), Space::default());
        early.add(&mapping(100, 200, 0), Some(8), 5);
        early.add(&mapping(300, 400, 0), Some(9), 6);
        read.add(&mapping(100, 200, 0), Some(8), 0);
        read.add(&mapping(300, 400, 0), Some(10), 0);
        read.remember(&early);
        assert_eq!(read.areas().iter().map(|a| a.since).collect::<Vec<_>>(), [5, 0]);
    }

    proptest::proptest! {
        /// Against a table of every address.
        #[test]
        fn as_a_table_of_addresses(all in proptest::collection::vec((0u64..60, 1u64..30, 0u64..9, 7u32..12), 0..40)) {
            let mut space = Space::default();
            let mut table = [None; 100];
            for (start, length, offset, number) in all {
                let number = (number > 7).then_some(number);
                space.add(&mapping(start, start + length, offset), number, 0);
                for at in start..start + length {
                    table[at as usize] = number.map(|n| (n, offset + at - start));
                }
            }
            for (at, expected) in table.iter().enumerate() {
                let at = at as u64;
                let found = space.areas().iter().find(|a| a.start <= at && at < a.end);
                proptest::prop_assert_eq!(found.map(|a| (a.number, a.offset + at - a.start)), *expected);
            }
        }
    }
}
