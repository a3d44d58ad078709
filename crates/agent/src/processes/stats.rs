//! What the tracker counts, for everyone to read while it works.

use std::sync::atomic::{AtomicU64, Ordering};

/// One figure.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Debug, Default)]
        pub(crate) struct Stats {
            $(pub(crate) $name: Counter,)*
        }

        /// The tracker's figures at a moment: counts since the start, but for those that say
        /// that they are as of now.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct TrackerStats {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Stats {
            pub(crate) fn snapshot(&self) -> TrackerStats {
                TrackerStats { $($name: self.$name.get(),)* }
            }
        }

        impl TrackerStats {
            /// Names and figures, for metrics.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

figures! {
    /// Times that the tracker looked for news.
    turns,
    /// Answers of workers, each of which makes it look.
    answers,
    /// Processes that are known now.
    processes,
    /// Processes that found no place in the table.
    processes_refused,
    /// Processes forgotten for others; they come back when a sample names them.
    processes_evicted,
    /// Processes that ended and are kept for late samples now.
    processes_ended,
    /// Processes that are still to be asked who they are now.
    processes_unidentified,
    /// Processes that could not be read, though they were there.
    processes_unreadable,
    /// Calls about a process that did not come back in time or were not made for that reason.
    calls_hung,
    /// Executable mappings beyond the limit of one process.
    mappings_refused,
    /// Times that the kernel's table of mappings had no room for a process.
    mappings_no_room,
    /// Times that processes' mappings were handed to the kernel.
    mappings_published,
    /// Distinct sets of mappings that are in the kernel now; forks share one.
    mapping_runs,
    /// Places that they take now.
    mapping_elements,
    /// Memory for them, bytes.
    mapping_bytes,
    /// Records of the side band.
    records,
    /// Records that the side band lost.
    records_lost,
    /// Times that /proc was read for every process.
    scans,
    /// Times that a process was read again because of a sample in no known mapping.
    rereads,
    /// Such samples for which nothing was done: too many, or too often.
    rereads_refused,
    /// Samples that came with their stacks because the kernel did not know enough to walk them.
    late_samples,
    /// Of them, those walked later.
    late_walked,
    /// Those that went on as the kernel found them, since what they needed did not come in time.
    late_gave_up,
    /// Those that did so since too much waited already.
    late_refused,
    /// Bytes of those that wait now.
    late_waiting_bytes,
    /// Pieces of code that were read from files for them.
    code_read,
    /// Those that could not be read.
    code_unreadable,
    /// Those that were not read since too many were wanted at once.
    code_refused,
    /// Executables that are known now.
    executables,
    /// Executables that found no place or no number.
    executables_refused,
    /// Times that the file of a mapping could not be opened.
    files_unreadable,
    /// Files that are no ELF file, or over which a worker ended.
    files_bad,
    /// Times that the worker's queue had no room.
    jobs_deferred,
    /// Workers started.
    worker_starts,
    /// Unwind tables in the kernel now.
    tables,
    /// Their bytes.
    table_bytes,
    /// Tables that did not have to be made: they were kept on disk.
    tables_from_disk,
    /// Executables of which no unwind table can be made.
    tables_bad,
    /// Tables taken away for others.
    tables_evicted,
    /// Tables that found no room.
    tables_refused,
    /// Symbol indexes made.
    indexes,
    /// Executables of which none can be made.
    indexes_bad,
}
