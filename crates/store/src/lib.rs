//! Stacks, samples and retention behind the [`Store`] trait. Knows no HTTP.
#![forbid(unsafe_code)]

mod embedded;
pub mod query;

pub use embedded::{Embedded, Options};
use everflame_profile::{Batch, Report, Selector};
pub use query::{
    Accounting, Covered, LabelValue, NodeInfo, ProcessInfo, Selection, SeriesPoint, SeriesSums, StackSum, StackSums,
    StoreStats, TrieNode, TypeInfo,
};

/// What one request brings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Append {
    /// What was good.
    pub batch: Batch,
    /// Samples that were refused before the batch was made, since they were broken.
    /// They go into the account of the sender as `rejected_invalid`, once, where a
    /// profile that came with them tells that the request was taken before.
    pub invalid: u64,
    /// What the sender says of itself.
    pub report: Option<Report>,
    /// When it was received, Unix nanoseconds.
    pub received: i64,
}

/// What became of an appended batch. All figures count samples unless they say else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Appended {
    /// Newly stored.
    pub stored: u64,
    /// In profiles that had been stored before (their ids were known).
    pub duplicates: u64,
    /// Refused: more than 5 minutes in the future.
    pub rejected_future: u64,
    /// Refused: older than the retention.
    pub rejected_old: u64,
    /// Refused: over a limit of the store (series, strings), by its name.
    pub rejected_limit: u64,
    /// Profiles with at least one refused sample.
    pub rejected_profiles: u64,
}

/// Why the store could not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk has no room; nothing of this batch was stored and nothing else lost.
    #[error("the disk that holds {path} is full: free space or lower --retention-bytes")]
    DiskFull {
        /// The data directory.
        path: String,
    },
    /// Too many appends wait for the disk.
    #[error("{0} appends already wait for the disk: try again later")]
    Busy(usize),
    /// The data directory cannot be used as it is.
    #[error("{0}")]
    Unusable(String),
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// What the system answered.
        source: std::io::Error,
    },
}

/// A store of profiles. Every query reads one atomic snapshot; sums are exact over
/// the range that the answer states. All calls block: callers use a blocking thread.
pub trait Store: Send + Sync + 'static {
    /// Stores a request in one durable record, then returns. A report of an instance
    /// is kept even if the batch is empty.
    fn take(&self, append: Append) -> Result<Appended, StoreError>;

    /// [`take`](Self::take) for a batch that is kept, all of which was good.
    fn append(&self, batch: &Batch, report: Option<&Report>, received: i64) -> Result<Appended, StoreError> {
        self.take(Append { batch: batch.clone(), invalid: 0, report: report.cloned(), received })
    }

    /// Sums by stack and group. `group` names the labels whose values make the groups.
    fn stacks(&self, selection: &Selection, group: &[String]) -> Result<StackSums, StoreError>;

    /// Sums by time bucket (`step_ms`, aligned to the epoch) and value of `by`.
    fn series(&self, selection: &Selection, by: Option<&str>, step_ms: i64) -> Result<SeriesSums, StoreError>;

    /// Names of the labels that selected samples carry, sorted.
    fn labels(&self, selection: &Selection) -> Result<(Covered, Vec<String>), StoreError>;

    /// Values of a label among selected samples, most samples first.
    fn label_values(&self, selection: &Selection, name: &str) -> Result<(Covered, Vec<LabelValue>), StoreError>;

    /// Processes among selected samples, most samples first.
    fn processes(&self, selection: &Selection) -> Result<(Covered, Vec<ProcessInfo>), StoreError>;

    /// Sample types that are stored, of the resources that are selected; conditions on
    /// attributes of samples are not looked at.
    fn types(&self, selector: &Selector) -> Result<Vec<TypeInfo>, StoreError>;

    /// Agents that have reported, newest report of each instance.
    fn nodes(&self) -> Result<Vec<NodeInfo>, StoreError>;

    /// The accounting per agent instance.
    fn accounting(&self) -> Result<Vec<Accounting>, StoreError>;

    /// Figures about the store itself, for `/metrics`.
    fn stats(&self) -> StoreStats;

    /// Writes the head as a block now and returns when it is on disk.
    fn flush(&self) -> Result<(), StoreError>;
}
