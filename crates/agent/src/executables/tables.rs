//! The unwind tables that are in the kernel: under a budget of bytes, the least recently
//! used go first.

use rustc_hash::FxHashMap;

use crate::processes::sink::TableSink;

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

    /// Takes a table away.
    pub fn withdraw(&mut self, number: u32) {
        if let Some(length) = self.published.remove(&number) {
            self.sink.withdraw(number);
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
