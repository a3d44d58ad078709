//! Shared by the tests of the server.
#![allow(dead_code, missing_docs, missing_debug_implementations, clippy::unwrap_used)]

pub mod authority;
pub mod batch;
pub mod closed;
pub mod flame;
pub mod raw;
pub mod server;
pub mod sums;
pub mod theirs;
