//! What is asked of a store and what it answers.

use std::collections::BTreeMap;

use everflame_profile::{Completeness, Frame, Selector, Str};

/// Which samples.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Conditions on labels, all of which must hold.
    pub selector: Selector,
    /// Unix nanoseconds, inclusive.
    pub from: i64,
    /// Unix nanoseconds, exclusive.
    pub until: i64,
    /// Name of the sample type (`cpu`).
    pub sample_type: String,
}

/// The range that an answer really covers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Covered {
    /// Unix nanoseconds, inclusive; at or before what was asked.
    pub from: i64,
    /// Unix nanoseconds, exclusive; at or after what was asked.
    pub until: i64,
    /// Resolution of the coarsest data read, in nanoseconds.
    pub resolution: i64,
}

/// A node of a stack trie: a frame under a parent. Roots have parent `u32::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TrieNode {
    /// Index of the caller's node, smaller than this node's own; `u32::MAX` for the
    /// outermost frame.
    pub parent: u32,
    /// Index into [`StackSums::frames`].
    pub frame: u32,
}

/// Sum of the samples of one stack in one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackSum {
    /// Index into [`StackSums::groups`].
    pub group: u32,
    /// Trie node of the leaf frame; `u32::MAX` for the empty stack.
    pub node: u32,
    /// Whether these stacks reached their root.
    pub completeness: Completeness,
    /// Number of samples.
    pub samples: u64,
    /// Sum of values in the base unit.
    pub value: i64,
}

/// Sums by stack.
#[derive(Debug, Clone, Default)]
pub struct StackSums {
    /// What was covered.
    pub covered: Covered,
    /// `nanoseconds`, `bytes` or `count`.
    pub unit: String,
    /// Frames, unique.
    pub frames: Vec<Frame>,
    /// Trie, parents before children, unique by (parent, frame).
    pub nodes: Vec<TrieNode>,
    /// Values of the group labels, one list a group, `""` where missing.
    pub groups: Vec<Vec<Str>>,
    /// Unique by (group, node, completeness).
    pub sums: Vec<StackSum>,
}

/// One bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeriesPoint {
    /// Start of the bucket, Unix milliseconds.
    pub start_ms: i64,
    /// Number of samples.
    pub samples: u64,
    /// Sum of values in the base unit.
    pub value: i64,
}

/// Sums by time, one list a label value; buckets sorted, empty ones left out.
#[derive(Debug, Clone, Default)]
pub struct SeriesSums {
    /// What was covered.
    pub covered: Covered,
    /// `nanoseconds`, `bytes` or `count`.
    pub unit: String,
    /// Value of the label (`""` where missing) and its buckets.
    pub series: BTreeMap<Str, Vec<SeriesPoint>>,
}

/// A label value and its number of samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelValue {
    /// The value.
    pub value: Str,
    /// Samples that carry it.
    pub samples: u64,
}

/// A process among the selected samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessInfo {
    /// `host.name`.
    pub node: Str,
    /// `process.pid`, 0 where unknown.
    pub pid: u32,
    /// `process.executable.name`.
    pub process: Str,
    /// Distinct threads seen.
    pub thread_count: u64,
    /// `k8s.container.name`, else `container.name`, else `container.id`.
    pub container: Str,
    /// `k8s.pod.name`.
    pub pod: Str,
    /// `k8s.namespace.name`.
    pub namespace: Str,
    /// `service.name`.
    pub service: Str,
    /// Number of samples.
    pub samples: u64,
    /// Those whose stack is complete.
    pub complete: u64,
    /// Unix nanoseconds of the first selected sample.
    pub first_seen: i64,
    /// Unix nanoseconds of the last selected sample.
    pub last_seen: i64,
}

/// A stored sample type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeInfo {
    /// `cpu`, `off_cpu`, …
    pub name: Str,
    /// `nanoseconds`, `bytes` or `count`.
    pub unit: Str,
}

/// The newest report of an agent instance.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeInfo {
    /// The report.
    pub report: everflame_profile::Report,
    /// Unix nanoseconds when the server received it.
    pub last_seen: i64,
}

/// The account of one agent instance as of its last report.
#[derive(Debug, Clone, PartialEq)]
pub struct Accounting {
    /// The agent's own figures.
    pub report: everflame_profile::Report,
    /// Samples stored, ever.
    pub stored: u64,
    /// Samples that the server dropped, by reason (`rejected_future`, `rejected_old`,
    /// `rejected_limit`, `rejected_invalid`), beside the agent's own.
    pub dropped: BTreeMap<String, u64>,
    /// Of the stored ones, the complete, and the others by reason, by
    /// [`Completeness`] as index.
    pub by_completeness: [u64; Completeness::ALL.len()],
}

/// Figures about the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Rows in the head.
    pub head_rows: u64,
    /// Rows in blocks.
    pub block_rows: u64,
    /// Number of blocks.
    pub blocks: u64,
    /// Bytes of blocks.
    pub block_bytes: u64,
    /// Bytes of the write-ahead log.
    pub wal_bytes: u64,
    /// Samples stored since start.
    pub stored: u64,
    /// Duplicate samples since start.
    pub duplicates: u64,
    /// Profile ids that left the duplicate window because it was full.
    pub dedup_evicted: u64,
    /// Samples that retention deleted since start.
    pub expired: u64,
    /// Records of the log that were torn and left out at start.
    pub torn_records: u64,
    /// Bytes of the caches (tries of blocks).
    pub cache_bytes: u64,
    /// Series known (and the limit of their number).
    pub series: u64,
    /// The limit of the number of series.
    pub series_limit: u64,
    /// Samples put under the overflow series because the limit was reached.
    pub series_overflowed: u64,
}
