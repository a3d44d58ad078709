//! Token buckets: how often each address or token may ask. The table is bounded; callers
//! that find no room in it share one bucket.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Callers that are told apart at once.
pub const MAX_BUCKETS: usize = 16_384;

/// A rate: so many at once, and so many a second in the long run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// At once.
    pub burst: f64,
    /// A second; 0 for no limit.
    pub per_second: f64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// A bucket for each caller.
#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    table: Mutex<(HashMap<K, Bucket>, Bucket)>,
    /// Requests refused.
    pub refused: AtomicU64,
    /// Requests that were counted in the shared bucket, since the table was full.
    pub shared: AtomicU64,
}

impl<K: Hash + Eq> Buckets<K> {
    /// Full buckets.
    pub fn new(rate: Rate) -> Self {
        let shared = Bucket { left: rate.burst, at: Instant::now() };
        let table = Mutex::new((HashMap::new(), shared));
        Self { rate, table, refused: AtomicU64::new(0), shared: AtomicU64::new(0) }
    }

    /// Takes one; an error is the time after which there is one again.
    pub fn take(&self, key: K) -> Result<(), Duration> {
        self.take_at(key, 1.0, Instant::now())
    }

    /// Whether there is one, without taking it.
    pub fn peek(&self, key: K) -> Result<(), Duration> {
        self.take_at(key, 0.0, Instant::now())
    }

    fn take_at(&self, key: K, taken: f64, now: Instant) -> Result<(), Duration> {
        if self.rate.per_second <= 0.0 {
            return Ok(());
        }
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let (buckets, shared) = &mut *table;
        if buckets.len() >= MAX_BUCKETS && !buckets.contains_key(&key) {
            // Those that are full again are as good as forgotten.
            buckets.retain(|_, bucket| self.refilled(bucket, now) < self.rate.burst);
        }
        let bucket = if buckets.len() < MAX_BUCKETS || buckets.contains_key(&key) {
            buckets.entry(key).or_insert(Bucket { left: self.rate.burst, at: now })
        } else {
            self.shared.fetch_add(1, Ordering::Relaxed);
            shared
        };
        *bucket = Bucket { left: self.refilled(bucket, now), at: now };
        if bucket.left < 1.0 {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Duration::from_secs_f64((1.0 - bucket.left) / self.rate.per_second));
        }
        bucket.left -= taken;
        Ok(())
    }

    fn refilled(&self, bucket: &Bucket, now: Instant) -> f64 {
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.left + since * self.rate.per_second).min(self.rate.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Rate = Rate { burst: 3.0, per_second: 0.5 };

    #[test]
    fn a_burst_then_the_rate_and_each_caller_for_itself() {
        let (buckets, now) = (Buckets::new(SLOW), Instant::now());
        let take = |key, seconds| buckets.take_at(key, 1.0, now + Duration::from_secs(seconds));
        assert_eq!([(); 3].map(|()| take("a", 0).is_ok()), [true; 3]);
        assert_eq!(take("a", 0), Err(Duration::from_secs(2)));
        assert!(take("b", 0).is_ok());
        assert!(take("a", 2).is_ok());
        assert!(take("a", 2).is_err());
        assert_eq!(buckets.refused.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_full_table_shares_one_bucket_and_says_so() {
        let (buckets, now) = (Buckets::new(SLOW), Instant::now());
        for key in 0..MAX_BUCKETS {
            assert!(buckets.take_at(key, 1.0, now).is_ok());
        }
        let refused = (0..10).filter(|n| buckets.take_at(MAX_BUCKETS + n, 1.0, now).is_err()).count();
        assert_eq!((refused, buckets.shared.load(Ordering::Relaxed)), (7, 10));
        // Later there is room again, since most buckets have filled.
        assert!(buckets.take_at(MAX_BUCKETS, 1.0, now + Duration::from_secs(60)).is_ok());
        assert_eq!(buckets.shared.load(Ordering::Relaxed), 10);
        assert_eq!(buckets.table.lock().unwrap().0.len(), 1);
    }

    #[test]
    fn no_rate_is_no_limit() {
        let buckets = Buckets::new(Rate { burst: 0.0, per_second: 0.0 });
        assert!((0..1_000).all(|_| buckets.take(1).is_ok()));
    }
}
