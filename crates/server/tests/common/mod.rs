//! Shared by the tests of the server.
#![allow(dead_code, missing_docs, missing_debug_implementations, clippy::unwrap_used)]

pub mod flame;
pub mod sums;
