//! Values once each, numbered in the order they were first seen.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash},
};

/// Gives equal values the same number.
pub(super) struct Interner<T, S> {
    numbers: HashMap<T, u32, S>,
}

impl<T: Hash + Eq, S: BuildHasher + Default> Interner<T, S> {
    pub fn new() -> Self {
        Self { numbers: HashMap::default() }
    }

    /// The number of `value`.
    pub fn number(&mut self, value: T) -> u32 {
        let next = u32::try_from(self.numbers.len()).expect("tables of a request are indexed by 31 bits");
        *self.numbers.entry(value).or_insert(next)
    }

    /// The values in the order of their numbers.
    pub fn into_vec(self) -> Vec<T> {
        let mut pairs: Vec<(u32, T)> = self.numbers.into_iter().map(|(value, number)| (number, value)).collect();
        pairs.sort_unstable_by_key(|(number, _)| *number);
        pairs.into_iter().map(|(_, value)| value).collect()
    }
}
