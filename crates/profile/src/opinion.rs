//! What an agent's second, independent unwinder says of its stacks: one sample in so many is
//! walked again in another way, and the two are compared frame by frame.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Sums since the agent started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecondOpinion {
    /// One sample in so many is looked at.
    pub every: u32,
    /// Stacks of which both say the same, to the root.
    pub agree: u64,
    /// Stacks of which they say different things.
    pub differ: u64,
    /// Stacks that the agent ended as incomplete, and of which the second sees more.
    pub shorter: u64,
    /// Stacks that the second could not judge to the end, by reason; as far as it went it
    /// said the same.
    pub not_judged: BTreeMap<String, u64>,
    /// By executable, the most important first; what is left is one entry, `(other)`.
    pub executables: Vec<ExecutableOpinion>,
}

/// The same of one executable: of stacks it is on where both agree, of stacks that its step
/// leads astray where they do not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecutableOpinion {
    /// Base name.
    pub name: String,
    /// Stacks it is on of which both say the same.
    pub agree: u64,
    /// Stacks in which the step from its frame is the first that differs.
    pub differ: u64,
    /// Stacks that end in it where the second sees more.
    pub shorter: u64,
}
