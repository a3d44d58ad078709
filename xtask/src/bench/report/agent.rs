//! The agent's part of the page: its figures beside the goals and the peers'.

use std::fmt::Write;

use serde_json::Value;

use super::{mib, number};

/// A row: what, our figure, the goal, and what others measure.
struct Row(&'static str, String, &'static str, &'static str);

pub(super) fn agent_table(f: &Value) -> String {
    let (idle, busy, fast, storm, crowded) = (&f["idle"], &f["busy"], &f["fast"], &f["storm"], &f["crowded"]);
    let perf = |rate: &str, field: &str| number(&f["perf"][rate][field]);
    let mut out = String::from(
        "Busy: a real Envoy under load, CPython, a JVM, Node, Go, Rust and C++ without frame pointers on both cores, and 300 \
         processes that sleep. The last column is the OpenTelemetry eBPF profiler, measured with 25 processes.\n\n\
         | | Everflame | goal | OpenTelemetry |\n|---|---|---|---|\n",
    );
    let rows = [
        Row("CPU at 20 Hz, idle, all of it, % of the node", percent(idle), "", "0.38 – 0.53"),
        Row("CPU at 20 Hz, both cores busy, once everything that runs is known", percent(busy), "≤ 0.1", "0.66 – 1.24"),
        Row(
            "until then: CPU seconds / seconds",
            format!("{} / {}", figure(busy, "start_cpu_s", 1), figure(busy, "steady_after_s", 0)),
            "",
            "",
        ),
        Row("the same at 97 Hz", percent(fast), "", "2.06 – 2.34"),
        Row("CPU at 20 Hz with 10 new processes a second", percent(storm), "≤ 0.3", ""),
        Row("of both cores busy: user space / sampler / life cycle, ms/s", parts(busy), "", "11.2 / 2.1"),
        Row("of the new processes", parts(storm), "", ""),
        Row(
            "wake-ups a second: idle / busy / storm",
            format!("{:.1} / {:.1} / {:.1}", wakeups(idle), wakeups(busy), wakeups(storm)),
            "",
            "",
        ),
        Row("µs a sample in the kernel, 20 Hz", figure(busy, "us_per_sample", 1), "≤ 25", "45"),
        Row("the same at 97 Hz", figure(fast, "us_per_sample", 1), "≤ 15", "32"),
        Row(
            "longest time in the interrupt, µs, 20 / 97 Hz",
            format!("{} / {}", figure(busy, "longest_us", 0), figure(fast, "longest_us", 0)),
            "≤ 300",
            "",
        ),
        Row("bytes a sample on the wire, 20 Hz", figure(busy, "wire_bytes_per_sample", 1), "≤ 40", "58 – 62"),
        Row("the same at 97 Hz", figure(fast, "wire_bytes_per_sample", 1), "≤ 15", "26"),
        Row(
            "the same with HTTP/2, headers and reports, 20 / 97 Hz",
            pair(busy, fast, "socket_bytes_per_sample"),
            "",
            "",
        ),
        Row(
            "whole stacks without the JVM, %, 20 / 97 Hz",
            pair(busy, fast, "complete_percent_without_jvm"),
            "≥ 99.5",
            "90 – 95",
        ),
        Row("the same with a JVM at its default flags", pair(busy, fast, "complete_percent"), "≥ 99.5", ""),
        Row(
            "samples of (CPU seconds × rate), %, 20 / 97 Hz",
            format!("{} / {}", counted(busy), counted(fast)),
            "100 within noise",
            "91 – 100",
        ),
        Row("memory with 300 processes, RSS + BPF maps, MiB", memory(busy), "", "120 + 50"),
        Row("memory with 500 processes of 300 executables", memory(crowded), "≤ 64", "170 with 25 processes"),
        Row("start to the first whole stack, idle, s", start(&f["start_idle"]), "≤ 0.3", "3 – 5"),
        Row("the same, both cores busy", start(&f["start_busy"]), "≤ 1", "15 – 22"),
    ];
    for Row(what, ours, goal, theirs) in rows {
        let _ = writeln!(out, "| {what} | {ours} | {goal} | {theirs} |");
    }
    let _ = writeln!(
        out,
        "\nBeside it on the same load, `perf record -e cpu-clock --call-graph dwarf -a`: {:.1} ms/s of CPU at 20 Hz and {:.1} at \
         97 Hz ({:.2} and {:.2} % of the node), {:.0} bytes a sample, {:.1} % of stacks whole once `perf script` has read them.\n\n\
         | depth of the stack | µs a sample | longest, µs |\n|---|---|---|",
        perf("20", "cpu_ms_per_s"),
        perf("97", "cpu_ms_per_s"),
        perf("20", "percent_of_node"),
        perf("97", "percent_of_node"),
        perf("20", "bytes_per_sample"),
        perf("20", "whole_percent"),
    );
    for d in f["by_depth"].as_array().into_iter().flatten() {
        let _ =
            writeln!(out, "| {} | {:.1} | {:.0} |", d["depth"], number(&d["us_per_sample"]), number(&d["longest_us"]));
    }
    out
}

/// A dash stands for what the last run did not measure yet.
fn figure(of: &Value, name: &str, digits: usize) -> String {
    of[name].as_f64().map_or_else(|| "–".into(), |figure| format!("{figure:.digits$}"))
}

fn pair(a: &Value, b: &Value, name: &str) -> String {
    format!("{} / {}", figure(a, name, 1), figure(b, name, 1))
}

fn percent(of: &Value) -> String {
    figure(of, "percent_of_node", 3)
}

fn wakeups(of: &Value) -> f64 {
    number(&of["wakeups_per_s"])
}

fn parts(of: &Value) -> String {
    let part = |name| figure(of, name, 2);
    format!("{} / {} / {}", part("user_ms_per_s"), part("bpf_ms_per_s"), part("other_bpf_ms_per_s"))
}

fn memory(of: &Value) -> String {
    let sum = mib(&of["rss_bytes"]) + mib(&of["map_bytes"]);
    format!("{:.0} + {:.0} = {sum:.0}", mib(&of["rss_bytes"]), mib(&of["map_bytes"]))
}

fn counted(of: &Value) -> String {
    let counted = &of["counted"];
    format!("{:.1} (at most {:.1} σ)", number(&counted["percent"]), number(&counted["worst_sigma"]))
}

fn start(of: &Value) -> String {
    format!("{:.2} (slowest {:.2})", number(&of["first_complete_shown_s"]), number(&of["slowest_s"]))
}
