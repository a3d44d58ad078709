//! Real files, row by row, against an independent reader of call frame information (gimli).
mod common;
use common::{find, glob, oracle};
use everflame_unwind::{Limits, Rule, convert, function_ranges};
use std::path::Path;

/// Compares the first and the last byte of each row; every row must agree.
fn compare(path: &Path) {
    let bytes = std::fs::read(path).expect("readable");
    let table = convert(&bytes, &Limits::default()).expect("it has unwind data");
    let (mut ranges, rows) = oracle(&bytes);
    let mut starts: Vec<u64> = ranges.iter().map(|r| r.0).collect();
    starts.sort_unstable();
    let mut wrong = Vec::new();
    let mut compared = 0;
    for row in &rows {
        // Some tools (BOLT) write rows at the very end of a function, which hold for no byte.
        if row.start >= row.end {
            continue;
        }
        for pc in [row.start, row.end - 1] {
            compared += 1;
            let got = table.lookup(pc);
            if got != row.rule {
                wrong.push((pc, row.rule, got));
            }
        }
    }
    // Functions that overlap have two answers; ours is the one that begins later.
    ranges.sort_unstable();
    let overlaps: Vec<(u64, u64)> = ranges.windows(2).filter(|w| w[0].1 > w[1].0).map(|w| (w[0].0, w[0].1)).collect();
    wrong.retain(|(pc, ..)| !overlaps.iter().any(|(start, end)| start <= pc && pc < end));
    // glibc's __start_context begins with an empty stack, whatever is said of it: mov rsp, rbx; mov rdi, [rsp].
    let start_context = [0x48, 0x89, 0xdc, 0x48, 0x8b, 0x3c, 0x24];
    wrong.retain(|(pc, _, got)| {
        let code = bytes.get(*pc as usize..).unwrap_or_default();
        *got != Rule::END || !code.starts_with(&start_context)
    });
    let shown: Vec<_> = wrong.iter().take(5).map(|(pc, want, got)| format!("{pc:#x}: {want:?}, got {got:?}")).collect();
    assert!(wrong.is_empty(), "{}: {} of {compared} differ: {shown:#?}", path.display(), wrong.len());
    assert!(overlaps.len() * 1000 <= ranges.len(), "{}: {} overlaps", path.display(), overlaps.len());

    let ours = function_ranges(&bytes).expect("ranges");
    assert!(ours.windows(2).all(|w| w[0].1 <= w[1].0), "sorted, without overlap");
    assert!(ranges.iter().filter(|r| r.0 != 0).all(|r| ours.binary_search_by_key(&r.0, |o| o.0).is_ok()));
    eprintln!("{}: {compared} comparisons, {} functions, {:?}", path.display(), ours.len(), table.stats());
}

#[test]
fn system_libraries() {
    for name in ["libc.so.6", "ld-linux-x86-64.so.2", "libm.so.6", "libstdc++.so.6", "libcrypto.so.3"] {
        let candidates: Vec<String> = ["/lib/x86_64-linux-gnu/", "/usr/lib/x86_64-linux-gnu/", "/lib64/"]
            .iter()
            .map(|directory| format!("{directory}{name}"))
            .collect();
        if let Some(path) = find(name, &candidates) {
            compare(&path);
        }
    }
}

#[test]
fn runtimes() {
    let home = std::env::var("HOME").unwrap_or_default();
    let mut java = Vec::new();
    for jvm in glob("/usr/lib/jvm", "", "") {
        java.push(format!("{jvm}/lib/server/libjvm.so"));
    }
    let mut rustc = Vec::new();
    for toolchain in glob(&format!("{home}/.rustup/toolchains"), "", "") {
        rustc.extend(glob(&format!("{toolchain}/lib"), "librustc_driver", ".so"));
    }
    let cache = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/.cache/envoy");
    let files = [
        ("python3", vec!["/usr/bin/python3".to_owned()]),
        ("node", vec!["/usr/bin/node".to_owned()]),
        ("libjvm.so", java),
        ("librustc_driver", rustc),
        ("envoy", vec![cache.to_owned(), format!("{cache}/envoy")]),
    ];
    for (what, candidates) in files {
        if let Some(path) = find(what, &candidates) {
            compare(&path);
        }
    }
}
