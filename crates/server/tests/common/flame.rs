//! Reads a flame graph answer back into paths.

use std::collections::BTreeMap;

use serde_json::Value;

/// A node as it is written in tests: path, kind, self, total, elided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub kind: String,
    pub own: u64,
    pub total: u64,
    pub elided: u64,
}

pub fn column<'a>(answer: &'a Value, name: &str) -> &'a Vec<Value> {
    answer["nodes"][name].as_array().unwrap_or_else(|| panic!("column {name}"))
}

pub fn integers(answer: &Value, name: &str) -> Vec<u64> {
    column(answer, name).iter().map(|v| v.as_u64().expect("an integer")).collect()
}

fn text<'a>(answer: &'a Value, list: &str, at: &Value) -> &'a str {
    answer[list][at.as_u64().expect("an index") as usize].as_str().expect("a string")
}

/// Names from the root to each node, joined by `;`, in the order of the answer.
pub fn paths(answer: &Value) -> Vec<String> {
    let mut paths: Vec<String> = Vec::new();
    for (parent, name) in column(answer, "parent").iter().zip(column(answer, "name")) {
        let name = text(answer, "names", name);
        let path = match parent.as_i64().expect("an integer") {
            -1 => name.to_owned(),
            parent => format!("{};{name}", paths[parent as usize]),
        };
        paths.push(path);
    }
    paths
}

/// All nodes by path; every path is there once.
pub fn nodes(answer: &Value) -> BTreeMap<String, Node> {
    let mut nodes = BTreeMap::new();
    let (own, total, elided) = (integers(answer, "self"), integers(answer, "total"), integers(answer, "elided"));
    for (at, path) in paths(answer).into_iter().enumerate() {
        let kind = text(answer, "kinds", &column(answer, "kind")[at]).to_owned();
        let node = Node { kind, own: own[at], total: total[at], elided: elided[at] };
        assert!(nodes.insert(path.clone(), node).is_none(), "{path} is there twice");
    }
    nodes
}

/// What holds of every answer.
pub fn check(answer: &Value) {
    let length = column(answer, "parent").len();
    for (name, column) in answer["nodes"].as_object().expect("columns") {
        assert_eq!(column.as_array().expect("a column").len(), length, "{name}");
    }
    assert_eq!(column(answer, "parent")[0], -1);
    assert_eq!(paths(answer)[0], "total");
    let (own, total, elided) = (integers(answer, "self"), integers(answer, "total"), integers(answer, "elided"));
    let mut sums: Vec<u64> = own.iter().zip(&elided).map(|(own, elided)| own + elided).collect();
    for (at, parent) in column(answer, "parent").iter().enumerate().skip(1) {
        let parent = parent.as_u64().expect("a parent") as usize;
        assert!(parent < at, "a parent stands before its children");
        sums[parent] += total[at];
    }
    assert_eq!(sums, total, "total = self + children + elided");
    assert_eq!(answer["samples"].as_u64(), Some(total[0]));
    assert_eq!(answer["elided"]["samples"].as_u64(), Some(elided.iter().sum()));
    let incomplete = answer["complete"]["incomplete"].as_object().expect("reasons");
    let incomplete: u64 = incomplete.values().map(|n| n.as_u64().expect("a count")).sum();
    assert_eq!(answer["complete"]["samples"].as_u64(), Some(total[0] - incomplete));
}
