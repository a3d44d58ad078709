//! Which processes are profiled. Filters are selectors over the attributes that a sample would be
//! sent under, and nothing of a process that they shut out leaves the node: docs/security.md says
//! what holds to the letter.

mod attribute;
mod cleared;
mod gate;
mod rule;

pub use cleared::Cleared;
pub use gate::{Gate, GateFigures, MAX_HELD};
pub use rule::{Filter, Rules, Verdict};
