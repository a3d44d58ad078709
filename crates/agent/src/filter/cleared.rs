//! Executables that some process which may be profiled has been seen in: only their symbol
//! indexes are made and sent.

use std::sync::{Mutex, MutexGuard, PoisonError};

use everflame_profile::ContentId;
use rustc_hash::FxHashSet;

/// Contents that are remembered, at most; when there are more, all wait for their next sample.
pub const MAX_CLEARED: usize = 65_536;

/// Contents of executables.
#[derive(Debug, Default)]
pub struct Cleared(Mutex<FxHashSet<ContentId>>);

impl Cleared {
    fn lock(&self) -> MutexGuard<'_, FxHashSet<ContentId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sample that goes on names it.
    pub fn add(&self, content: ContentId) {
        let mut cleared = self.lock();
        if cleared.len() >= MAX_CLEARED && !cleared.contains(&content) {
            cleared.clear();
        }
        cleared.insert(content);
    }

    /// Whether what it is called may leave the node.
    pub fn has(&self, content: ContentId) -> bool {
        self.lock().contains(&content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_bounded() {
        let cleared = Cleared::default();
        (0..=MAX_CLEARED as u128).for_each(|number| cleared.add(ContentId(number)));
        assert_eq!(cleared.lock().len(), 1);
        assert!(cleared.has(ContentId(MAX_CLEARED as u128)) && !cleared.has(ContentId(7)));
    }
}
