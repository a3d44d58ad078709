//! Functions of several sources that may overlap, as pieces that do not: one after the other, so
//! that of a file with a million functions nothing is held twice.
use crate::functions::Function;

/// A part of a function that nothing better covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub start: u64,
    pub length: u32,
    /// Index of the function.
    pub function: u32,
}

impl Piece {
    pub fn end(&self) -> u64 {
        self.start + u64::from(self.length)
    }

    /// The part of `self` between two addresses inside it.
    fn between(&self, start: u64, end: u64) -> Self {
        Self { start, length: (end - start) as u32, ..*self }
    }
}

/// The pieces of all functions, in order. These are sorted by source, the best first, and then by start.
pub(crate) fn pieces(functions: &[Function]) -> Box<dyn Iterator<Item = Piece> + '_> {
    let mut all: Option<Box<dyn Iterator<Item = Piece> + '_>> = None;
    let mut base = 0;
    for class in functions.chunk_by(|a, b| a.source == b.source) {
        let low = of_one_source(class, base);
        base += class.len() as u32;
        all = Some(match all {
            None => Box::new(low),
            Some(high) => Box::new(Merge { high: high.peekable(), left: None, low }),
        });
    }
    all.unwrap_or_else(|| Box::new(std::iter::empty()))
}

/// A function ends where the next one begins; of those that begin together the first counts.
fn of_one_source(class: &[Function], base: u32) -> impl Iterator<Item = Piece> {
    let mut numbered = class.iter().zip(base..).peekable();
    std::iter::from_fn(move || {
        let (function, index) = numbered.next()?;
        while numbered.next_if(|(next, _)| next.start == function.start).is_some() {}
        let room = numbered.peek().map_or(u64::MAX, |(next, _)| next.start - function.start);
        let length = function.length.min(u32::try_from(room).unwrap_or(u32::MAX));
        Some(Piece { start: function.start, length, function: index })
    })
}

/// The pieces of `high` and those parts of `low` that they do not cover.
struct Merge<H: Iterator<Item = Piece>, L> {
    high: std::iter::Peekable<H>,
    /// What is left of the last piece of `low`.
    left: Option<Piece>,
    low: L,
}

impl<H: Iterator<Item = Piece>, L: Iterator<Item = Piece>> Iterator for Merge<H, L> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        loop {
            let Some(low) = self.left.take().or_else(|| self.low.next()) else { return self.high.next() };
            let Some(over) = self.high.peek().copied().filter(|over| over.start < low.end()) else { return Some(low) };
            if over.start > low.start {
                self.left = Some(low.between(over.start, low.end()));
                return Some(low.between(low.start, over.start));
            }
            if over.end() < low.end() {
                // Whatever of `low` is behind it comes next.
                self.left = Some(low.between(low.start.max(over.end()), low.end()));
                return self.high.next();
            }
            // All of `low` is covered.
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn piece(start: u64, length: u32, function: u32) -> Piece {
        Piece { start, length, function }
    }

    /// Sorted, without overlap.
    fn sorted(gaps: Vec<(u64, u32)>, first: u32) -> Vec<Piece> {
        let mut at = 0;
        let place = |((gap, length), number): ((u64, u32), u32)| {
            let start = at + gap;
            at = start + u64::from(length);
            piece(start, length, number)
        };
        gaps.into_iter().zip(first..).map(place).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        /// Against a list of every address.
        #[test]
        fn high_covers_low_and_nothing_is_lost(
            high in prop::collection::vec((0u64..6, 1u32..8), 0..20),
            low in prop::collection::vec((0u64..6, 1u32..8), 0..20),
        ) {
            let (high, low) = (sorted(high, 0), sorted(low, 100));
            let mut expected = [None; 400];
            for piece in low.iter().chain(&high) {
                expected[piece.start as usize..piece.end() as usize].fill(Some(piece.function));
            }
            let merged: Vec<Piece> =
                Merge { high: high.into_iter().peekable(), left: None, low: low.into_iter() }.collect();
            prop_assert!(merged.windows(2).all(|pair| pair[0].end() <= pair[1].start), "{:?}", merged);
            let mut found = [None; 400];
            for piece in &merged {
                prop_assert!(piece.length > 0);
                found[piece.start as usize..piece.end() as usize].fill(Some(piece.function));
            }
            prop_assert_eq!(found, expected);
        }
    }
}
