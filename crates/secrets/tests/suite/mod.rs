//! The tests, by what they look at.

pub mod credentials;
pub mod refusals;
