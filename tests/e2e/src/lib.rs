//! What the end-to-end tests need: the real program, the programs with known truth, and
//! judges that know nothing of how Everflame works inside.
#![forbid(unsafe_code)]
// A test says what went wrong by panicking, and prints what it does.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

pub mod api;
pub mod container;
pub mod everflame;
pub mod graph;
pub mod guide;
pub mod image;
pub mod judge;
pub mod kernel;
pub mod machine;
pub mod runner;
pub mod statistics;
pub mod target;
pub mod zoo;

pub use api::Api;
pub use everflame::Everflame;
pub use graph::Graph;
pub use runner::{Outcome, Skip};
pub use target::Target;
