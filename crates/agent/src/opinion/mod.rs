//! A second opinion: one sample in so many also carries its registers and a piece of its
//! stack, is walked again by an algorithm that shares nothing with the kernel program's, and
//! the two are compared frame by frame.
//!
//! The second walk is framehop's, over the files' own unwind data, in a worker of its own
//! without rights ([`crate::worker`]): [`Images`] there keeps the files at hand. On the
//! agent's side one thread asks it, so that no sample waits.

mod asker;
mod compare;
#[cfg(test)]
mod corpus;
mod files;
mod image;
mod images;
mod message;
mod row;
mod tally;
mod walk;

pub use asker::{Case, MAX_WAITING, Opinions, Surroundings};
pub use compare::{Verdict, compare};
pub use images::Images;
pub use message::{End, Module, Question, Reply};
pub use tally::{MAX_LABELS, MAX_NAMES, MAX_REPORTED, OTHER, Tally};
