//! What can be wrong with a file, in words that say what to do about it.

/// Why no table could be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The bytes do not begin with a whole ELF header.
    #[error("not an ELF file: pass the whole file or the whole image")]
    NotElf,
    /// An ELF file, but not one for 64-bit little-endian x86-64 or arm64.
    #[error("unsupported ELF class, byte order or machine ({0}): only x86-64 and 64-bit arm64 are unwound")]
    Unsupported(String),
    /// Nothing executable is in the file (a separate debug file, or a truncated one).
    #[error("no executable segment with bytes in the file: pass the executable itself, not its debug file")]
    NoCode,
    /// The file has code but neither call frame information nor Go tables.
    #[error("no unwind data for any code in the file")]
    NoUnwindData,
    /// A limit of [`Limits`](crate::Limits) was reached.
    #[error("{what}: {found} is over the limit of {limit}, raise it or leave the file out")]
    Limit {
        /// What was counted.
        what: &'static str,
        /// How many there were (or how many were reached before giving up).
        found: u64,
        /// How many are allowed.
        limit: u64,
    },
}
