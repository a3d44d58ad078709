//! The mappings of images that ended, for samples that are looked at late: a process can be
//! gone by the time its samples come out of the ring.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::space::Space;

/// How long an image is remembered after its end, in nanoseconds: longer than any of its
/// samples can wait.
pub const GRACE: u64 = 10_000_000_000;
/// Images that are remembered at most; those that ended first go first.
pub const MAX_IMAGES: usize = 8192;

#[derive(Debug)]
struct Image {
    since: u64,
    until: u64,
    space: Space,
}

/// Ended images by their pids.
#[derive(Debug, Default)]
pub struct Past {
    /// Of one pid in the order of their ends.
    images: FxHashMap<u32, VecDeque<Image>>,
    /// Whose images end next to be forgotten; one entry each.
    order: VecDeque<u32>,
}

impl Past {
    /// An image ended that a pid ran from `since` until `until`.
    pub fn add(&mut self, pid: u32, since: u64, until: u64, space: Space) {
        if space.areas().is_empty() {
            return;
        }
        while self.order.len() >= MAX_IMAGES || self.oldest().is_some_and(|end| end + GRACE < until) {
            self.forget_oldest();
        }
        self.images.entry(pid).or_default().push_back(Image { since, until, space });
        self.order.push_back(pid);
    }

    /// The mappings of the image that the pid ran at a time, if that ended.
    pub fn find(&self, pid: u32, time: u64) -> Option<&Space> {
        let images = self.images.get(&pid)?;
        images.iter().rev().find(|image| image.since <= time).map(|image| &image.space)
    }

    /// Two executables turned out to be the same.
    pub fn renumber(&mut self, old: u32, new: u32) {
        for image in self.images.values_mut().flatten() {
            image.space.renumber(old, new);
        }
    }

    /// Forgets what no sample can ask for any more.
    pub fn sweep(&mut self, now: u64) {
        while self.oldest().is_some_and(|end| end + GRACE < now) {
            self.forget_oldest();
        }
    }

    fn oldest(&self) -> Option<u64> {
        let images = self.images.get(self.order.front()?)?;
        images.front().map(|image| image.until)
    }

    fn forget_oldest(&mut self) {
        let Some(pid) = self.order.pop_front() else { return };
        let Some(images) = self.images.get_mut(&pid) else { return };
        images.pop_front();
        if images.is_empty() {
            self.images.remove(&pid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes::records::{FileId, NewMapping};

    fn space(number: u32) -> Space {
        let file = FileId { device: (0, 1), inode: 1 };
        let mapping = NewMapping { start: 1, end: 2, offset: 0, file, inode_generation: 0, name: Box::default() };
        let mut space = Space::default();
        space.add(&mapping, Some(number), 0);
        space
    }

    fn number(past: &Past, pid: u32, time: u64) -> Option<u32> {
        past.find(pid, time).map(|s| s.areas()[0].number)
    }

    #[test]
    fn the_image_of_the_time() {
        let mut past = Past::default();
        past.add(7, 100, 200, space(8));
        past.add(7, 200, 300, space(9));
        past.add(7, 400, 500, Space::default());
        let at = |time| number(&past, 7, time);
        assert_eq!([at(99), at(100), at(199), at(200), at(450)], [None, Some(8), Some(8), Some(9), Some(9)]);
        assert_eq!(number(&past, 6, 150), None);
        past.renumber(9, 10);
        assert_eq!(number(&past, 7, 250), Some(10));
        past.sweep(201 + GRACE);
        assert_eq!((number(&past, 7, 150), number(&past, 7, 250)), (None, Some(10)));
        past.add(6, 0, 301 + GRACE, space(11));
        assert_eq!((number(&past, 7, 250), number(&past, 6, 1)), (None, Some(11)));
        assert_eq!((past.order.len(), past.images.len()), (1, 1));
    }

    #[test]
    fn when_full_the_first_to_end_go() {
        let mut past = Past::default();
        let images = MAX_IMAGES as u32;
        for pid in 0..images + 10 {
            past.add(pid, 0, u64::from(pid), space(8));
        }
        assert_eq!((past.order.len(), past.images.len()), (MAX_IMAGES, MAX_IMAGES));
        assert_eq!((number(&past, 9, 0), number(&past, 10, 0)), (None, Some(8)));
        // One pid that has many is forgotten piece by piece.
        for n in 0..u64::from(images) + 10 {
            past.add(1, n, n + u64::from(images), space(9));
        }
        assert_eq!((past.order.len(), past.images.len(), past.images[&1].len()), (MAX_IMAGES, 1, MAX_IMAGES));
    }
}
