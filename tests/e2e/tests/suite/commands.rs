//! The commands of the terminal: `record` with every format, `top`, `doctor`, wrong use.

use std::process::Command;

use everflame_tests::everflame::command;
use everflame_tests::machine::{finish, need_program, need_root, output};
use everflame_tests::target::built;
use everflame_tests::{Everflame, Graph, Outcome, Target};
use serde_json::Value;

pub fn record_writes_every_format() -> Outcome {
    need_root()?;
    let truth = built("truth_cpp")?;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for name in ["out.json", "out.folded", "out.svg", "out.pb.gz"] {
        let path = file(name);
        let ended = finish(&mut command(&[
            "record",
            "--rate",
            "199",
            "--output",
            &path,
            "--",
            truth.to_str().unwrap(),
            "2",
            "1",
        ]));
        assert!(ended.status.success(), "record {name}: {}", String::from_utf8_lossy(&ended.stderr));
    }
    let graph = Graph::new(&serde_json::from_slice(&std::fs::read(file("out.json")).unwrap()).unwrap());
    let whole = graph.count(|path| path.has_chain(&["main", "descend"]) && path.times("descend") == 30);
    assert!(whole >= 300, "{whole} of {} samples are whole:\n{}", graph.samples, graph.heaviest(|_| true));

    let folded = std::fs::read_to_string(file("out.folded")).unwrap();
    let mut samples = 0;
    for line in folded.lines() {
        let (stack, count) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no count in {line:?}"));
        assert!(!stack.is_empty());
        let count: u64 = count.parse().unwrap_or_else(|_| panic!("no count in {line:?}"));
        if stack.contains(";work_a") || stack.contains(";work_b") || stack.contains(";work_c") {
            assert_eq!(stack.matches(";descend").count(), 30, "{line}");
            samples += count;
        }
    }
    assert!(samples >= 300, "{samples} samples in:\n{folded:.2000}");

    let svg = std::fs::read_to_string(file("out.svg")).unwrap();
    assert!(svg.contains("<svg") && svg.contains("work_a") && svg.trim_end().ends_with("</svg>"));

    assert_eq!(std::fs::read(file("out.pb.gz")).unwrap()[..2], [0x1f, 0x8b], "gzip");
    if need_program("go").is_ok() {
        // The format's own tool reads it.
        let text = output(Command::new("go").args(["tool", "pprof", "-top", "-nodecount=5", &file("out.pb.gz")]));
        assert!(text.contains("work_a") && text.contains("cpu"), "{text}");
    }
    Ok(())
}

pub fn record_ends_as_its_command() -> Outcome {
    need_root()?;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.folded");
    let path = path.to_str().unwrap();
    let ended = finish(&mut command(&["record", "--output", path, "--", "sh", "-c", "exit 7"]));
    assert_eq!(ended.status.code(), Some(7), "{}", String::from_utf8_lossy(&ended.stderr));
    // And after its time, when there is no command.
    let ended = finish(&mut command(&["record", "--duration", "2", "--output", path]));
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(std::fs::read_to_string(path).unwrap().lines().count() > 0, "two seconds of this machine are not empty");
    Ok(())
}

pub fn top_and_doctor() -> Outcome {
    need_root()?;
    let truth = built("truth_cpp")?;
    let up = Everflame::up(199);
    Target::start(&truth, &["3", "1"]).truth();
    up.api().wait_for_samples("{process=\"truth_cpp\"}", 400);
    let query = "{process=\"truth_cpp\"}";
    let text = output(&mut command(&["top", "--server", up.api().url(), "--query", query, "--output", "json"]));
    let answer: Value = serde_json::from_str(&text).unwrap();
    let rows = answer["rows"].as_array().unwrap();
    assert_eq!(rows[0]["name"], "work_a", "{rows:?}");
    let table = output(&mut command(&["top", "--server", up.api().url(), "--query", query]));
    assert!(table.contains("work_a") && table.contains("work_b"), "{table}");

    // Beside a program that was not there, all of it is more.
    let mut diff = command(&["diff", "--server", up.api().url(), "--query", query, "--from", "now-1h"]);
    let table =
        output(diff.args(["--base-query", "{process=\"none\"}", "--base-from", "now-1h", "--base-until", "now"]));
    let line = table.lines().find(|line| line.contains(" work_a")).unwrap_or_else(|| panic!("{table}"));
    let figures: Vec<f64> = line.split_whitespace().take(6).map(|f| f.trim_end_matches('%').parse().unwrap()).collect();
    let share = 100.0 * rows[0]["self"].as_f64().unwrap() / answer["samples"].as_f64().unwrap();
    assert!((figures[0] - share).abs() < 3.0 && figures[1] == 0.0 && figures[2] == figures[0], "{share} %: {table}");

    let text = output(&mut command(&["doctor", "--output", "json"]));
    let checks: Value = serde_json::from_str(&text).unwrap();
    let checks = checks.as_array().unwrap();
    assert!(checks.len() >= 3, "{text}");
    for check in checks {
        assert!(["ok", "warn", "fail"].contains(&check["status"].as_str().unwrap()), "{check}");
        assert!(check["check"].is_string() && check["found"].is_string() && check["remedy"].is_string(), "{check}");
    }
    let with_server = output(&mut command(&["doctor", "--server", up.api().url()]));
    assert!(with_server.lines().count() > checks.len(), "the server is one more matter:\n{with_server}");
    up.stop();
    Ok(())
}

pub fn wrong_use_ends_with_2() -> Outcome {
    for arguments in [&["up", "--rate", "0"][..], &["up", "--rate", "1000"], &["up", "--colour"], &["fly"]] {
        let ended = finish(&mut command(arguments));
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
        assert!(!ended.stderr.is_empty(), "{arguments:?} says nothing");
    }
    for arguments in [&["--help"][..], &["--version"], &["up", "--help"], &["record", "--help"]] {
        let ended = finish(&mut command(arguments));
        assert!(ended.status.success() && !ended.stdout.is_empty(), "{arguments:?}");
    }
    Ok(())
}
