//! Names that stand in many places, kept once.

use everflame_profile::Str;
use rustc_hash::FxHashSet;

/// Strings that many share, once.
#[derive(Debug, Default)]
pub struct Strings(FxHashSet<Str>);

impl Strings {
    /// The shared form.
    pub fn get(&mut self, text: &str) -> Str {
        if let Some(known) = self.0.get(text) {
            return Str::clone(known);
        }
        let new: Str = text.into();
        self.0.insert(Str::clone(&new));
        new
    }

    /// Forgets those that nobody uses any more.
    pub fn sweep(&mut self) {
        self.0.retain(|text| Str::strong_count(text) > 1);
    }
}
