//! The native stacks of processes that run a language of their own: the machine code of
//! CPython, of a JVM and of Node, from the leaf to the start of the thread.

use std::process::Command;
use std::time::Duration;

use everflame_tests::api::unix_now_seconds;
use everflame_tests::graph::Path;
use everflame_tests::judge::{Judge, reaches_root};
use everflame_tests::machine::{need_program, need_root, repository};
use everflame_tests::target::{built, files_of};
use everflame_tests::{Everflame, Outcome, Target};

pub fn cpython() -> Outcome {
    need_root()?;
    // Debian's own: stripped and without frame pointers.
    need_program("/usr/bin/python3")?;
    let script = repository().join("tests/targets/truth.py");
    let mut command = Command::new("/usr/bin/python3");
    command.args([script.to_str().unwrap(), "10"]);
    whole_stacks("python", command, 99)
}

pub fn node() -> Outcome {
    need_root()?;
    need_program("node")?;
    let script = repository().join("tests/targets/truth.js");
    let mut command = Command::new("node");
    command.args([script.to_str().unwrap(), "10"]);
    whole_stacks("node", command, 99)
}

pub fn jvm() -> Outcome {
    need_root()?;
    need_program("java")?;
    let folder = built("Truth.class")?.parent().unwrap().to_owned();
    let mut command = Command::new("java");
    // Java code by frame pointer, which has to be asked for, and compiled: the interpreter
    // jumps into methods with a return address that follows no call, and what cannot be
    // proven is marked. Its own frames are for the runtime's unwinder.
    command.args(["-Xcomp", "-XX:TieredStopAtLevel=1", "-XX:+PreserveFramePointer", "-cp"]);
    command.args([folder.to_str().unwrap(), "Truth", "10"]);
    whole_stacks("java", command, 95)
}

/// Stacks of a runtime that has been up for a while: those of machine code from files reach
/// their root, those through code that the runtime made mostly do, and none that does not is
/// unmarked.
fn whole_stacks(name: &str, mut command: Command, percent_of_all: u64) -> Outcome {
    let up = Everflame::up(199);
    let target = Target::spawn(&mut command);
    let pid = target.pid();
    std::thread::sleep(Duration::from_secs(3));
    // From here on its tables are there; how soon they are is a matter of figures.
    let from = format!("{:.3}", unix_now_seconds());
    let judges: Vec<Judge> = files_of(pid).iter().map(|path| Judge::new(path)).collect();
    target.truth();
    let query = format!("{{pid=\"{pid}\"}}");
    up.api().settle(&query, Duration::from_secs(4));
    let before = up.api().graph_with(&query, &[("until", &from)]);
    let graph = up.api().graph_with(&query, &[("from", &from)]);
    assert!(graph.samples >= 800, "only {} samples of {name}", graph.samples);

    let root = |path: &Path| reaches_root(path, &judges);
    let of_files = |path: &Path| path.frames.iter().all(|frame| frame.kind != "native" || frame.mapping != "[anon]");
    let (native, whole_native) = (graph.count(of_files), graph.count(|path| of_files(path) && root(path)));
    let whole = graph.count(root);
    println!(
        "{name}: {whole} of {} samples reach their root, {whole_native} of the {native} without code of the runtime's own making; \
         the product's flag says {} ({:?}); before that {} of {} did ({:?})",
        graph.samples,
        graph.complete,
        graph.incomplete,
        before.count(root),
        before.samples,
        before.incomplete
    );
    let short = |path: &Path| !root(path);
    if whole_native < native {
        println!("{name}, native and not whole:\n{}", graph.heaviest(|path| of_files(path) && short(path)));
    }
    assert!(native >= 20, "only {native} stacks of {name} without code of its own making");
    assert!(
        whole_native * 100 >= native * 99,
        "native stacks of {name} that end early:\n{}",
        graph.heaviest(|path| of_files(path) && short(path))
    );
    assert!(
        whole * 100 >= graph.samples * percent_of_all,
        "stacks of {name} that end early:\n{}",
        graph.heaviest(short)
    );
    let hidden = graph.count(|path| short(path) && !path.marked());
    assert_eq!(
        hidden,
        0,
        "stacks of {name} that are cut and do not say so:\n{}",
        graph.heaviest(|path| short(path) && !path.marked())
    );
    Ok(())
}
