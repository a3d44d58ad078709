//! One limit of memory, divided among all that grows: what the agent and its kernel maps take
//! together stays under it. A container's limit is to be half as much again: what of that the
//! agent does not use is the workers', processes of their own that come and go: one for what the
//! next samples wait for, one for the largest files, one for second opinions.

/// The limit and its parts. What is fixed (program, threads, the small maps) takes some
/// 24 MiB, which is why there is a least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    total: u64,
}

/// The workers, by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Files of usual size, for which samples wait.
    Quick,
    /// The largest files.
    Slow,
    /// Walks that are made a second time.
    Opinion,
}

impl Memory {
    /// Unless told otherwise.
    pub const DEFAULT: u64 = 128 << 20;
    /// With less nothing useful can be done.
    pub const LEAST: u64 = 48 << 20;
    /// What a process costs in our own memory, with its name and twenty mappings, bytes.
    const PROCESS: u64 = 1024;

    /// Of so many bytes, but at least [`Self::LEAST`].
    pub fn new(total: u64) -> Self {
        Self { total: total.max(Self::LEAST) }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Unwind tables in the kernel, bytes.
    pub fn tables(&self) -> u64 {
        self.total / 4
    }

    /// Processes' mappings in the kernel, bytes.
    pub fn mappings(&self) -> u64 {
        self.total / 8
    }

    /// Processes that are known at the same time; as many that have ended are remembered.
    pub fn processes(&self) -> usize {
        ((self.total / 16 / Self::PROCESS) as usize).min(crate::processes::MAX_PROCESSES)
    }

    /// Stacks of one epoch, of which two are kept, bytes.
    pub fn stacks(&self) -> u64 {
        self.total / 16
    }

    /// Batches that cannot be written to disk, bytes.
    pub fn batches(&self) -> u64 {
        self.total / 16
    }

    /// What a worker answers at once, bytes: the symbols of larger files are left to
    /// `everflame symbols push`.
    pub fn answer(&self) -> usize {
        (self.total / 8) as usize
    }

    /// Own memory of a worker, bytes, where the agent has so much resident. The largest files
    /// get what is left of one and a half times the limit, but three eighths at least: it is rare
    /// that all are at their limits at once.
    pub fn worker(&self, share: Share, resident: u64) -> u64 {
        const SPARE: u64 = 8 << 20;
        match share {
            // Envoy's takes 24 MiB.
            Share::Quick => self.total / 2,
            Share::Opinion => self.total / 8,
            Share::Slow => {
                let others = self.worker(Share::Quick, 0) + self.worker(Share::Opinion, 0);
                (self.total + self.total / 2).saturating_sub(resident + SPARE + others).max(self.total / 8 * 3)
            }
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(Self::DEFAULT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workers_have_what_the_agent_leaves() {
        let m = Memory::new(64 << 20);
        let workers =
            |resident: u64| [Share::Quick, Share::Opinion, Share::Slow].map(|share| m.worker(share, resident) >> 20);
        assert_eq!(workers(20 << 20), [32, 8, 28]);
        for resident in 0..=24 {
            assert!(resident + workers(resident << 20).iter().sum::<u64>() <= 96);
        }
        assert_eq!(workers(200 << 20), [32, 8, 24]);
    }

    #[test]
    fn the_parts_leave_room_for_what_is_fixed() {
        for mib in [0, 48, 64, 128, 1024] {
            let m = Memory::new(mib << 20);
            // A large answer and much else at once would be bad luck, not the rule; it counts.
            let parts = m.tables() + m.mappings() + 2 * m.processes() as u64 * Memory::PROCESS;
            let parts = parts + 2 * m.stacks() + m.batches() + m.answer() as u64 / 2;
            assert!(parts + (12 << 20) <= m.total(), "{mib} MiB: {} MiB in parts", parts >> 20);
        }
    }
}
