//! How many connections each address has: no more than its share.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Connections by address. There are never more addresses than connections.
#[derive(Debug, Clone)]
pub struct Seats {
    limit: usize,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A connection's; free again when it is dropped.
#[derive(Debug)]
pub struct Seat {
    of: IpAddr,
    seats: Seats,
}

impl Seats {
    /// So many for each address.
    pub fn new(limit: usize) -> Self {
        Self { limit, taken: Arc::default() }
    }

    /// One for an address, if it has not all of its own.
    pub fn take(&self, address: IpAddr) -> Option<Seat> {
        let of = address.to_canonical();
        let mut taken = self.lock();
        let count = taken.entry(of).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        drop(taken);
        Some(Seat { of, seats: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        if let Some(count) = taken.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own() {
        let seats = Seats::new(2);
        let [one, mapped, other] = ["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"].map(|a| a.parse::<IpAddr>().unwrap());
        let first = seats.take(one).unwrap();
        let second = seats.take(mapped).unwrap();
        assert!(seats.take(one).is_none() && seats.take(other).is_some());
        drop(first);
        assert!(seats.take(one).is_some());
        drop(second);
        assert!(seats.lock().is_empty(), "nobody is remembered");
    }
}
