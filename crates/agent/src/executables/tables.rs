//! The unwind tables that are in the kernel: under a budget of bytes, the least recently
//! used go first.

use rustc_hash::FxHashMap;

use crate::{bpf::host::TableView, processes::sink::TableSink};

/// A table that was used within so many seconds is not taken away for another.
const KEEP_SECONDS: u32 = 10;

/// What came of publishing.
#[derive(Debug, PartialEq, Eq)]
pub enum Published {
    /// It is in the kernel.
    Yes,
    /// No room now: ask again later.
    NoRoom,
}

/// The published tables.
pub struct Tables {
    sink: Box<dyn TableSink + Send>,
    budget: u64,
    bytes: u64,
    published: FxHashMap<u32, u64>,
    /// Taken away for others.
    pub evicted: u64,
    /// Not published, for want of room.
    pub refused: u64,
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tables").field("bytes", &self.bytes).field("published", &self.published.len()).finish()
    }
}

impl Tables {
    pub fn new(sink: Box<dyn TableSink + Send>, budget: u64) -> Self {
        Self { sink, budget, bytes: 0, published: FxHashMap::default(), evicted: 0, refused: 0 }
    }

    /// Bytes in the kernel.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Tables in the kernel.
    pub fn count(&self) -> usize {
        self.published.len()
    }

    pub fn is_published(&self, number: u32) -> bool {
        self.published.contains_key(&number)
    }

    /// Publishes a table; `used` says when (in seconds) an executable was last in a sample.
    pub fn publish(&mut self, number: u32, table: &[u8], now: u32, used: impl Fn(u32) -> u32) -> Published {
        self.withdraw(number);
        let length = table.len() as u64;
        if length > self.budget {
            self.refused += 1;
            return Published::NoRoom;
        }
        while self.bytes + length > self.budget {
            if self.evict(now, &used).is_none() {
                self.refused += 1;
                return Published::NoRoom;
            }
        }
        if self.sink.publish(number, table).is_err() {
            // The kernel side frees what is withdrawn only after a grace time, so make as much
            // room as is needed and let the caller come back.
            let mut freed = 0;
            while freed < length {
                let Some(bytes) = self.evict(now, &used) else { break };
                freed += bytes;
            }
            self.refused += 1;
            return Published::NoRoom;
        }
        self.bytes += length;
        self.published.insert(number, length);
        Published::Yes
    }

    /// There is no table for it, and nothing is to wait for one.
    pub fn never(&mut self, number: u32) {
        self.withdraw(number);
        self.sink.never(number);
    }

    /// The tables as they are now.
    pub fn look(&self, with: &mut dyn FnMut(&TableView<'_>)) {
        self.sink.look(with);
    }

    /// Takes a table away.
    pub fn withdraw(&mut self, number: u32) {
        // Also where there is none: that there never will be one is taken back.
        self.sink.withdraw(number);
        if let Some(length) = self.published.remove(&number) {
            self.bytes -= length;
        }
    }

    /// Takes the least recently used one away, and says how large it was.
    fn evict(&mut self, now: u32, used: &impl Fn(u32) -> u32) -> Option<u64> {
        let (number, length) = self.published.iter().map(|(n, l)| (*n, *l)).min_by_key(|(n, _)| (used(*n), *n))?;
        if used(number) + KEEP_SECONDS > now {
            return None;
        }
        self.withdraw(number);
        self.evicted += 1;
        Some(length)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    };

    use super::*;
    use crate::processes::sink::NoRoom;

    struct Sink {
        room: Arc<AtomicU64>,
        there: Arc<Mutex<Vec<u32>>>,
    }

    impl TableSink for Sink {
        fn publish(&mut self, executable: u32, table: &[u8]) -> Result<(), NoRoom> {
            if (table.len() as u64) > self.room.load(Ordering::Relaxed) {
                return Err(NoRoom);
            }
            self.there.lock().unwrap().push(executable);
            Ok(())
        }

        fn withdraw(&mut self, executable: u32) {
            self.there.lock().unwrap().retain(|n| *n != executable);
        }

        fn never(&mut self, _executable: u32) {}

        fn look(&self, _with: &mut dyn FnMut(&TableView<'_>)) {}
    }

    fn tables(budget: u64) -> (Tables, Arc<AtomicU64>, Arc<Mutex<Vec<u32>>>) {
        let (room, there) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::default());
        let sink = Sink { room: Arc::clone(&room), there: Arc::clone(&there) };
        (Tables::new(Box::new(sink), budget), room, there)
    }

    #[test]
    fn the_least_recently_used_make_room() {
        let (mut tables, _, there) = tables(256);
        let used = |n: u32| 100 + n;
        for number in [10, 8, 9, 11] {
            assert_eq!(tables.publish(number, &[0; 64], 200, used), Published::Yes);
        }
        assert_eq!(tables.publish(12, &[0; 128], 200, used), Published::Yes);
        assert_eq!(*there.lock().unwrap(), [10, 11, 12], "8 and 9 were used longest ago");
        assert_eq!((tables.bytes(), tables.count(), tables.evicted), (256, 3, 2));
        assert_eq!(tables.publish(13, &[0; 320], 200, used), Published::NoRoom, "over the budget alone");
        assert_eq!(tables.publish(13, &[0; 64], 112, used), Published::NoRoom, "all others are in use");
        assert_eq!((tables.bytes(), tables.refused), (256, 2));
    }

    #[test]
    fn one_that_is_published_again_counts_once() {
        let (mut tables, _, there) = tables(1024);
        for size in [64, 128] {
            assert_eq!(tables.publish(8, &vec![0; size], 100, |_| 0), Published::Yes);
        }
        assert_eq!((tables.bytes(), there.lock().unwrap().len()), (128, 1));
        tables.withdraw(8);
        tables.withdraw(8);
        assert_eq!((tables.bytes(), tables.count()), (0, 0));
    }

    #[test]
    fn no_room_in_the_kernel_makes_room_for_later() {
        let (mut tables, room, there) = tables(1024);
        for number in 8..12 {
            assert_eq!(tables.publish(number, &[0; 64], 100, |n| n), Published::Yes);
        }
        room.store(0, Ordering::Relaxed);
        assert_eq!(tables.publish(20, &[0; 128], 100, |n| n), Published::NoRoom);
        assert_eq!(*there.lock().unwrap(), [10, 11]);
        room.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(tables.publish(20, &[0; 128], 100, |n| n), Published::Yes);
    }
}
