//! The duplicate window: ids of the newest profiles, so that one which arrives twice
//! counts once.

use std::collections::VecDeque;

use everflame_profile::ProfileId;
use rustc_hash::FxHashSet;

/// A bounded set that forgets the oldest.
#[derive(Debug)]
pub(crate) struct Window {
    known: FxHashSet<ProfileId>,
    order: VecDeque<ProfileId>,
    limit: usize,
    pub evicted: u64,
}

impl Window {
    pub fn new(limit: usize) -> Self {
        Self { known: FxHashSet::default(), order: VecDeque::new(), limit: limit.max(1), evicted: 0 }
    }

    pub fn contains(&self, id: &ProfileId) -> bool {
        self.known.contains(id)
    }

    pub fn insert(&mut self, id: ProfileId) {
        if !self.known.insert(id) {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
            self.evicted += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_is_counted() {
        let mut window = Window::new(3);
        for id in 0..5_u8 {
            window.insert([id; 16]);
            window.insert([id; 16]);
        }
        assert_eq!(window.evicted, 2);
        assert!(!window.contains(&[1; 16]));
        assert!((2..5).all(|id| window.contains(&[id; 16])));
    }
}
