//! The counters that the kernel programs keep, read without a system call, and the region
//! beside them where user space keeps its own, so that both outlive a killed agent.

use std::sync::atomic::{AtomicU64, Ordering};

use super::abi;

/// Sums over all CPUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KernelSums {
    /// Ticks at the sampler's first instruction.
    pub taken: u64,
    /// Of the idle task.
    pub idle: u64,
    /// Records that the ring took.
    pub ring: u64,
    /// Records that it refused.
    pub ring_full: u64,
    /// Ticks that never came between two of the same busy task.
    pub missed_sure: u64,
    /// Ticks that never came, perhaps because the CPU was idle.
    pub missed_perhaps_idle: u64,
    /// Longest run of the sampler, nanoseconds.
    pub max_ns: u64,
    /// Records that carried their frames.
    pub frames_sent: u64,
    /// Times that the reader was woken because the ring was half full.
    pub wakeups: u64,
    /// Time in the sampler, nanoseconds (ticks of the idle task left out).
    pub run_ns: u64,
    /// Records that carried a piece of the stack.
    pub copies: u64,
    /// Bytes of it.
    pub copied_bytes: u64,
    /// Copies that were not made, for want of allowance, of room in the ring, or of memory.
    pub copies_refused: u64,
    /// Control groups that were made and not told of.
    pub births_lost: u64,
}

/// Of a CPU's counters, those that are summed.
const WORDS_READ: usize = 21;

/// A mapping of the map `counters`.
#[derive(Debug, Clone, Copy)]
pub struct CounterMap {
    words: &'static [AtomicU64],
    cpus: u32,
}

impl CounterMap {
    pub(super) fn new(words: &'static [AtomicU64], cpus: u32) -> Self {
        assert!(words.len() >= cpus as usize * abi::COUNTER_WORDS, "a whole map");
        Self { words, cpus }
    }

    /// The words that belong to user space.
    pub fn user(&self) -> &'static [AtomicU64] {
        &self.words[self.cpus as usize * abi::COUNTER_WORDS..]
    }

    /// When the last tick was taken, CLOCK_MONOTONIC; 0 where none was.
    pub fn last_tick(&self) -> u64 {
        (0..self.cpus).map(|cpu| self.read(cpu)[8]).max().unwrap_or(0)
    }

    /// Sums at one moment: for each CPU a state between two ticks, where every tick taken
    /// has been counted once more. A CPU that is inside a tick is read again until it has
    /// left it; should that never happen, it is summed as it is, and the account shows it.
    pub fn sums(&self) -> KernelSums {
        let mut sums = KernelSums::default();
        let (mut sure, mut perhaps) = (0i64, 0i64);
        for cpu in 0..self.cpus {
            let c = self.settled(cpu);
            sums.taken += c[0];
            sums.idle += c[1];
            sums.ring += c[2];
            sums.ring_full += c[3];
            sure += c[4] as i64;
            perhaps += c[5] as i64;
            sums.max_ns = sums.max_ns.max(c[6]);
            sums.frames_sent += c[7];
            sums.wakeups += c[12];
            sums.run_ns += c[13];
            sums.copies += c[14];
            sums.copied_bytes += c[15];
            sums.copies_refused += c[16];
            sums.births_lost += c[20];
        }
        sums.missed_sure = sure.max(0) as u64;
        sums.missed_perhaps_idle = perhaps.max(0) as u64;
        sums
    }

    fn read(&self, cpu: u32) -> [u64; WORDS_READ] {
        let at = cpu as usize * abi::COUNTER_WORDS;
        std::array::from_fn(|word| self.words[at + word].load(Ordering::Acquire))
    }

    fn settled(&self, cpu: u32) -> [u64; WORDS_READ] {
        let mut before = self.read(cpu);
        for attempt in 0..2000 {
            let now = self.read(cpu);
            if now[..4] == before[..4] && now[0] == now[1] + now[2] + now[3] {
                return now;
            }
            before = now;
            if attempt > 100 {
                std::thread::sleep(std::time::Duration::from_micros(20));
            }
        }
        before
    }

    /// Tells a CPU's program that its next gap is of our making.
    pub fn rearm(&self, cpu: u32) {
        if cpu < self.cpus {
            self.words[cpu as usize * abi::COUNTER_WORDS + 11].store(1, Ordering::Release);
        }
    }
}
