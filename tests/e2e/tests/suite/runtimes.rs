//! The native stacks of processes that run a language of their own: the machine code of
//! CPython, of a JVM and of Node, from the leaf to the start of the thread.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use everflame_tests::judge::{Judge, reaches_root};
use everflame_tests::machine::{need_program, need_root, repository};
use everflame_tests::target::built;
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
    // Compiled Java keeps no frame pointer unless told to; its own unwinding is for a later step.
    command.args(["-XX:+PreserveFramePointer", "-cp", folder.to_str().unwrap(), "Truth", "10"]);
    whole_stacks("java", command, 97)
}

fn whole_stacks(name: &str, mut command: Command, percent: u64) -> Outcome {
    let up = Everflame::up(199);
    let target = Target::spawn(&mut command);
    let pid = target.pid();
    std::thread::sleep(Duration::from_secs(4));
    let judges: Vec<Judge> = files_of(pid).iter().map(|path| Judge::new(path)).collect();
    target.truth();
    let query = format!("{{pid=\"{pid}\"}}");
    up.api().settle(&query, Duration::from_secs(4));
    let graph = up.api().graph(&query);
    assert!(graph.samples >= 1_000, "only {} samples of {name}", graph.samples);
    // Ticks before the process became what it is (fork, exec, the dynamic loader) included.
    let whole = graph.count(|path| reaches_root(path, &judges));
    let native = graph.count(|path| path.frames.iter().filter(|frame| frame.kind == "native").count() >= 2);
    println!(
        "{name}: {whole} of {} samples reach their root (its own flag says {}, {:?}), {native} have two native frames or more",
        graph.samples, graph.complete, graph.incomplete
    );
    assert!(
        whole * 100 >= graph.samples * percent,
        "stacks of {name} that end early:\n{}",
        graph.heaviest(|path| !reaches_root(path, &judges))
    );
    assert!(native * 100 >= graph.samples * 90, "{native} of {} stacks have frames of {name} itself", graph.samples);
    Ok(())
}

/// The ELF files that a process has mapped executable.
pub fn files_of(pid: u32) -> Vec<PathBuf> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut files: Vec<PathBuf> = maps
        .lines()
        .filter(|line| line.split_whitespace().nth(1).is_some_and(|rights| rights.contains('x')))
        .filter_map(|line| line.split_whitespace().nth(5))
        .filter(|path| path.starts_with('/') && Path::new(path).is_file())
        .map(PathBuf::from)
        .collect();
    files.sort();
    files.dedup();
    files
}
