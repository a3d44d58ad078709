//! C++ names of real libraries, with `c++filt` as the oracle.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use everflame_symbols::demangle;

fn cxxfilt(names: &[&str]) -> Vec<String> {
    let mut child = Command::new("c++filt").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let text = names.join("\n");
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// What both may write differently without a difference in meaning: GNU writes out
/// some of the standard's abbreviations, and sometimes joins closing brackets.
fn plain(name: &str) -> String {
    let mut name =
        name.replace("std::basic_string<char, std::char_traits<char>, std::allocator<char> >", "std::string");
    for stream in ["ostream", "istream", "iostream"] {
        name = name.replace(&format!("std::basic_{stream}<char, std::char_traits<char> >"), &format!("std::{stream}"));
    }
    name.replace(' ', "")
}

fn agrees(file: &Path, tables: &[&str]) {
    let text = common::run(Command::new("nm").args(["--defined-only", "--no-demangle"]).args(tables).arg(file));
    let names = text.lines().filter_map(|line| line.split_whitespace().last()?.split('@').next());
    let mut names: Vec<&str> = names.filter(|name| name.starts_with("_Z")).collect();
    names.sort_unstable();
    names.dedup();
    let oracle = cxxfilt(&names);
    assert_eq!(oracle.len(), names.len());
    let mut different = Vec::new();
    for (&name, theirs) in names.iter().zip(&oracle) {
        let ours = demangle(name);
        assert!(ours != name || theirs == name, "{name} is not taken apart");
        // Ours leaves out what a function template results in.
        let (ours, theirs) = (plain(&ours), plain(theirs));
        if !theirs.ends_with(&ours) {
            different.push((name, ours, theirs));
        }
    }
    eprintln!("{}: {} of {} C++ names differ from c++filt's", file.display(), different.len(), names.len());
    assert!(names.len() > 1_000, "{} names", names.len());
    assert!(different.len() * 200 <= names.len(), "{} of {}: {different:#?}", different.len(), names.len());
}

#[test]
fn standard_library() {
    let paths = ["/usr/lib/x86_64-linux-gnu/libstdc++.so.6", "/usr/lib64/libstdc++.so.6"];
    if let Some(library) = common::first_existing("libstdc++", &paths) {
        agrees(&library, &["-D"]);
    }
}

#[test]
fn node() {
    if let Some(node) = common::first_existing("Node", &["/usr/bin/node"]) {
        agrees(&node, &[]);
    }
}
