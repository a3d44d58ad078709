//! The query language: a Prometheus selector over OpenTelemetry attributes.

/// Comparison of a label with a value.
#[derive(Debug, Clone)]
pub enum MatcherOp {
    /// `=`
    Equal(String),
    /// `!=`
    NotEqual(String),
    /// `=~`, anchored
    Matches(regex::Regex),
    /// `!~`, anchored
    MatchesNot(regex::Regex),
}

/// One condition. `name` is the OpenTelemetry attribute name.
#[derive(Debug, Clone)]
pub struct Matcher {
    /// Attribute name, short names and underscores already resolved.
    pub name: String,
    /// The comparison.
    pub op: MatcherOp,
}

/// All conditions of a query; the empty selector selects everything.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    /// The conditions.
    pub matchers: Vec<Matcher>,
}
