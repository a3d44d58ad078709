//! `diff`: which functions use more or less than before, or than elsewhere, from a server.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::{
    client::Client,
    options::{Output, ServerAccess},
    print::print,
};

/// Options of `diff`.
#[derive(Debug, Args)]
pub struct DiffOptions {
    /// The server.
    #[command(flatten)]
    pub access: ServerAccess,
    /// Which samples, e.g. '{service="cart"}'
    #[arg(long, value_name = "SELECTOR", env = "EVERFLAME_QUERY", default_value = "")]
    pub query: String,
    /// From when: RFC 3339, Unix seconds, or now-15m
    #[arg(long, value_name = "TIME", env = "EVERFLAME_FROM", default_value = "now-15m")]
    pub from: String,
    /// Until when
    #[arg(long, value_name = "TIME", env = "EVERFLAME_UNTIL", default_value = "now")]
    pub until: String,
    /// Which samples to compare with (default: the same)
    #[arg(long, value_name = "SELECTOR", env = "EVERFLAME_BASE_QUERY")]
    pub base_query: Option<String>,
    /// From when (default: a time of the same length just before --from)
    #[arg(long, value_name = "TIME", env = "EVERFLAME_BASE_FROM")]
    pub base_from: Option<String>,
    /// Until when (default: --from)
    #[arg(long, value_name = "TIME", env = "EVERFLAME_BASE_UNTIL")]
    pub base_until: Option<String>,
    /// Type of samples
    #[arg(long = "type", value_name = "TYPE", env = "EVERFLAME_TYPE", default_value = "cpu")]
    pub sample_type: String,
    /// Labels that make the first levels of the tree, e.g. namespace,process (of the JSON)
    #[arg(long, value_name = "LABELS", env = "EVERFLAME_GROUP", default_value = "")]
    pub group: String,
    /// Keep only the N largest nodes of the tree; 0 for all
    #[arg(long, value_name = "N", env = "EVERFLAME_MAX_NODES", default_value_t = 0)]
    pub max_nodes: u64,
    /// By what the table is sorted: the function's own share of all, or with what it calls
    #[arg(long, value_enum, value_name = "MEASURE", env = "EVERFLAME_SORT", default_value_t = Measure::Own)]
    pub sort: Measure,
    /// Number of rows of the table
    #[arg(long, value_name = "N", env = "EVERFLAME_LIMIT", default_value_t = 20)]
    pub limit: usize,
    /// How to print
    #[arg(long, value_enum, value_name = "FORM", env = "EVERFLAME_OUTPUT", default_value_t = Output::Table)]
    pub output: Output,
}

/// What changes are measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Measure {
    /// Without what it calls.
    #[value(name = "self")]
    Own,
    /// With it.
    Total,
}

/// Asks and prints.
pub fn run(options: DiffOptions) -> anyhow::Result<()> {
    let client = Client::new(&options.access.server, &options.access.credentials)?;
    let max_nodes = options.max_nodes.to_string();
    let base =
        [("base_query", &options.base_query), ("base_from", &options.base_from), ("base_until", &options.base_until)];
    let mut parameters = vec![
        ("query", options.query.as_str()),
        ("from", &options.from),
        ("until", &options.until),
        ("type", &options.sample_type),
        ("group", &options.group),
        ("max_nodes", &max_nodes),
    ];
    parameters.extend(base.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))));
    let answer = client.get("/api/v1/diff", &parameters)?;
    print(options.output, &answer, |out, answer| table(out, answer, &options))
}

/// A function: kind, name and mapping, as indexes into the answer's lists.
type Function = [usize; 3];

/// Samples of a function and of the base: without what it calls, and with it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sums {
    own: [f64; 2],
    total: [f64; 2],
}

impl Sums {
    /// How much larger the share of all is than that of the base.
    fn change(&self, by: Measure, all: [f64; 2]) -> f64 {
        let [now, then] = shares(if by == Measure::Own { self.own } else { self.total }, all);
        now - then
    }
}

/// In percent.
fn shares(sums: [f64; 2], all: [f64; 2]) -> [f64; 2] {
    [0, 1].map(|side| if all[side] > 0.0 { 100.0 * sums[side] / all[side] } else { 0.0 })
}

/// Sums by function over all nodes of the tree; recursion counts once in the total.
fn functions(nodes: &Value) -> HashMap<Function, Sums> {
    let column = |name: &str| nodes[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let index = |name: &str, at: usize| column(name).get(at).and_then(Value::as_u64).unwrap_or(0) as usize;
    let pair =
        |names: [&str; 2], at: usize| names.map(|name| column(name).get(at).and_then(Value::as_f64).unwrap_or(0.0));
    let function = |at: usize| ["kind", "name", "mapping"].map(|name| index(name, at));
    let parents: Vec<Option<usize>> =
        column("parent").iter().map(|parent| parent.as_u64().map(|parent| parent as usize)).collect();
    let all: Vec<Function> = (0..parents.len()).map(function).collect();
    let mut sums: HashMap<Function, Sums> = HashMap::new();
    for (at, function) in all.iter().enumerate() {
        let above = |at: &usize| parents.get(*at).copied().flatten();
        let again = std::iter::successors(above(&at), above).any(|at| all.get(at) == Some(function));
        let entry = sums.entry(*function).or_default();
        let (own, total) = (pair(["self", "base_self"], at), pair(["total", "base_total"], at));
        for side in [0, 1] {
            entry.own[side] += own[side];
            entry.total[side] += if again { 0.0 } else { total[side] };
        }
    }
    sums
}

fn table(out: &mut dyn Write, answer: &Value, options: &DiffOptions) -> io::Result<()> {
    let samples = [&answer["samples"], &answer["base"]["samples"]].map(|n| n.as_f64().unwrap_or(0.0));
    if samples == [0.0, 0.0] {
        return writeln!(out, "no samples match; widen --from/--until and --base-from/--base-until, or the queries");
    }
    let text = |list: &str, at: usize| answer[list][at].as_str().unwrap_or("");
    let of_code = |function: &Function| !matches!(text("kinds", function[0]), "root" | "label" | "marker");
    let mut rows: Vec<(Function, Sums)> =
        functions(&answer["nodes"]).into_iter().filter(|(function, _)| of_code(function)).collect();
    let change = |sums: &Sums| sums.change(options.sort, samples).abs();
    rows.sort_by(|(a, x), (b, y)| change(y).total_cmp(&change(x)).then(a.cmp(b)));
    writeln!(
        out,
        "{:>8} {:>8} {:>8} {:>8} {:>8} {:>8}  {:<10} function",
        "self %", "base %", "change", "total %", "base %", "change", "kind"
    )?;
    for (function, sums) in rows.iter().take(options.limit) {
        let [kind, name, mapping] = [("kinds", 0), ("names", 1), ("mappings", 2)].map(|(l, at)| text(l, function[at]));
        let place = if mapping.is_empty() { String::new() } else { format!("  ({mapping})") };
        let [own, total] = [sums.own, sums.total].map(|sums| shares(sums, samples));
        writeln!(
            out,
            "{:>7.2}% {:>7.2}% {:>+8.2} {:>7.2}% {:>7.2}% {:>+8.2}  {kind:<10} {name}{place}",
            own[0],
            own[1],
            own[0] - own[1],
            total[0],
            total[1],
            total[0] - total[1],
        )?;
    }
    let shown = rows.len().min(options.limit);
    let unit = answer["unit"].as_str().unwrap_or("");
    let value = |of: &Value| of["value"].as_f64().unwrap_or(0.0);
    writeln!(
        out,
        "{shown} of {} functions; {} samples ({:.3} {unit}), base {} ({:.3} {unit})",
        rows.len(),
        samples[0],
        value(answer),
        samples[1],
        value(&answer["base"]),
    )?;
    match answer["elided"]["nodes"].as_u64() {
        Some(left) if left > 0 => writeln!(out, "{left} small nodes are in no row: give --max-nodes 0"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_functions_nodes_are_summed_and_recursion_counts_once() {
        // total ─ main ─┬─ walk ─ walk
        //               └─ work
        let nodes = json!({
            "parent": [-1, 0, 1, 2, 1], "kind": [0, 1, 1, 1, 1], "name": [0, 1, 2, 2, 3], "mapping": [0, 1, 1, 1, 1],
            "self": [0, 1, 2, 3, 4], "total": [10, 10, 5, 3, 4],
            "base_self": [0, 0, 1, 1, 8], "base_total": [10, 10, 2, 1, 8],
        });
        let sums = functions(&nodes);
        assert_eq!(sums[&[1, 2, 1]], Sums { own: [5.0, 2.0], total: [5.0, 2.0] });
        assert_eq!(sums[&[1, 1, 1]], Sums { own: [1.0, 0.0], total: [10.0, 10.0] });
        let work = sums[&[1, 3, 1]];
        assert_eq!((work.change(Measure::Own, [10.0, 20.0]), work.change(Measure::Total, [0.0, 8.0])), (0.0, -100.0));
    }
}
