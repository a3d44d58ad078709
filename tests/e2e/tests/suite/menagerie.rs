//! The figure that counts: of all user samples over a zoo of real programs, how many reach
//! their root. Judged by the files' own unwind data, not by what the product says of itself.

use std::collections::BTreeMap;
use std::time::Duration;

use everflame_tests::api::unix_now_seconds;
use everflame_tests::graph::{Graph, Path};
use everflame_tests::judge::{Judge, reaches_root};
use everflame_tests::machine::{need_root, wait_for};
use everflame_tests::target::files_of;
use everflame_tests::zoo::{FRAME_POINTERS, JVM, Zoo};
use everflame_tests::{Everflame, Outcome, Skip};

/// Most that a sampler may ask for: enough samples of each of two dozen programs on two cores.
const RATE: u32 = 997;
/// Until every runtime has warmed up, on cores that all share; then until the tables of large files
/// are there. How soon they are is for another test.
const WARM_UP: Duration = Duration::from_secs(10);
const WINDOW: Duration = Duration::from_secs(12);
const ENOUGH: u64 = 200;

/// Samples of one program.
struct Count {
    all: u64,
    whole: u64,
    /// Without code that a runtime made: such samples, and those of them that are whole.
    native: (u64, u64),
    /// Short ones that do not say so, and whole ones that say they are short.
    mistaken: u64,
}

pub fn stacks_of_every_kind_reach_their_root() -> Outcome {
    need_root()?;
    let up = Everflame::up(RATE);
    let zoo = Zoo::open_whole(120);
    std::thread::sleep(WARM_UP);
    wait_for("the tables of the largest", Duration::from_secs(60), || {
        let from = format!("{:.3}", unix_now_seconds() - 4.0);
        let largest = zoo.animals.iter().filter(|animal| ["Node", FRAME_POINTERS].contains(&animal.name));
        largest
            .map(|animal| up.api().graph_with(&animal.query, &[("from", &from)]))
            .all(|graph| graph.samples > 0 && graph.complete * 10 >= graph.samples * 9)
            .then_some(())
    });
    let from = format!("{:.3}", unix_now_seconds());
    let mut files: Vec<_> = zoo.animals.iter().flat_map(|animal| animal.pids()).flat_map(files_of).collect();
    files.sort();
    files.dedup();
    let judges: Vec<Judge> = files.iter().map(|path| Judge::new(path)).collect();
    std::thread::sleep(WINDOW);
    let until = format!("{:.3}", unix_now_seconds());
    let queries: Vec<(&str, String)> = zoo.animals.iter().map(|animal| (animal.name, animal.query.clone())).collect();
    let absent: Vec<String> = zoo.absent.iter().map(|(name, reason)| format!("{name}: {}", reason.0)).collect();
    drop(zoo);
    up.api().settle("{}", Duration::from_secs(4));

    let (mut wrong, mut sum, mut jvm) = (String::new(), (0, 0), (0, 0));
    println!("{:32} {:>7} {:>9} {:>9}  reasons of the rest", "program", "samples", "whole", "native");
    for (name, query) in queries {
        let graph = up.api().graph_with(&query, &[("from", &from), ("until", &until)]);
        let count = Count::new(&graph, &judges);
        let reasons: BTreeMap<&String, &u64> = graph.incomplete.iter().filter(|(_, count)| **count > 0).collect();
        println!(
            "{name:32} {:>7} {:>7.2} % {:>7.2} %  {reasons:?}",
            count.all,
            percent(count.whole, count.all),
            percent(count.native.1, count.native.0)
        );
        let total = if name == JVM { &mut jvm } else { &mut sum };
        *total = (total.0 + count.all, total.1 + count.whole);
        // Java as it is compiled by default keeps no frame pointer, and interpreted methods
        // return to where no call stands: both are for the runtime's own unwinder. They are
        // marked; the machine code of the JVM itself is held to the same measure as all.
        let (of, whole) = if name == JVM { count.native } else { (count.all, count.whole) };
        // One with frame pointers interprets as well, as long as it starts.
        let least = if name == FRAME_POINTERS { 95 } else { 99 };
        // How much of a JVM's time is outside of what it compiled hangs on the machine: 31 of 1,009 samples in one run.
        if count.all < ENOUGH || of < ENOUGH / 10 || whole * 100 < of * least || count.mistaken > 0 {
            let short = graph.heaviest(|path| !reaches_root(path, &judges) || path.marked());
            wrong.push_str(&format!("{name}: {whole} of {of} whole, {} mistaken:\n{short}\n", count.mistaken));
        }
    }
    println!("{:32} {:>7} {:>7.2} %", "all but the JVM", sum.0, percent(sum.1, sum.0));
    println!("{:32} {:>7} {:>7.2} %", "all", sum.0 + jvm.0, percent(sum.1 + jvm.1, sum.0 + jvm.0));
    assert!(wrong.is_empty(), "stacks that end early:\n{wrong}");
    assert!(sum.1 * 1000 >= sum.0 * 995, "only {} of {} samples reach their root", sum.1, sum.0);
    if absent.is_empty() { Ok(()) } else { Err(Skip(format!("the rest is well, but {}", absent.join(", ")))) }
}

impl Count {
    fn new(graph: &Graph, judges: &[Judge]) -> Self {
        let root = |path: &Path| reaches_root(path, judges);
        let of_files =
            |path: &Path| path.frames.iter().all(|frame| frame.kind != "native" || frame.mapping != "[anon]");
        Self {
            all: graph.samples,
            whole: graph.count(root),
            native: (graph.count(of_files), graph.count(|path| of_files(path) && root(path))),
            mistaken: graph.count(|path| root(path) == path.marked()),
        }
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}
