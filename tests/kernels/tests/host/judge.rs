//! Whether what a guest recorded is true: the account of ticks, shares against what the
//! programs measured themselves, whole stacks, and a CPU that went and came back.

use everflame_tests::statistics::chi_square;
use serde_json::Value;

/// Seconds within which the agent looks at its clock after a wake, on a busy host.
const LOOK: f64 = 1.0;
/// Seconds within which a program that runs on after a wake has been sampled, whichever CPU it is on.
const AGAIN: f64 = 3.0;
const WORK: [&str; 3] = ["work_a", "work_b", "work_c"];

/// Judges one guest.
pub fn judge(scenes: &Value) {
    account(scenes);
    for program in ["truth_cpp", "truth_musl"] {
        shares(scenes, program);
    }
    // Its loops are of unequal speed under emulation, so that shares say nothing here.
    for work in WORK {
        let chain = format!(";truth::main;truth::descend*30;truth::{work}");
        whole(scenes, "truth_rust", &format!("truth::{work}"), 50, |frames| frames.contains(&chain));
    }
    whole(scenes, "deep", "bottom", 100, |frames| frames.ends_with(";main;dig*301;bottom"));
    interrupted(scenes);
    comes_back(scenes, "CPU 1 had gone and come", ["after_1", "after_2"]);
    slept(scenes);
}

/// A handler that interrupts a handler. While arm64 delivers a signal it writes the handler's
/// address into the registers before the address to which that returns (arch/arm64/kernel/signal.c,
/// `setup_return`): a tick between the two, in the kernel, sees a handler that its interrupted
/// function seems to have called. Such a walk ends and says so.
fn interrupted(scenes: &Value) {
    let (samples, broken) = in_function(scenes, "interrupted", "second", |frames| {
        frames.contains(";main;outer;interrupted;kill;")
            && frames.contains(";first;kill;")
            && frames.ends_with(";second")
    });
    let torn = |stack: &Value| stack[0] == "first;second" && stack[1] != "Complete" && stack[3] == true;
    let (torn, broken): (Vec<_>, Vec<_>) = broken.into_iter().partition(|stack| torn(stack));
    assert!(broken.is_empty(), "interrupted: stacks that lack frames: {broken:?}");
    assert!(samples >= 100, "interrupted: only {samples} samples in the handler of a handler");
    let torn: u64 = torn.iter().map(|stack| number(&stack[2])).sum();
    println!("interrupted: {samples} samples in the handler of a handler, {torn} while a signal was delivered");
    assert!(torn * 50 <= samples, "interrupted: {torn} of {samples} while a signal was delivered");
}

/// Every tick that the kernel says the sampler took is idle, lost or a sample; and together
/// with the ticks that never came they are what the clock should have given.
fn account(scenes: &Value) {
    let all = &scenes["counters"];
    let [taken, idle, ring, full] = ["taken", "idle", "ring", "ring_full"].map(|name| number(&all[name]));
    println!("account: {all}");
    assert_eq!(taken, number(&scenes["ran"]), "ticks taken against the kernel's own count of runs");
    assert_eq!(taken, idle + ring + full, "every tick has one end");
    assert_eq!(full, 0, "the ring was large enough");
    assert_eq!(ring, number(&scenes["samples"]) + number(&scenes["own"]), "every record became a sample");
    // An emulated clock is late by whole periods where the host is busy: those are missed. The
    // gap at each move of the period, one a second and CPU, is not counted: 1 % of the ticks on
    // a busy host, 3.5 % on one with seven times more to do than it can.
    for (name, least) in [("before_hotplug", 0.9), ("after_hotplug", 0.0), ("after_sleep", 0.0)] {
        let sums = &scenes[name];
        let known = |sums: &Value| ["taken", "missed_sure", "missed_perhaps_idle"].map(|name| number(&sums[name]));
        let came = known(sums).iter().sum::<u64>() - known(&scenes["begin"]).iter().sum::<u64>();
        let seconds = sums["seconds"].as_f64().unwrap() - scenes["begin"]["seconds"].as_f64().unwrap();
        let due = seconds * number(&scenes["rate"]) as f64 * 2.0;
        println!("{name}: {came} ticks came or are known as missed, {due:.0} were due");
        assert!((least..1.02).contains(&(came as f64 / due)), "{name}: {came} ticks for {due:.0}");
    }
}

/// 60/30/10 % in three functions below a recursion of 30. The truth is the arithmetic that the
/// program did in each: its clock goes on while the host lets the guest wait, ticks do not.
fn shares(scenes: &Value, program: &str) {
    let rounds = [0, 1, 2].map(|at| number(&scenes["truths"][program]["rounds"][at]) as f64);
    let total: f64 = rounds.iter().sum();
    let counts = WORK
        .map(|name| whole(scenes, program, name, 50, |frames| frames.contains(&format!(";main;descend*30;{name}"))));
    let n: u64 = counts.iter().sum();
    let samples = number(&scenes["processes"][program]["samples"]);
    assert!(n * 10 >= samples * 9, "{program}: only {n} of {samples} samples are in the three functions");
    // Two degrees of freedom, a false alarm in 1,000 runs (see `statistics::shares_fit`). At
    // the thousand samples that there are at least, a shift of 8 points is seen.
    let statistic = chi_square(&counts, &rounds.map(|part| part / total));
    println!("{program}: {counts:?} samples, chi-square {statistic:.2}");
    assert!(n >= 1_000, "{program}: {n} samples are too few to judge");
    assert!(statistic < -2.0 * 0.001f64.ln(), "{program}: {counts:?} against {rounds:?}: chi-square {statistic:.1}");
}

/// Samples with this function in them; each must be complete and have its whole chain.
fn whole(scenes: &Value, program: &str, function: &str, least: u64, chain: impl Fn(&str) -> bool) -> u64 {
    let (found, broken) = in_function(scenes, program, function, chain);
    assert!(broken.is_empty(), "{program}: stacks that lack frames: {broken:?}");
    assert!(found >= least, "{program}: only {found} samples in {function}");
    found
}

/// Samples with this function in them, and those of their stacks that end early or lack the chain.
fn in_function<'a>(
    scenes: &'a Value,
    program: &str,
    function: &str,
    chain: impl Fn(&str) -> bool,
) -> (u64, Vec<&'a Value>) {
    let (mut found, mut broken) = (0, Vec::new());
    let stacks = scenes["processes"][program]["stacks"].as_array();
    for stack in stacks.unwrap_or_else(|| panic!("no sample of {program}")) {
        let (frames, completeness) = (stack[0].as_str().unwrap(), stack[1].as_str().unwrap());
        // What the clock's own code below the function shows is not judged.
        let Some(at) = frames.split(';').position(|frame| frame == function) else { continue };
        let above = frames.split(';').take(at + 1).collect::<Vec<_>>().join(";");
        found += number(&stack[2]);
        if completeness != "Complete" || !chain(&above) {
            broken.push(stack);
        }
    }
    (found, broken)
}

/// CPU 1 was away: programs that start later are seen on it again.
fn comes_back(scenes: &Value, when: &str, programs: [&str; 2]) {
    let on = |process: &str, cpu: &str| scenes["processes"][process]["cpus"][cpu].as_u64().unwrap_or(0);
    let after = ["0", "1"].map(|cpu| programs.map(|program| on(program, cpu)).iter().sum::<u64>());
    println!("after {when}: {after:?} samples on the two");
    assert!(after[1] * 4 > after[0] + after[1], "CPU 1 came back and is not sampled: {after:?}");
}

/// The machine slept for seconds, with a program under way: none of its samples is of that time,
/// and it is sampled right afterwards. What is taken between the wake and the agent's look at its
/// clock is dated as if there had been no sleep.
fn slept(scenes: &Value) {
    let sleep = &scenes["slept"];
    if sleep.is_null() {
        println!("slept: this machine cannot sleep and be woken: not tried");
        return;
    }
    let [down, up, awake] = ["down", "up", "awake"].map(|name| sleep[name].as_f64().unwrap());
    let times = scenes["sleepers_times"].as_array().unwrap();
    let between = |from: f64, until: f64| -> u64 {
        let within = times.iter().filter(|point| (from..until).contains(&point[0].as_f64().unwrap()));
        within.map(|point| number(&point[1])).sum()
    };
    // Of the time between `down` and `up` it was awake for `awake`, at either end.
    let look = down + awake + LOOK;
    let (before, early, dark, after) =
        (between(0.0, down), between(down + awake, look), between(look, up - awake), between(up, up + AGAIN));
    println!(
        "slept {:.1} of {:.1} s: {before} samples before, {after} after, {early} of the first look, {dark} asleep",
        up - down - awake,
        up - down
    );
    assert!(up - awake - look > 2.0, "too little sleep to judge: {sleep}");
    assert_eq!(dark, 0, "samples of the time of sleep: {times:?}");
    assert!(before >= 100 && after >= 100, "sampled before and after: {times:?}");
    comes_back(scenes, "the sleep", ["awake_1", "awake_2"]);
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}
