//! Labels: OpenTelemetry attributes as sorted pairs of strings.

use std::sync::Arc;

/// A shared, immutable string. Cloning one copies a pointer.
pub type Str = Arc<str>;

/// Attributes of a resource or a sample, sorted by name, each name once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(Vec<(Str, Str)>);

impl Labels {
    /// Sorts the pairs; where a name stands twice, the last one wins. Pairs with an
    /// empty value are left out, since a missing label equals `""`.
    pub fn new(mut pairs: Vec<(Str, Str)>) -> Self {
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        let mut kept: Vec<(Str, Str)> = Vec::with_capacity(pairs.len());
        for pair in pairs {
            match kept.last_mut() {
                Some(last) if last.0 == pair.0 => *last = pair,
                _ => kept.push(pair),
            }
        }
        kept.retain(|(_, value)| !value.is_empty());
        Self(kept)
    }

    /// The value of `name`, or `None` where the label is missing.
    pub fn get(&self, name: &str) -> Option<&Str> {
        let at = self.0.binary_search_by(|(n, _)| n.as_ref().cmp(name)).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// The pairs, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &(Str, Str)> {
        self.0.iter()
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(Str, Str)> for Labels {
    fn from_iter<I: IntoIterator<Item = (Str, Str)>>(pairs: I) -> Self {
        Self::new(pairs.into_iter().collect())
    }
}
