//! The look-up of rows is written twice, in C for the kernel and in Rust: over the tables of
//! real files both must say the same of every row and of addresses anywhere.

use std::path::{Path, PathBuf};

use everflame_agent::bpf::{
    abi::{CHUNK_ELEMENTS, ELEMENT_SIZE},
    host::{Tables, rules},
};
use everflame_unwind::{Limits, Rule, Table, convert, layout::RULE_PEEK};

const NUMBER: u32 = 9;
/// Addresses looked up in each file beside those of its rows.
const RANDOM: u64 = 200_000;

fn first(candidates: &[&str]) -> Option<PathBuf> {
    candidates.iter().map(PathBuf::from).find(|path| path.is_file())
}

/// The first, a middle and the last address of every row, the addresses around them all, and random ones.
fn addresses(table: &Table) -> Vec<u64> {
    let starts = table.row_starts();
    assert_eq!(starts.len() as u64, table.stats().rows);
    assert!(starts.is_sorted_by(|a, b| a < b), "rows are in order");
    let (low, high) = (starts[0], starts[starts.len() - 1]);
    let mut all: Vec<u64> = starts.windows(2).flat_map(|row| [row[0], row[0].midpoint(row[1]), row[1] - 1]).collect();
    all.extend([0, low.wrapping_sub(1), high, high + 1, high + 0x10000, high + (1 << 32), u64::MAX]);
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    all.extend((0..RANDOM).map(|_| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        low.wrapping_sub(0x8000) + random % (high - low + 0x10000)
    }));
    all
}

fn compare(name: &str, path: &Path) {
    let table = convert(&std::fs::read(path).expect("readable"), &Limits::default()).expect("a table");
    // It lies across the border of two chunks.
    let mut tables = Tables::default();
    tables.add(3, &vec![0; ELEMENT_SIZE * (CHUNK_ELEMENTS as usize - 5)]);
    tables.add(NUMBER, table.bytes());
    let addresses = addresses(&table);
    let told = rules(&tables.view(), NUMBER, &addresses);
    let (mut rows, mut silent) = (0, 0);
    for (address, rule) in addresses.iter().zip(told) {
        let rule = Rule { flags: rule.flags & !RULE_PEEK, ..rule };
        assert_eq!(rule, table.lookup(*address), "{name} at {address:#x}");
        rows += u64::from(rule != Rule::NONE);
        silent += u64::from(rule == Rule::NONE);
    }
    eprintln!(
        "{name}: {} rows, {} addresses: {rows} with a rule, {silent} without",
        table.stats().rows,
        addresses.len()
    );
    assert!(rows > 0 && silent > 0, "both kinds were looked up");
}

#[test]
fn both_look_ups_say_the_same_of_every_row_of_real_files() {
    let cache = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/.cache");
    let files = [
        ("libc", first(&["/lib/x86_64-linux-gnu/libc.so.6", "/lib/aarch64-linux-gnu/libc.so.6", "/lib64/libc.so.6"])),
        (
            "CPython",
            first(&["/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0", "/usr/bin/python3", "/usr/local/bin/python3"]),
        ),
        ("node", first(&["/usr/bin/node", "/usr/local/bin/node"])),
        ("Envoy", first(&[&format!("{cache}/envoy")])),
        ("a Go program", first(&[&format!("{cache}/targets/truth_go"), "/usr/local/go/bin/go", "/usr/bin/go"])),
    ];
    for (name, path) in files {
        match path {
            Some(path) => compare(name, &path),
            None => eprintln!("SKIPPED: {name} is not on this machine"),
        }
    }
}
