//! A row: one observation, all strings replaced by indexes into a dictionary.

use everflame_profile::Completeness;

/// Nanoseconds in the unit that time is kept in.
pub(crate) const NANOS_PER_MS: i64 = 1_000_000;

/// One observation in the id space of the head or block that holds it. 64 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// Unix milliseconds, rounded down.
    pub time: i64,
    pub period: i64,
    pub samples: u64,
    pub value: i64,
    /// Index into the series dictionary.
    pub series: u32,
    /// `process.pid`, 0 where unknown.
    pub pid: u32,
    /// Index into the thread names, 0 is the empty one.
    pub thread: u32,
    /// `thread.id`, 0 where unknown.
    pub tid: u32,
    /// `cpu.logical_number`, `u32::MAX` where unknown.
    pub cpu: u32,
    /// Index into the label sets, 0 is the empty one.
    pub labels: u32,
    /// Trie node of the leaf, `u32::MAX` for the empty stack.
    pub node: u32,
    pub completeness: Completeness,
}

impl Row {
    /// What a reader starts from before it fills in the columns it was asked for.
    pub const EMPTY: Self = Self {
        time: 0,
        period: 0,
        samples: 0,
        value: 0,
        series: 0,
        pid: 0,
        thread: 0,
        tid: 0,
        cpu: u32::MAX,
        labels: 0,
        node: u32::MAX,
        completeness: Completeness::NotSaid,
    };

    /// What the value is beyond samples times period: mostly nothing, which is why
    /// blocks keep this instead of the value. Wraps, so that nothing is lost.
    pub fn value_rest(&self) -> i64 {
        self.value.wrapping_sub((self.samples as i64).wrapping_mul(self.period))
    }

    /// The value of a row whose other columns are filled in.
    pub fn value_of_rest(&self, rest: i64) -> i64 {
        (self.samples as i64).wrapping_mul(self.period).wrapping_add(rest)
    }
}

/// Unix milliseconds of a time in nanoseconds, rounded down.
pub(crate) fn floor_ms(nanos: i64) -> i64 {
    nanos.div_euclid(NANOS_PER_MS)
}

/// Unix milliseconds of a time in nanoseconds, rounded up.
pub(crate) fn ceil_ms(nanos: i64) -> i64 {
    floor_ms(nanos) + i64::from(nanos.rem_euclid(NANOS_PER_MS) != 0)
}
