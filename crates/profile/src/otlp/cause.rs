//! Why a sample or a profile of a request was rejected.

/// The cause of one rejection. Its text goes back to the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// An index points outside its table, or into a dictionary that is not there.
    #[error("index {index} is not in the dictionary's {table} table")]
    BadIndex {
        /// Which table.
        table: &'static str,
        /// The index.
        index: i32,
    },
    /// A stack points to a location that is not set.
    #[error("a stack holds a location without address, mapping, type or line")]
    NullLocation,
    /// A sample has neither values nor timestamps.
    #[error("a sample needs at least one value or timestamp")]
    NoPoints,
    /// Values and timestamps of a sample do not belong together.
    #[error("a sample has {values} values for {times} timestamps; give equal numbers, or one of the two only")]
    Shape {
        /// Number of values.
        values: usize,
        /// Number of timestamps.
        times: usize,
    },
    /// A time that does not fit 63 bits.
    #[error("a time lies after the year 2262; give unix time in nanoseconds")]
    Time,
    /// A value is negative or too large to be summed.
    #[error("a value or period is negative or too large")]
    Value,
    /// The profile does not say what it counts.
    #[error("a profile needs a sample type")]
    NoSampleType,
    /// More frames than the limit.
    #[error("a stack has more than {0} frames")]
    Frames(usize),
    /// More inlined functions at one frame than the limit.
    #[error("a location has more than {0} lines")]
    Lines(usize),
    /// A name longer than the limit.
    #[error("a name is longer than {0} bytes")]
    Name(usize),
    /// More attributes than the limit.
    #[error("more than {0} attributes on one item")]
    Attributes(usize),
    /// The request would take too much memory.
    #[error("the request decodes to more than {0} bytes; send smaller requests")]
    Memory(usize),
}
