//! A real Envoy, stripped, under load: whole stacks, functions instead of addresses, and the
//! same shares that `perf record --call-graph dwarf` finds in the same seconds.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use everflame_tests::api::unix_now_seconds;
use everflame_tests::judge::{Judge, address_of, reaches_root};
use everflame_tests::machine::{cache, finish, free_port, need_program, need_root, output, wait_for};
use everflame_tests::target::envoy_configuration;
use everflame_tests::{Api, Everflame, Outcome, Skip, Target, graph};

use super::runtimes::files_of;

const LOAD_SECONDS: u64 = 14;

pub fn whole_stacks_that_perf_agrees_with() -> Outcome {
    need_root()?;
    need_program("wrk")?;
    need_program("perf")?;
    let binary =
        cache().join("envoy").canonicalize().map_err(|_| Skip("needs Envoy (scripts/setup.sh test)".into()))?;
    let up = Everflame::up(197);
    let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
    let configuration = folder.path().join("envoy.json");
    std::fs::write(&configuration, envoy_configuration(port)).unwrap();
    let envoy = Target::spawn(Command::new(&binary).args([
        "-c",
        configuration.to_str().unwrap(),
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "-l",
        "critical",
    ]));
    let pid = envoy.pid();
    let site = Api::new(&format!("http://127.0.0.1:{port}"));
    wait_for("Envoy's first answer", Duration::from_secs(60), || (site.try_status("/") == Some(200)).then_some(()));
    let wrk = Target::spawn(Command::new("wrk").args(["-t1", "-c16", &format!("-d{LOAD_SECONDS}s"), site.url()]));
    std::thread::sleep(Duration::from_secs(3));

    let judges: Vec<Judge> = files_of(pid).iter().map(|path| Judge::new(path)).collect();
    let from = format!("{:.3}", unix_now_seconds());
    let recorded = folder.path().join("perf.data");
    let perf = finish(Command::new("perf").args([
        "record",
        "-q",
        "-e",
        "cpu-clock",
        "-F",
        "211",
        "--call-graph",
        "dwarf,16384",
        "-p",
        &pid.to_string(),
        "-o",
        recorded.to_str().unwrap(),
        "--",
        "sleep",
        "8",
    ]));
    assert!(perf.status.success(), "perf: {}", String::from_utf8_lossy(&perf.stderr));
    let until = format!("{:.3}", unix_now_seconds());
    drop(wrk);
    let query = format!("{{pid=\"{pid}\"}}");
    up.api().settle(&query, Duration::from_secs(4));
    let graph = up.api().graph_with(&query, &[("from", &from), ("until", &until)]);
    assert!(graph.samples >= 400, "only {} samples of a busy Envoy", graph.samples);

    let whole = graph.count(|path| reaches_root(path, &judges));
    println!(
        "envoy: {whole} of {} samples reach their root, the product's flag says {} ({:?})",
        graph.samples, graph.complete, graph.incomplete
    );
    assert!(
        whole * 100 >= graph.samples * 99,
        "stacks of Envoy that end early:\n{}",
        graph.heaviest(|path| !reaches_root(path, &judges))
    );

    // Functions, no address soup: every bare address is the start of a function.
    let own = judges.iter().find(|judge| judge.name == "envoy").expect("envoy is among its own files");
    for frame in graph.paths.iter().flat_map(|path| &path.frames) {
        if let Some(("envoy", address)) = address_of(&frame.name) {
            assert_eq!(own.function(address), Some(address), "{} is not the start of a function", frame.name);
        }
    }

    let theirs = perf_leaves(&recorded, own);
    let ours = our_leaves(&graph);
    compare(&ours, &theirs);
    Ok(())
}

/// Where a user stack stands: a function of Envoy, or any place in another file.
type Leaves = BTreeMap<String, u64>;

fn our_leaves(graph: &graph::Graph) -> Leaves {
    let mut leaves = Leaves::new();
    for path in &graph.paths {
        if let Some(frame) = path.frames.iter().rev().find(|frame| frame.kind == "native") {
            let key = if frame.mapping == "envoy" { frame.name.clone() } else { frame.mapping.clone() };
            *leaves.entry(key).or_default() += path.samples;
        }
    }
    leaves
}

/// The innermost user frame of every sample of perf's, which gives offsets in the file.
fn perf_leaves(recorded: &std::path::Path, envoy: &Judge) -> Leaves {
    let text = output(Command::new("perf").args([
        "script",
        "--no-inline",
        "-F",
        "ip,sym,dso",
        "-i",
        recorded.to_str().unwrap(),
    ]));
    let mut leaves = Leaves::new();
    for sample in text.split("\n\n").filter(|sample| !sample.trim().is_empty()) {
        let user = sample
            .lines()
            .find(|line| !line.contains("[kernel.kallsyms]") && !line.contains("([k") && line.contains('('));
        let Some(line) = user else { continue };
        let ip = u64::from_str_radix(line.split_whitespace().next().unwrap(), 16).unwrap();
        let dso = line.rsplit('(').next().unwrap().trim_end_matches(')');
        let file = dso.rsplit('/').next().unwrap();
        let key = if file == "envoy" {
            let address = envoy.address(ip);
            let start = address.and_then(|address| envoy.function(address)).expect("in a function of Envoy");
            format!("envoy+0x{start:x}")
        } else {
            file.to_owned()
        };
        *leaves.entry(key).or_default() += 1;
    }
    leaves
}

/// Shares of every place that has 2 % or more on either side agree within four standard
/// deviations of their difference and one point for what both disturb.
fn compare(ours: &Leaves, theirs: &Leaves) {
    let (n, m) = (ours.values().sum::<u64>() as f64, theirs.values().sum::<u64>() as f64);
    assert!(m >= 400.0, "perf has only {m} samples");
    let mut compared = 0;
    let places: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for place in places {
        let p = ours.get(place).copied().unwrap_or(0) as f64 / n;
        let q = theirs.get(place).copied().unwrap_or(0) as f64 / m;
        if p.max(q) < 0.02 {
            continue;
        }
        let both = (p * n + q * m) / (n + m);
        let allowed = 4.0 * (both * (1.0 - both) * (1.0 / n + 1.0 / m)).sqrt() + 0.01;
        println!("envoy: {place}: {:.1} % here, {:.1} % in perf", p * 100.0, q * 100.0);
        assert!((p - q).abs() <= allowed, "{place}: {:.1} % here, {:.1} % in perf", p * 100.0, q * 100.0);
        compared += 1;
    }
    assert!(compared >= 3, "only {compared} places to compare");
}
