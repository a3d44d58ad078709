//! Processes of unusual shape: with very deep stacks, and with named threads.

use std::time::Duration;

use everflame_tests::graph::Path;
use everflame_tests::machine::need_root;
use everflame_tests::target::built;
use everflame_tests::{Everflame, Outcome, Target};

pub fn deep_recursion() -> Outcome {
    need_root()?;
    let path = built("deep")?;
    let up = Everflame::up(199);
    let animals = ["300", "2000"].map(|depth| Target::start(&path, &["5", "2", depth]));
    let pids = animals.map(|animal| {
        let pid = animal.pid();
        animal.truth();
        pid
    });
    let query = "{process=\"deep\"}";
    up.api().settle(query, Duration::from_secs(4));
    let graph = up.api().graph(&format!("{{pid=\"{}\"}}", pids[0]));
    let bottom = graph.count(|path| path.has("bottom"));
    let whole =
        graph.count(|path| path.has_chain(&["main", "dig", "bottom"]) && path.times("dig") == 301 && !path.marked());
    assert!(bottom >= 600, "only {bottom} samples below the recursion");
    assert_eq!(whole, bottom, "stacks that lack frames:\n{}", graph.heaviest(|path| path.times("dig") != 301));

    // Deeper than any stack is followed: said, and what there is of it is what is nearest.
    let graph = up.api().graph(&format!("{{pid=\"{}\"}}", pids[1]));
    let bottom = graph.count(|path| path.has("bottom"));
    let native = |path: &Path| path.frames.iter().filter(|frame| frame.kind == "native").count();
    let cut =
        graph.count(|path| path.has_chain(&["[incomplete: depth_limit]", "dig", "bottom"]) && native(path) == 1024);
    assert!(bottom >= 600, "only {bottom} samples below the deeper recursion");
    assert_eq!(cut, bottom, "stacks of another depth:\n{}", graph.heaviest(|path| native(path) != 1024));
    Ok(())
}

pub fn thread_names() -> Outcome {
    need_root()?;
    let path = built("threads")?;
    let up = Everflame::up(199);
    Target::start(&path, &["2", "2"]).truth();
    let query = "{process=\"threads\"}";
    up.api().settle(query, Duration::from_secs(4));
    let answer = up.api().json("/api/v1/labels/thread/values", &[("query", query)]);
    let values = answer["values"].as_array().unwrap();
    for name in ["painter", "reader", "writer", "keeper"] {
        let samples = values.iter().find(|v| v["value"] == name).map_or(0, |v| v["samples"].as_u64().unwrap());
        // Two seconds at 199 Hz each.
        assert!((300..=500).contains(&samples), "thread {name} has {samples} samples of about 398: {answer}");
        let alone = up.api().samples(&format!("{{process=\"threads\", thread=\"{name}\"}}"));
        assert_eq!(alone, samples, "selecting thread {name}");
    }
    Ok(())
}
