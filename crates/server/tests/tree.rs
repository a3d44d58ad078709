//! Flame graphs and tops of stacks written by hand, against figures worked out by hand,
//! and the identity of totals on random ones.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{
    flame::{check, column, integers, nodes, paths},
    sums::{PERIOD, Sums, flamegraph, flamegraph_bytes, frame, frames, inlined, top, unnamed},
};
use everflame_profile::{Completeness, Frame};
use proptest::prelude::*;
use serde_json::{Value, json};

const COMPLETE: Completeness = Completeness::Complete;
const DEPTH: Completeness = Completeness::DepthLimit;

/// Two processes, recursion, a marker, an empty stack.
fn shop() -> Sums {
    let mut sums = Sums::new();
    sums.add(&["cart"], &frames(&["_start", "main", "serve", "parse"]), COMPLETE, 5)
        .add(&["cart"], &frames(&["_start", "main", "serve"]), COMPLETE, 2)
        .add(&["cart"], &frames(&["_start", "main", "walk", "walk", "walk"]), COMPLETE, 3)
        .add(&["cart"], &frames(&["walk", "parse"]), DEPTH, 4)
        .add(&["pay"], &frames(&["_start", "main", "sign"]), COMPLETE, 6)
        .add(&["pay"], &[], Completeness::LostFrames, 1);
    sums
}

fn totals(answer: &Value) -> Vec<(String, u64, u64)> {
    nodes(answer).into_iter().map(|(path, node)| (path, node.own, node.total)).collect()
}

fn expected(rows: &[(&str, u64, u64)]) -> Vec<(String, u64, u64)> {
    let mut rows: Vec<_> = rows.iter().map(|(path, own, total)| ((*path).to_owned(), *own, *total)).collect();
    rows.sort();
    rows
}

#[test]
fn every_node_has_the_figures_worked_out_by_hand() {
    let answer = flamegraph(&shop().0, "");
    check(&answer);
    let lost = "total;pay;[incomplete: lost_frames]";
    let rows = [
        ("total", 0, 21),
        ("total;cart", 0, 14),
        ("total;cart;_start", 0, 10),
        ("total;cart;_start;main", 0, 10),
        ("total;cart;_start;main;serve", 2, 7),
        ("total;cart;_start;main;serve;parse", 5, 5),
        ("total;cart;_start;main;walk", 0, 3),
        ("total;cart;_start;main;walk;walk", 0, 3),
        ("total;cart;_start;main;walk;walk;walk", 3, 3),
        ("total;cart;[incomplete: depth_limit]", 0, 4),
        ("total;cart;[incomplete: depth_limit];walk", 0, 4),
        ("total;cart;[incomplete: depth_limit];walk;parse", 4, 4),
        ("total;pay", 0, 7),
        ("total;pay;_start", 0, 6),
        ("total;pay;_start;main", 0, 6),
        ("total;pay;_start;main;sign", 6, 6),
        (lost, 1, 1),
    ];
    assert_eq!(totals(&answer), expected(&rows));
    let nodes = nodes(&answer);
    assert_eq!(nodes["total"].kind, "root");
    assert_eq!(nodes["total;cart"].kind, "label");
    assert_eq!(nodes[lost].kind, "marker");
    assert_eq!(nodes["total;cart;_start"].kind, "native");
    assert_eq!(answer["samples"], 21);
    assert_eq!(answer["complete"], json!({"samples": 16, "incomplete": {"depth_limit": 4, "lost_frames": 1}}));
    assert_eq!((&answer["type"], &answer["unit"]), (&json!("cpu"), &json!("seconds")));
    assert_eq!(answer["value"], json!((21 * PERIOD) as f64 / 1e9));
    assert_eq!((&answer["from"], &answer["until"]), (&json!(1), &json!(2.5)));
    assert_eq!(answer["elided"], json!({"nodes": 0, "samples": 0}));
}

#[test]
fn without_groups_processes_fall_together() {
    let answer = flamegraph(&shop().0, "group=");
    check(&answer);
    let nodes = nodes(&answer);
    assert_eq!(nodes["total;_start;main"].total, 16);
    assert_eq!(nodes["total;[incomplete: lost_frames]"].own, 1);
}

#[test]
fn no_samples_is_a_root_of_zero() {
    let answer = flamegraph(&Sums::new().0, "");
    check(&answer);
    assert_eq!(paths(&answer), ["total"]);
    assert_eq!(answer["samples"], 0);
    assert_eq!(answer["value"], 0);
}

#[test]
fn what_is_elided_is_stated_where_it_is_missing() {
    let answer = flamegraph(&shop().0, "max_nodes=5");
    check(&answer);
    // 21, 14, 10 (_start), 10 (main), then 7 twice: of equals the earlier one stays.
    let kept: BTreeSet<String> = paths(&answer).into_iter().collect();
    let (main, serve) = ("total;cart;_start;main", "total;cart;_start;main;serve");
    let expected = ["total", "total;cart", "total;cart;_start", main, serve];
    assert_eq!(kept, expected.map(String::from).into());
    let elided = |path: &str| nodes(&answer)[path].elided;
    assert_eq!((elided("total"), elided("total;cart"), elided(main), elided(serve)), (7, 4, 3, 5));
    assert_eq!(answer["elided"], json!({"nodes": 12, "samples": 19}));
}

#[test]
fn inlined_functions_are_nodes_of_their_own() {
    let mut sums = Sums::new();
    let stack = [frame("main"), inlined(&["copy", "fill", "serve"], 7)];
    sums.add(&["cart"], &stack, COMPLETE, 2);
    let answer = flamegraph(&sums.0, "group=");
    check(&answer);
    assert_eq!(paths(&answer).last().map(String::as_str), Some("total;main;serve;fill;copy"));
    assert_eq!(nodes(&answer)["total;main;serve;fill;copy"].own, 2);
}

#[test]
fn granularity_keeps_lines_and_addresses_apart() {
    let mut sums = Sums::new();
    sums.add(&[""], &[inlined(&["f"], 7)], COMPLETE, 2).add(&[""], &[inlined(&["f"], 8)], COMPLETE, 3);
    let by = |granularity: &str| flamegraph(&sums.0, &format!("group=&granularity={granularity}"));
    let pairs = |answer: &Value, key: &str| -> BTreeSet<(u64, String)> {
        integers(answer, "self").into_iter().zip(column(answer, key).iter().map(Value::to_string)).collect()
    };
    let set = |rows: &[(u64, &str)]| rows.iter().map(|(own, text)| (*own, (*text).to_owned())).collect();
    assert_eq!(pairs(&by("function"), "line"), set(&[(0, "0"), (5, "0")]));
    assert_eq!(pairs(&by("line"), "line"), set(&[(0, "0"), (2, "7"), (3, "8")]));
    assert_eq!(pairs(&by("address"), "address"), set(&[(0, "\"0x0\""), (2, "\"0x7\""), (3, "\"0x8\"")]));
    assert_eq!(by("function")["nodes"].get("address"), None);
}

#[test]
fn code_without_names_is_called_by_module_and_address() {
    let mut sums = Sums::new();
    sums.add(&[""], &[unnamed("envoy", 0x1a2b40), unnamed("[anon]", 0x10)], COMPLETE, 1);
    let answer = flamegraph(&sums.0, "group=");
    assert_eq!(paths(&answer)[2], "total;envoy+0x1a2b40;[anon]");
}

#[test]
fn focus_gives_callees_and_inverted_callers() {
    let callees = flamegraph(&shop().0, "group=&focus=walk");
    check(&callees);
    let rows = [
        ("total", 0, 7),
        ("total;walk", 0, 3),
        ("total;walk;walk", 0, 3),
        ("total;walk;walk;walk", 3, 3),
        ("total;[incomplete: depth_limit]", 0, 4),
        ("total;[incomplete: depth_limit];walk", 0, 4),
        ("total;[incomplete: depth_limit];walk;parse", 4, 4),
    ];
    assert_eq!(totals(&callees), expected(&rows));
    assert_eq!(callees["complete"], json!({"samples": 3, "incomplete": {"depth_limit": 4}}));

    let callers = flamegraph(&shop().0, "group=&focus=main&invert=true");
    check(&callers);
    let rows = [("total", 0, 16), ("total;main", 0, 16), ("total;main;_start", 16, 16)];
    assert_eq!(totals(&callers), expected(&rows));

    let nothing = flamegraph(&shop().0, "focus=nobody");
    check(&nothing);
    assert_eq!(nothing["samples"], 0);
}

#[test]
fn inverted_stacks_start_at_the_leaf() {
    let answer = flamegraph(&shop().0, "group=&invert=true");
    check(&answer);
    let nodes = nodes(&answer);
    assert_eq!(nodes["total;parse;serve;main;_start"].own, 5);
    assert_eq!(nodes["total;walk;walk;walk;main;_start"].own, 3);
    assert_eq!(nodes["total;[incomplete: depth_limit];parse;walk"].own, 4);
    assert_eq!(nodes["total"].total, 21);
}

#[test]
fn a_node_can_be_asked_for_by_its_id() {
    let all = flamegraph(&shop().0, "ids=true");
    let wanted = "total;cart;_start;main;serve";
    let at = paths(&all).iter().position(|path| path == wanted).expect("the node");
    let id = all["nodes"]["id"][at].as_str().expect("an id").to_owned();
    let answer = flamegraph(&shop().0, &format!("ids=true&root={id}"));
    check(&answer);
    let rows = [
        ("total", 0, 7),
        ("total;cart", 0, 7),
        ("total;cart;_start", 0, 7),
        ("total;cart;_start;main", 0, 7),
        (wanted, 2, 7),
        ("total;cart;_start;main;serve;parse", 5, 5),
    ];
    assert_eq!(totals(&answer), expected(&rows));
    assert_eq!(answer["complete"], json!({"samples": 7, "incomplete": {}}));
    let same = paths(&answer).iter().position(|path| path == wanted).expect("the node");
    assert_eq!(answer["nodes"]["id"][same], json!(id), "ids are the same in every answer");

    let nobody = flamegraph(&shop().0, "root=0123456789abcdef");
    check(&nobody);
    assert_eq!(nobody["samples"], 0);
}

fn rows(answer: &Value) -> Vec<(String, u64, u64)> {
    (answer["rows"].as_array().expect("rows").iter())
        .map(|row| {
            let number = |key: &str| row[key].as_u64().expect("a count");
            (row["name"].as_str().expect("a name").to_owned(), number("self"), number("total"))
        })
        .collect()
}

#[test]
fn top_counts_recursion_once_and_loses_no_sample() {
    let answer = top(&shop().0, "");
    let by_hand = [
        ("parse", 9, 9),
        ("sign", 6, 6),
        ("walk", 3, 7),
        ("serve", 2, 7),
        ("[incomplete: lost_frames]", 1, 1),
        ("_start", 0, 16),
        ("main", 0, 16),
    ];
    let by_hand: Vec<_> = by_hand.iter().map(|(n, own, total)| ((*n).to_owned(), *own, *total)).collect();
    assert_eq!(rows(&answer), by_hand);
    assert_eq!(answer["count"], 7);
    assert_eq!(answer["samples"], 21);
    assert_eq!(rows(&answer).iter().map(|row| row.1).sum::<u64>(), 21);
    assert_eq!(answer["rows"][0]["mapping"], "app");
    assert_eq!(answer["rows"][0]["file"], "app.c");
    assert_eq!(answer["rows"][0]["self_value"], json!((9 * PERIOD) as f64 / 1e9));
    assert_eq!(rows(&top(&shop().0, "sort=total&limit=2")), [("_start".into(), 0, 16), ("main".into(), 0, 16)]);
    assert_eq!(rows(&top(&shop().0, "limit=1&offset=1")), [("sign".into(), 6, 6)]);
    assert_eq!(top(&shop().0, "limit=1&offset=1")["count"], 7);
}

#[test]
fn top_by_file_and_by_mapping() {
    let mut sums = shop();
    sums.add(&["pay"], &[frame("main"), unnamed("libc.so.6", 5)], COMPLETE, 10);
    assert_eq!(
        rows(&top(&sums.0, "by=mapping")),
        [("app".into(), 20, 30), ("libc.so.6".into(), 10, 10), ("[incomplete: lost_frames]".into(), 1, 1)]
    );
    assert_eq!(
        rows(&top(&sums.0, "by=file")),
        [("app.c".into(), 20, 30), ("[unknown]".into(), 10, 10), ("[incomplete: lost_frames]".into(), 1, 1)]
    );
}

fn random_sums() -> impl Strategy<Value = Sums> {
    let name = prop::sample::select(vec!["a", "b", "c", "d"]);
    let frame = prop::collection::vec(name, 1..3).prop_map(|names| inlined(&names, 1));
    let stack = prop::collection::vec(frame, 0..8);
    let reason = prop::sample::select(Completeness::ALL.to_vec());
    let group = prop::sample::select(vec!["", "x", "y"]);
    prop::collection::vec((group, stack, reason, 1..100_u64), 0..40).prop_map(|stacks| {
        let mut sums = Sums::new();
        for (group, stack, reason, samples) in stacks {
            sums.add(&[group], &stack, reason, samples);
        }
        sums
    })
}

/// Names of a stack, outermost first, functions inlined into each other apart.
fn names(sums: &Sums, mut node: u32) -> Vec<String> {
    let mut names = Vec::new();
    while node != u32::MAX {
        let trie = sums.0.nodes[node as usize];
        let frame: &Frame = &sums.0.frames[trie.frame as usize];
        names.extend(frame.lines.iter().map(|line| line.function.to_string()));
        node = trie.parent;
    }
    names.reverse();
    names
}

proptest! {
    #[test]
    fn totals_add_up_whatever_is_left_out(
        sums in random_sums(),
        max_nodes in 0..60_usize,
        shape in prop::sample::select(vec!["", "&invert=true", "&focus=a", "&focus=a&invert=true", "&group="]),
    ) {
        let whole = flamegraph(&sums.0, &format!("max_nodes=0{shape}"));
        check(&whole);
        prop_assert_eq!(&whole["elided"], &json!({"nodes": 0, "samples": 0}));
        let answer = flamegraph(&sums.0, &format!("max_nodes={max_nodes}{shape}"));
        check(&answer);
        let (all, shown) = (nodes(&whole), nodes(&answer));
        if max_nodes > 0 {
            prop_assert_eq!(shown.len(), all.len().min(max_nodes));
        }
        for (path, node) in &shown {
            prop_assert_eq!((node.own, node.total), (all[path].own, all[path].total), "{}", path);
        }
        let smallest = shown.values().map(|node| node.total).min().unwrap_or(0);
        let left_out = all.iter().filter(|(path, _)| !shown.contains_key(*path)).map(|(_, node)| node.total);
        prop_assert!(left_out.max().unwrap_or(0) <= smallest, "the largest are kept");
        prop_assert_eq!(answer["elided"]["nodes"].as_u64(), Some((all.len() - shown.len()) as u64));
    }

    #[test]
    fn the_order_of_the_store_does_not_show(sums in random_sums(), max_nodes in 0..20_usize) {
        let query = format!("ids=true&max_nodes={max_nodes}");
        let mut turned = Sums::new();
        for sum in sums.0.sums.iter().rev() {
            let group = sums.0.groups[sum.group as usize][0].clone();
            let mut stack = Vec::new();
            let mut node = sum.node;
            while node != u32::MAX {
                stack.push(sums.0.frames[sums.0.nodes[node as usize].frame as usize].clone());
                node = sums.0.nodes[node as usize].parent;
            }
            stack.reverse();
            turned.add(&[&group], &stack, sum.completeness, sum.samples);
        }
        prop_assert_eq!(flamegraph_bytes(&sums.0, &query), flamegraph_bytes(&turned.0, &query));
    }

    #[test]
    fn tree_and_top_agree_with_the_plainest_way_to_count(sums in random_sums()) {
        let mut totals: BTreeMap<String, u64> = BTreeMap::new();
        let (mut own, mut with): (BTreeMap<String, u64>, BTreeMap<String, u64>) = Default::default();
        for sum in &sums.0.sums {
            let mut path = "total".to_owned();
            *totals.entry(path.clone()).or_default() += sum.samples;
            let stack = names(&sums, sum.node);
            let marker = format!("[incomplete: {}]", sum.completeness.as_str());
            let marker = (!sum.completeness.is_complete()).then_some(marker);
            let group = sums.0.groups[sum.group as usize][0].to_string();
            for name in std::iter::once(&group).chain(&marker).chain(&stack) {
                path = format!("{path};{name}");
                *totals.entry(path.clone()).or_default() += sum.samples;
            }
            let leaf = stack.last().cloned().or(marker).unwrap_or_else(|| "[no frames]".to_owned());
            let rows: BTreeSet<&String> = stack.iter().chain([&leaf]).collect();
            for row in rows {
                *with.entry(row.clone()).or_default() += sum.samples;
            }
            *own.entry(leaf).or_default() += sum.samples;
        }
        totals.entry("total".to_owned()).or_default();
        let answer = flamegraph(&sums.0, "max_nodes=0");
        let tree: BTreeMap<String, u64> = nodes(&answer).into_iter().map(|(path, n)| (path, n.total)).collect();
        prop_assert_eq!(tree, totals);
        let table = rows(&top(&sums.0, "limit=0"));
        for (name, self_, total) in &table {
            prop_assert_eq!((*self_, *total), (own.get(name).copied().unwrap_or(0), with[name]), "{}", name);
        }
        prop_assert_eq!(table.len(), with.len());
    }
}
