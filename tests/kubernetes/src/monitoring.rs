//! The metrics that dashboard and alerts of `deploy/monitoring` name.

use std::collections::BTreeSet;

use everflame_tests::machine;

/// Names of ours in a text.
pub fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("everflame_")).map(str::to_owned).collect()
}

/// Those in the expressions of all alerts and panels.
pub fn named() -> BTreeSet<String> {
    let folder = machine::repository().join("deploy/monitoring");
    let text = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    metrics(&(text("rules.yaml") + &text("dashboard.json")))
}

/// Names for which a text of Prometheus' form has figures, or says what they would be.
pub fn told(text: &str) -> BTreeSet<String> {
    let heads = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    heads.map(str::to_owned).collect()
}
