//! Names for addresses: ELF files and the kernel's symbol list to an index that is
//! looked up where it lies.
//!
//! The agent asks [`inspect`] what a file is and makes an index of it with
//! [`build_index`] once per content; the server keeps the bytes and puts names on
//! frames with [`Index::lookup`] and [`name_frame`]; kernel addresses get theirs on
//! the agent from [`kallsyms::KernelSymbols`].
//!
//! No IO beyond bytes and no `unsafe`. The bytes are other people's: whatever is in
//! them, the answer is an [`Error`] or an index within [`IndexLimits`].
#![forbid(unsafe_code)]

mod build;
mod cpp;
mod demangle;
mod elf;
mod error;
mod functions;
mod go;
mod index;
mod index_check;
mod index_write;
mod inspect;
pub mod kallsyms;
mod name;
mod plt;

pub use build::{IndexLimits, build_index};
pub use demangle::{LONGEST_DEMANGLED, LONGEST_MANGLED, demangle};
pub use error::Error;
pub use everflame_profile::ContentId;
pub use index::{Function, Index};
pub use inspect::{ElfFacts, Segment, inspect};
pub use name::{Name, name_frame};
