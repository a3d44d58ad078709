//! Processes and their mappings: who runs, since when, what they have mapped executable.
//! One thread, the tracker, follows them through perf's side band and /proc and keeps the
//! kernel's tables right.

mod asked;
mod code;
mod events;
mod facts;
mod handle;
pub(crate) mod late;
pub mod maps;
mod past;
pub(crate) mod patience;
mod publish;
mod reading;
pub mod records;
mod settle;
pub(crate) mod shared;
pub mod sink;
mod space;
pub(crate) mod stats;
mod table;
mod tracker;
mod upkeep;

pub use handle::Handle;
pub use stats::TrackerStats;
pub use table::MAX_PROCESSES;
pub use tracker::{Tracker, TrackerOptions};
