//! A real Envoy, stripped, under load: whole stacks, functions instead of addresses, and the
//! same shares that `perf record --call-graph dwarf` finds in the same seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use everflame_tests::api::unix_now_seconds;
use everflame_tests::judge::{Judge, address_of, reaches_root};
use everflame_tests::machine::{cache, finish, free_port, need_program, need_root, output, wait_for};
use everflame_tests::target::{envoy_configuration, files_of};
use everflame_tests::{Api, Everflame, Outcome, Skip, Target, graph};

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
    // Many slow clocks: Envoy under a steady load has a rhythm, and a single one that happens
    // to fit it sees one part of each beat too often.
    let clocks = (17..=33).step_by(2).flat_map(|hertz| ["-e".to_owned(), format!("cpu-clock/freq={hertz}/")]);
    let perf = finish(Command::new("perf").args(["record", "-q"]).args(clocks).args([
        "--call-graph",
        "dwarf,16384",
        // By the CPUs' clocks, as ours: a clock of the process alone begins anew each time that
        // it runs, and prefers what it does first.
        "-a",
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

    let ours = our_stacks(&graph);
    let theirs = perf_stacks(&recorded, pid, own);
    // Where stacks stand, and every function that they pass through. Some of perf's own
    // stacks are cut (it copies 16 KiB of each), so that it sees a little less far out.
    let (leaves, all) =
        (compare(&ours, &theirs, |stack| &stack[..1], 0.01, 0.01), compare(&ours, &theirs, |stack| stack, 0.1, 0.04));
    assert!(leaves >= 3 && all >= 10, "only {leaves} leaves and {all} functions to compare");
    Ok(())
}

/// User stacks and how often they were seen, leaf first: functions of Envoy, and for all
/// other code the file.
type Stacks = BTreeMap<Vec<String>, u64>;

const NO_FUNCTION: &str = "envoy, no function";

fn our_stacks(graph: &graph::Graph) -> Stacks {
    let mut stacks = Stacks::new();
    for path in &graph.paths {
        let frames = path.frames.iter().rev().filter(|frame| frame.kind == "native");
        let stack: Vec<String> = frames
            .map(|frame| match (frame.mapping.as_str(), address_of(&frame.name)) {
                ("envoy", Some(_)) => frame.name.clone(),
                ("envoy", None) => NO_FUNCTION.to_owned(),
                (other, _) => other.to_owned(),
            })
            .collect();
        if !stack.is_empty() {
            *stacks.entry(stack).or_default() += path.samples;
        }
    }
    stacks
}

/// perf gives the offset in the file of every frame's code.
fn perf_stacks(recorded: &std::path::Path, pid: u32, envoy: &Judge) -> Stacks {
    let text = output(Command::new("perf").args([
        "script",
        "--no-inline",
        "--pid",
        &pid.to_string(),
        "-F",
        "ip,sym,dso",
        "-i",
        recorded.to_str().unwrap(),
    ]));
    let mut stacks = Stacks::new();
    for sample in text.split("\n\n") {
        let user = sample.lines().filter(|line| line.ends_with(')') && !line.contains("([kernel.kallsyms])"));
        let stack: Vec<String> = user
            .map(|line| {
                let offset = u64::from_str_radix(line.split_whitespace().next().unwrap(), 16).unwrap();
                let file = line.rsplit(['(', '/']).next().unwrap().trim_end_matches(')');
                if file != "envoy" {
                    return file.to_owned();
                }
                // The linker's stubs have no unwind data in this file; neither side names them.
                match envoy.address(offset).and_then(|address| envoy.function(address)) {
                    Some(start) => format!("envoy+0x{start:x}"),
                    None => NO_FUNCTION.to_owned(),
                }
            })
            .collect();
        if !stack.is_empty() {
            *stacks.entry(stack).or_default() += 1;
        }
    }
    stacks
}

/// Shares of every place that has `least` or more on either side agree within four standard
/// deviations of their difference and `slack`. Returns how many places there were.
fn compare(ours: &Stacks, theirs: &Stacks, part: fn(&[String]) -> &[String], least: f64, slack: f64) -> usize {
    let places = |stacks: &Stacks| {
        let mut places = BTreeMap::<String, u64>::new();
        for (stack, count) in stacks {
            let distinct: BTreeSet<&String> = part(stack).iter().collect();
            distinct.into_iter().for_each(|place| *places.entry(place.clone()).or_default() += count);
        }
        places
    };
    let (n, m) = (ours.values().sum::<u64>() as f64, theirs.values().sum::<u64>() as f64);
    println!("envoy: {n} samples here, {m} in perf");
    assert!(m >= 400.0, "perf has only {m} samples");
    let (ours, theirs) = (places(ours), places(theirs));
    let mut compared = 0;
    for place in ours.keys().chain(theirs.keys()).collect::<BTreeSet<&String>>() {
        let p = ours.get(place).copied().unwrap_or(0) as f64 / n;
        let q = theirs.get(place).copied().unwrap_or(0) as f64 / m;
        if p.max(q) < least {
            continue;
        }
        let both = (p * n + q * m) / (n + m);
        let allowed = 4.0 * (both * (1.0 - both) * (1.0 / n + 1.0 / m)).sqrt() + slack;
        println!("envoy: {place}: {:.1} % here, {:.1} % in perf", p * 100.0, q * 100.0);
        assert!((p - q).abs() <= allowed, "{place}: {:.1} % here, {:.1} % in perf", p * 100.0, q * 100.0);
        compared += 1;
    }
    compared
}
