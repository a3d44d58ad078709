//! An append-only list whose snapshot is cheap: readers share the full chunks and
//! copy only the short tail, so that a query never holds up an append.

use std::sync::Arc;

/// Items per chunk: what a snapshot copies at most.
const CHUNK: usize = 1 << 14;

/// See the module's text. Cloning takes a snapshot.
#[derive(Debug, Clone)]
pub(crate) struct Chunked<T> {
    full: Vec<Arc<Vec<T>>>,
    tail: Vec<T>,
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Self { full: Vec::new(), tail: Vec::new() }
    }
}

impl<T> Chunked<T> {
    /// Adds an item and returns its index.
    pub fn push(&mut self, item: T) -> u32 {
        let index = self.len() as u32;
        self.tail.push(item);
        if self.tail.len() == CHUNK {
            self.full.push(Arc::new(std::mem::take(&mut self.tail)));
        }
        index
    }

    pub fn len(&self) -> usize {
        self.full.len() * CHUNK + self.tail.len()
    }

    pub fn get(&self, index: u32) -> Option<&T> {
        let (chunk, at) = (index as usize / CHUNK, index as usize % CHUNK);
        match self.full.get(chunk) {
            Some(chunk) => chunk.get(at),
            None if chunk == self.full.len() => self.tail.get(at),
            None => None,
        }
    }

    /// The items in pieces, in order.
    pub fn chunks(&self) -> impl Iterator<Item = &[T]> {
        self.full.iter().map(|chunk| chunk.as_slice()).chain(std::iter::once(self.tail.as_slice()))
    }

    /// The items from an index on.
    pub fn since(&self, index: u32) -> impl ExactSizeIterator<Item = &T> {
        (index as usize..self.len()).map(|at| self.get(at as u32).expect("an index below the length"))
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks().flatten()
    }
}

impl<T> FromIterator<T> for Chunked<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut list = Self::default();
        for item in items {
            list.push(item);
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_hold_across_chunks_and_snapshots_do_not_move() {
        let mut list: Chunked<u32> = (0..CHUNK as u32 * 2 + 5).collect();
        let snapshot = list.clone();
        assert_eq!(list.push(7), CHUNK as u32 * 2 + 5);
        assert_eq!(snapshot.len(), CHUNK * 2 + 5);
        for index in [0, CHUNK as u32 - 1, CHUNK as u32, CHUNK as u32 * 2 + 4] {
            assert_eq!(list.get(index), Some(&index));
        }
        assert_eq!(snapshot.get(CHUNK as u32 * 2 + 5), None);
        assert_eq!(list.get(u32::MAX), None);
        assert!(list.since(CHUNK as u32 * 2 + 4).copied().eq([CHUNK as u32 * 2 + 4, 7]));
        assert!(snapshot.iter().copied().eq(0..CHUNK as u32 * 2 + 5));
    }
}
