//! Code that is not where one would look for it: in a library loaded late, not in memory, in a
//! file that was deleted, in another mount namespace.

use std::process::Command;
use std::time::Duration;

use everflame_tests::graph::Path;
use everflame_tests::machine::{need_program, need_root, wait_for};
use everflame_tests::target::built;
use everflame_tests::{Everflame, Outcome, Target};

pub fn library_loaded_late() -> Outcome {
    need_root()?;
    let (path, library) = (built("dlopened")?, built("libburner.so")?);
    let up = Everflame::up(199);
    Target::start(&path, &["5", "3", library.to_str().unwrap()]).truth();
    let query = "{process=\"dlopened\"}";
    up.api().settle(query, Duration::from_secs(4));
    let graph = up.api().graph(query);
    let leaf =
        graph.count(|path| path.leaf().is_some_and(|leaf| leaf.is("library_inner") && leaf.mapping == "libburner.so"));
    let whole = graph.count(|path| path.has_chain(&["main", "in_library", "library_inner"]) && !path.marked());
    assert!(leaf >= 600, "only {leaf} samples in the library:\n{}", graph.heaviest(|_| true));
    // The first few ticks may come before the library's tables are there: they are marked.
    assert!(
        whole * 100 >= leaf * 99,
        "{whole} of {leaf} samples are whole:\n{}",
        graph.heaviest(|path| !path.has("main"))
    );
    Ok(())
}

pub fn library_in_the_place_of_another() -> Outcome {
    need_root()?;
    let path = built("swapped")?;
    let libraries = [built("libburner.so")?, built("libburner2.so")?];
    let [first, second] = libraries.each_ref().map(|library| library.to_str().unwrap());
    let up = Everflame::up(499);
    let truth = Target::start(&path, &[first, second, "2", "2"]).truth();
    let query = "{process=\"swapped\"}";
    up.api().settle(query, Duration::from_secs(4));
    let graph = up.api().graph(query);
    let (one, other) = (graph.count(|path| path.has("library_inner")), graph.count(|path| path.has("other_inner")));
    println!("swapped: {truth}, {one} samples in the first library, {other} in the second, {:?}", graph.incomplete);
    assert_eq!(truth["same"], true, "the second library is elsewhere: this shows nothing");
    // Two seconds and four. Until the news of the second has come, its samples are taken for the
    // first's: a fifth of a second is the most that may be.
    let late = 499 / 5;
    assert!((700..=998 + late).contains(&one) && other >= 1400, "{}", graph.heaviest(|_| true));
    let whole = |path: &Path| path.has_chain(&["main", "with", "in_library"]) || path.marked();
    assert_eq!(
        graph.count(|path| path.has("other_inner") && !whole(path)),
        0,
        "{}",
        graph.heaviest(|path| !whole(path))
    );
    Ok(())
}

pub fn code_not_in_memory() -> Outcome {
    need_root()?;
    let path = built("cold")?;
    let up = Everflame::up(499);
    Target::start(&path, &["3", "2"]).truth();
    let query = "{process=\"cold\"}";
    up.api().settle(query, Duration::from_secs(4));
    let graph = up.api().graph(query);
    // It waits for its own code about as long as it takes to throw that out again.
    let waits = |path: &Path| path.frames.iter().any(|frame| frame.name.starts_with("cold_"));
    let (waiting, marked) = (graph.count(waits), graph.count(Path::marked));
    println!("cold: {} samples, {waiting} where code is awaited, {:?}", graph.samples, graph.incomplete);
    assert!(waiting >= 200, "only {waiting} samples where code is awaited:\n{}", graph.heaviest(|_| true));
    assert!(marked * 100 <= graph.samples, "{marked} stacks are cut:\n{}", graph.heaviest(Path::marked));
    assert_eq!(graph.count(|path| waits(path) && !path.marked() && !path.has("main")), 0);
    Ok(())
}

pub fn deleted_executable() -> Outcome {
    need_root()?;
    let original = built("truth_cpp")?;
    let up = Everflame::up(199);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vanished");
    std::fs::copy(original, &path).unwrap();
    let target = Target::start(&path, &["4", "2"]);
    std::fs::remove_file(&path).unwrap();
    target.truth();
    whole_and_named(&up, "vanished");
    Ok(())
}

pub fn other_mount_namespace() -> Outcome {
    need_root()?;
    need_program("unshare")?;
    let original = built("truth_cpp")?;
    let up = Everflame::up(199);
    let script =
        format!("mount -t tmpfs none /mnt && cp {} /mnt/elsewhere && exec /mnt/elsewhere 4 2", original.display());
    Target::spawn(Command::new("unshare").args(["--mount", "sh", "-c", &script])).truth();
    whole_and_named(&up, "elsewhere");
    Ok(())
}

/// Samples of the process are named and reach main, although its file cannot be opened by
/// its path.
fn whole_and_named(up: &Everflame, process: &str) {
    let query = format!("{{process=\"{process}\"}}");
    up.api().settle(&query, Duration::from_secs(4));
    // Names are put on when they come, to old samples too.
    wait_for(&format!("names of {process}"), Duration::from_secs(30), || {
        up.api().graph(&query).paths.iter().any(|path| path.has("work_a")).then_some(())
    });
    let graph = up.api().graph(&query);
    let working = graph.count(|path| path.has("work_a") || path.has("work_b") || path.has("work_c"));
    let whole = graph.count(|path| path.has_chain(&["main", "descend"]) && path.times("descend") == 30);
    assert!(graph.samples >= 600, "only {} samples", graph.samples);
    assert!(
        working * 100 >= graph.samples * 98,
        "{working} of {} samples at work:\n{}",
        graph.samples,
        graph.heaviest(|_| true)
    );
    assert!(
        whole * 100 >= working * 99,
        "{whole} of {working} are whole:\n{}",
        graph.heaviest(|path| !path.has("main"))
    );
}
