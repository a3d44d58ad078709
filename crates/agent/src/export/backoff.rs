//! How long to wait before the next attempt.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// Shortest pause after a failure.
pub const SHORTEST: Duration = Duration::from_millis(100);
/// Longest pause, unless the server asks for more.
pub const LONGEST: Duration = Duration::from_secs(10);
/// Longest pause that a server can ask for.
pub const LONGEST_ASKED: Duration = Duration::from_secs(120);

/// Pauses that double with each failure, each shortened at random by up to half so that
/// a fleet does not come back all at once.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
    seed: u64,
}

impl Backoff {
    pub fn new() -> Self {
        Self::up_to(LONGEST)
    }

    /// With another longest pause.
    pub fn up_to(longest: Duration) -> Self {
        Self { next: SHORTEST, longest, seed: RandomState::new().hash_one(0u8) | 1 }
    }

    pub fn succeeded(&mut self) {
        self.next = SHORTEST;
    }

    /// The pause after a failure; at least as long as the server `asked` for.
    pub fn failed(&mut self, asked: Option<Duration>) -> Duration {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        let share = (self.seed % 1024) as u32;
        let pause = self.next - self.next / 2 * share / 1024;
        self.next = (self.next * 2).min(self.longest);
        pause.max(asked.unwrap_or_default().min(LONGEST_ASKED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_heed_the_server() {
        let mut backoff = Backoff::new();
        let mut expected = SHORTEST;
        for _ in 0..20 {
            let pause = backoff.failed(None);
            assert!(pause <= expected && pause >= expected / 2, "{pause:?} of {expected:?}");
            expected = (expected * 2).min(LONGEST);
        }
        assert_eq!(backoff.failed(Some(Duration::from_secs(30))), Duration::from_secs(30));
        assert_eq!(backoff.failed(Some(Duration::MAX)), LONGEST_ASKED);
        backoff.succeeded();
        assert!(backoff.failed(None) <= SHORTEST);
    }
}
