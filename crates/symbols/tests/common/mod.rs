//! What the tests of this crate share: real files, compilers, and `nm` as the oracle.
#![allow(dead_code, clippy::unwrap_used, clippy::print_stderr, missing_docs, unreachable_pub)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

/// A function symbol as `nm` prints it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NmSymbol {
    pub address: u64,
    pub size: u64,
    /// `T`, `t`, `W`, `w` or `i`.
    pub kind: char,
    pub name: String,
}

/// Function symbols of a file by address, from both symbol tables.
pub fn nm(file: &Path) -> BTreeMap<u64, BTreeSet<NmSymbol>> {
    let code = code_sections(file);
    let functions = function_names(file);
    let mut found = BTreeMap::<u64, BTreeSet<NmSymbol>>::new();
    for table in [&["-D"][..], &[]] {
        let text = run(Command::new("nm").args(["--defined-only", "-S", "--no-demangle"]).args(table).arg(file));
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (address, size, kind, name) = match words[..] {
                [address, size, kind, name] => (address, size, kind, name),
                [address, kind, name] => (address, "0", kind, name),
                _ => continue,
            };
            let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
            let symbol = NmSymbol {
                address: hex(address),
                size: hex(size),
                kind: kind.chars().next().unwrap(),
                name: plain(name).to_owned(),
            };
            let is_function = functions.contains(name) || functions.contains(&symbol.name);
            if "TtWwi".contains(symbol.kind) && is_function && code.iter().any(|c| c.contains(&symbol.address)) {
                found.entry(symbol.address).or_default().insert(symbol);
            }
        }
    }
    found
}

/// Without a symbol version, and without Go's mark for assembly.
fn plain(name: &str) -> &str {
    let name = name.split('@').next().unwrap();
    name.strip_suffix(".abi0").unwrap_or(name)
}

/// Names that `readelf` calls functions: `nm` alone does not tell them from labels.
fn function_names(file: &Path) -> BTreeSet<String> {
    let text = run(Command::new("readelf").args(["-W", "--syms", "--dyn-syms"]).arg(file));
    // So it writes what it does not know to be GNU's: an indirect function.
    let text = text.replace("<OS specific>: 10", "IFUNC");
    let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let functions = rows.filter(|row| matches!(row.get(3), Some(&("FUNC" | "IFUNC"))));
    functions.filter_map(|row| row.get(7).map(|name| name.to_string())).collect()
}

fn code_sections(file: &Path) -> Vec<std::ops::Range<u64>> {
    let text = run(Command::new("readelf").args(["-W", "-l"]).arg(file));
    let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.first() == Some(&"LOAD") && row[6..].contains(&"E"))
        .map(|row| {
            let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
            hex(row[2])..hex(row[2]) + hex(row[5])
        })
        .collect()
}

/// Runs a program that has to succeed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Writes a source file and compiles it; the executable's path.
pub fn compile(directory: &Path, source_name: &str, source: &str, compiler: &[&str]) -> PathBuf {
    let source_path = directory.join(source_name);
    std::fs::write(&source_path, source).unwrap();
    let out = directory.join(source_name.replace('.', "_"));
    run(Command::new(compiler[0]).args(&compiler[1..]).arg("-o").arg(&out).arg(source_name).current_dir(directory));
    out
}

/// A copy without symbol tables.
pub fn stripped(file: &Path) -> PathBuf {
    let copy = file.with_extension("stripped");
    std::fs::copy(file, &copy).unwrap();
    run(Command::new("strip").arg(&copy));
    copy
}

/// The first of the paths that exists; says so when none does.
pub fn first_existing(what: &str, paths: &[&str]) -> Option<PathBuf> {
    let found = paths.iter().map(PathBuf::from).find(|path| path.metadata().is_ok());
    if found.is_none() {
        eprintln!("SKIPPED: {what} is not on this machine (looked at {paths:?})");
    }
    found
}
