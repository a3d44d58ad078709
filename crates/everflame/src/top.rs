//! `top`: the functions that use most, from a server.

use std::io::{self, Write};

use crate::{client::Client, options::TopOptions, print::print};

/// Asks and prints.
pub fn run(options: TopOptions) -> anyhow::Result<()> {
    let client = Client::new(&options.access.server, &options.access.credentials)?;
    let (limit, offset) = (options.limit.to_string(), options.offset.to_string());
    let answer = client.get(
        "/api/v1/top",
        &[
            ("query", &options.query),
            ("from", &options.from),
            ("until", &options.until),
            ("type", &options.sample_type),
            ("by", &options.by),
            ("sort", &options.sort),
            ("limit", &limit),
            ("offset", &offset),
        ],
    )?;
    print(options.output, &answer, table)
}

fn table(out: &mut dyn Write, answer: &serde_json::Value) -> io::Result<()> {
    let all = answer["samples"].as_f64().unwrap_or(0.0);
    let unit = answer["unit"].as_str().unwrap_or("");
    let rows = answer["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    if rows.is_empty() {
        return writeln!(out, "no samples match; widen --from/--until or --query");
    }
    let percent = |count: &serde_json::Value| if all > 0.0 { 100.0 * count.as_f64().unwrap_or(0.0) / all } else { 0.0 };
    writeln!(
        out,
        "{:>8} {:>12} {:>8} {:>12}  {:<10} function",
        "self %",
        format!("self {unit}"),
        "total %",
        format!("total {unit}"),
        "kind"
    )?;
    for row in rows {
        let text = |key: &str| row[key].as_str().unwrap_or("").to_owned();
        let mapping = text("mapping");
        let place = if mapping.is_empty() { String::new() } else { format!("  ({mapping})") };
        writeln!(
            out,
            "{:>7.2}% {:>12.3} {:>7.2}% {:>12.3}  {:<10} {}{place}",
            percent(&row["self"]),
            row["self_value"].as_f64().unwrap_or(0.0),
            percent(&row["total"]),
            row["total_value"].as_f64().unwrap_or(0.0),
            text("kind"),
            text("name"),
        )?;
    }
    writeln!(out, "{} of {} rows, {} samples", rows.len(), answer["count"], answer["samples"])
}
