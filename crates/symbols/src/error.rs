//! Why there are no symbols.

/// What can be wrong with the bytes that were given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes do not begin like an ELF file.
    #[error("this is not an ELF file; give an executable or a shared library")]
    NotElf,
    /// An ELF file of another class or byte order.
    #[error("only 64-bit little-endian ELF files have symbols read; this one is of another kind")]
    Unsupported,
    /// The headers point beyond the end of the file.
    #[error("the ELF headers are cut off or broken; the file is incomplete, fetch it again")]
    Truncated,
    /// More functions than the limit allows.
    #[error("{found} functions are more than the limit of {limit}; raise the limit or leave the file nameless")]
    TooManyFunctions {
        /// How many there are.
        found: usize,
        /// [`IndexLimits::functions`](crate::IndexLimits::functions).
        limit: usize,
    },
    /// The index would be larger than the limit allows.
    #[error("the index would take {found} bytes, the limit is {limit}; raise the limit or leave the file nameless")]
    IndexTooLarge {
        /// Size of the index in bytes.
        found: usize,
        /// [`IndexLimits::index_bytes`](crate::IndexLimits::index_bytes).
        limit: usize,
    },
    /// The bytes do not begin like a symbol index.
    #[error("this is not a symbol index; make one from the executable")]
    NotIndex,
    /// A symbol index of another version.
    #[error("the symbol index has version {found}, this program knows version {known}; make the index again")]
    IndexVersion {
        /// Version of the bytes.
        found: u32,
        /// The version that this program reads and writes.
        known: u32,
    },
    /// A symbol index that does not keep to its format.
    #[error("the symbol index is broken ({0}); make it again from the executable")]
    BrokenIndex(&'static str),
    /// The kernel shows zeros for its addresses.
    #[error(
        "the kernel hides its addresses: run as root or with CAP_SYSLOG, and set the sysctl kernel.kptr_restrict to 1 or 0"
    )]
    AddressesHidden,
    /// No line of `/proc/kallsyms` is a function.
    #[error("there are no functions in /proc/kallsyms; the kernel was built without CONFIG_KALLSYMS")]
    NoKernelSymbols,
}
