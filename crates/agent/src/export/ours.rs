//! Whether a destination is an Everflame server, as its answers say: only those take symbol indexes.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering::Relaxed},
};

const IS: u8 = 1;
const IS_NOT: u8 = 2;

/// What the last answer said; nothing before the first.
#[derive(Debug, Clone, Default)]
pub struct Ours(Arc<AtomicU8>);

impl Ours {
    /// An answer said that it is, or did not.
    pub fn say(&self, is: bool) {
        self.0.store(if is { IS } else { IS_NOT }, Relaxed);
    }

    /// Whether it surely is not.
    pub fn is_not(&self) -> bool {
        self.0.load(Relaxed) == IS_NOT
    }
}
