//! One limit of memory, divided among all that grows: what the agent and its kernel maps take
//! together stays under it. A container's limit is to be half as much again: what of that the
//! agent does not use is the workers', processes of their own that come and go: one for what the
//! next samples wait for, one for the largest files.

/// The limit and its parts. What is fixed (program, threads, the small maps) takes some
/// 24 MiB, which is why there is a least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    total: u64,
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

    /// Own memory of the worker for files of usual size, bytes. Envoy's takes 24 MiB.
    pub fn quick_worker(&self) -> u64 {
        self.total / 2
    }

    /// Own memory of the worker for the largest files, bytes, where the agent has so much
    /// resident: what is left of one and a half times the limit, but three eighths at least. It
    /// is rare that all three are at their limits at once.
    pub fn slow_worker(&self, resident: u64) -> u64 {
        const SPARE: u64 = 8 << 20;
        let around = self.total + self.total / 2;
        around.saturating_sub(resident + SPARE + self.quick_worker()).max(self.total / 8 * 3)
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
        assert_eq!((m.quick_worker(), m.slow_worker(20 << 20)), (32 << 20, 36 << 20));
        for resident in 0..=32 {
            assert!((resident << 20) + m.quick_worker() + m.slow_worker(resident << 20) <= 96 << 20);
        }
        assert_eq!(m.slow_worker(200 << 20), 24 << 20);
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
