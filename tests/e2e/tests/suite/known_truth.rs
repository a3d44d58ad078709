//! Programs that spend 60/30/10 % in three functions below a recursion of 30, by their own
//! thread's clock: the profile must say the same, and every stack must be whole.

use std::time::Duration;

use everflame_tests::machine::need_root;
use everflame_tests::target::built;
use everflame_tests::{Everflame, Graph, Outcome, Target, statistics};

const WORK: [&str; 3] = ["work_a", "work_b", "work_c"];
/// CPU seconds of each of the two instances: a little over 20,000 samples at 997 Hz.
const SECONDS: &str = "11";
/// They sleep first, so that what is judged is not the first milliseconds of a process.
const WARM_UP: &str = "2";

pub fn cpp() -> Outcome {
    known_truth("truth_cpp", &["main"])
}

pub fn rust() -> Outcome {
    known_truth("truth_rust", &["main", "truth::main"])
}

pub fn go() -> Outcome {
    known_truth("truth_go", &["runtime.main", "main.main"])
}

pub fn musl() -> Outcome {
    known_truth("truth_musl", &["main"])
}

fn known_truth(program: &str, above: &[&str]) -> Outcome {
    need_root()?;
    let path = built(program)?;
    let up = Everflame::up(997);
    let targets = [0, 1].map(|_| Target::start(&path, &[SECONDS, WARM_UP]));
    let truths = targets.map(Target::truth);
    let spent = WORK.map(|name| truths.iter().map(|truth| truth[name].as_f64().unwrap()).sum::<f64>());
    let query = format!("{{process=\"{program}\"}}");
    up.api().settle(&query, Duration::from_secs(4));
    let graph = up.api().graph(&query);

    whole_chains(&graph, above);
    // A tick that hits the kernel (an interrupt, the reading of the clock) while one of the
    // three runs belongs to it: its own clock ran as well.
    let counts = WORK.map(|name| graph.count(|path| path.has(name)));
    let total: f64 = spent.iter().sum();
    match statistics::shares_fit(counts, spent.map(|part| part / total)) {
        Ok(statistic) => println!("{program}: {counts:?} samples fit the truth, chi-square {statistic:.2}"),
        Err(wrong) => panic!("{program}: {wrong}"),
    }
    let _ = up.stop();
    Ok(())
}

/// Of the samples whose leaf is one of the three, every one has the whole chain from main.
fn whole_chains(graph: &Graph, above: &[&str]) {
    let at_work = |path: &everflame_tests::graph::Path| path.leaf().is_some_and(|leaf| WORK.iter().any(|w| leaf.is(w)));
    let whole = |path: &everflame_tests::graph::Path| {
        let leaf = path.leaf().map(|leaf| leaf.name.clone()).unwrap_or_default();
        let mut chain = above.to_vec();
        chain.extend(["descend"; 30]);
        path.has_chain(&chain)
            && path.times("descend") == 30
            && path.frames.iter().rev().nth(1).is_some_and(|caller| caller.is("descend"))
            && path.frames.iter().filter(|frame| frame.name == leaf).count() == 1
    };
    let (leaves, broken) = (graph.count(at_work), graph.count(|path| at_work(path) && !whole(path)));
    assert!(
        leaves * 10 > graph.samples * 9,
        "only {leaves} of {} samples are in the three functions:\n{}",
        graph.samples,
        graph.heaviest(|path| !at_work(path))
    );
    assert_eq!(
        broken,
        0,
        "of {leaves} samples {broken} lack their chain:\n{}",
        graph.heaviest(|path| at_work(path) && !whole(path))
    );
}
