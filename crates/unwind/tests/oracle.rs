//! Real files, row by row, against an independent reader of call frame information (gimli).
mod common;
use common::{Code, Expected, calls_nothing, find, glob, oracle, same_by_code};
use everflame_unwind::{Limits, Rule, convert, function_ranges};
use std::path::Path;

/// Compares, for each row, its first instruction where a thread stands there, and its last byte where a callee
/// returns behind it. Every row must agree. The table may take `bound` bytes a row, all in all.
fn compare(path: &Path, bound: f64) {
    let bytes = std::fs::read(path).expect("readable");
    let table = convert(&bytes, &Limits::default()).expect("it has unwind data");
    let (mut ranges, rows) = oracle(&bytes);
    let code = Code::of(&bytes);
    let mut starts: Vec<u64> = ranges.iter().map(|r| r.0).collect();
    starts.sort_unstable();
    let mut wrong = Vec::new();
    let (mut compared, mut told, mut rules) = (0, 0, 0u64);
    let mut before: Option<&Expected> = None;
    for row in &rows {
        rules += u64::from(
            before.is_none_or(|b| b.rule != row.rule || b.end != row.start || starts.binary_search(&row.start).is_ok()),
        );
        before = Some(row);
        // Some tools (BOLT) write rows at the very end of a function, which hold for no byte.
        if row.start >= row.end {
            continue;
        }
        compared += 2;
        let leaf = table.lookup_leaf(row.start, &code.window(row.start));
        if leaf != row.rule && !same_by_code(&row.rule, &leaf, code.from(row.start)) {
            wrong.push((row.start, row.rule, leaf));
        }
        let caller = table.lookup(row.end - 1);
        if caller == row.rule {
        } else if calls_nothing(code.from(row.start), row.end - row.start) {
            told += 1;
        } else {
            wrong.push((row.end - 1, row.rule, caller));
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
    let each = table.bytes().len() as f64 / rules as f64;
    eprintln!(
        "{}: {compared} comparisons, {} functions, {rules} rows of which the code tells {told}, {} bytes, {each:.3} a row, {:?}",
        path.display(),
        ours.len(),
        table.bytes().len(),
        table.stats()
    );
    assert!(each <= bound, "{}: {each:.3} bytes a row", path.display());
}

#[test]
fn system_libraries() {
    for (name, bound) in [
        ("libc.so.6", 1.3),
        ("libpython3.11.so.1.0", 1.3),
        // It says of every row where rbx is, for its lazy resolver's sake: 5.6 KB in all.
        ("ld-linux-x86-64.so.2", 2.7),
        ("libm.so.6", 2.2),
        ("libstdc++.so.6", 2.2),
        ("libcrypto.so.3", 2.2),
    ] {
        let candidates: Vec<String> = ["/lib/x86_64-linux-gnu/", "/usr/lib/x86_64-linux-gnu/", "/lib64/"]
            .iter()
            .map(|directory| format!("{directory}{name}"))
            .collect();
        if let Some(path) = find(name, &candidates) {
            compare(&path, bound);
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
        ("python3", vec!["/usr/bin/python3".to_owned()], 1.3),
        ("node", vec!["/usr/bin/node".to_owned()], 1.3),
        ("libjvm.so", java, 1.3),
        ("librustc_driver", rustc, 1.0),
        ("envoy", vec![cache.to_owned(), format!("{cache}/envoy")], 1.0),
    ];
    for (what, candidates, bound) in files {
        if let Some(path) = find(what, &candidates) {
            compare(&path, bound);
        }
    }
}

/// Debian's files for arm64, which `tests/kernels/cross.sh` unpacks (`scripts/setup.sh test`).
#[test]
fn files_of_arm64() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/.cache/arm64");
    let files = [
        ("lib/aarch64-linux-gnu/libc.so.6", 2.0),
        ("lib/aarch64-linux-gnu/libm.so.6", 2.3),
        ("lib/aarch64-linux-gnu/ld-linux-aarch64.so.1", 3.5),
        ("lib/aarch64-linux-gnu/libgcc_s.so.1", 3.5),
        ("usr/lib/aarch64-linux-gnu/libstdc++.so.6.0.30", 1.4),
        ("usr/lib/aarch64-linux-gnu/libcrypto.so.3", 1.4),
        ("usr/lib/aarch64-linux-gnu/libpython3.11.so.1.0", 1.4),
        ("bin/busybox", 2.4),
    ];
    for (name, bound) in files {
        if let Some(path) = find(name, &[format!("{root}/{name}")]) {
            compare(&path, bound);
        }
    }
}
