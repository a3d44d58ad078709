//! What a conversion needs of memory beside the file itself, counted by the allocator: the
//! worker that does it has little. The only test in its program, for the count is of all of it.
use cap::Cap;
use everflame_unwind::{Limits, convert};
use std::alloc::System;
use std::time::Instant;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

const MIB: f64 = (1 << 20) as f64;
/// Files, the smaller first, and what they may take in MiB: an Envoy, and the engine of ClickHouse
/// as a library, the largest file that people run.
const FILES: [(&str, f64); 2] = [("envoy", 16.0), ("chdb/libchdb.so", 80.0)];

#[test]
fn tables_of_the_largest_files_take_little() {
    for (name, most) in FILES {
        let path = format!("{}/../../tests/.cache/{name}", env!("CARGO_MANIFEST_DIR"));
        let Ok(bytes) = std::fs::read(path) else {
            eprintln!("SKIPPED: {name} is not on this machine (scripts/setup.sh test fetches it)");
            continue;
        };
        // The file is mapped where the worker looks at it: here it is part of what was there before.
        let (before, earlier) = (HEAP.allocated(), HEAP.max_allocated());
        let begin = Instant::now();
        let table = convert(&bytes, &Limits::default()).expect("a table");
        let (peak, took) = (HEAP.max_allocated(), begin.elapsed());
        assert!(peak > earlier, "the peak is that of something before");
        let (heap, stats, size) = ((peak - before) as f64 / MIB, table.stats(), table.bytes().len());
        eprintln!(
            "{name}: {heap:.1} MiB of heap, {took:.1?}; {} functions, {} rows, {size} bytes of table, {:.2} a row",
            stats.fdes,
            stats.raw_rows,
            size as f64 / stats.raw_rows as f64
        );
        assert!(heap <= most, "{name}: {heap:.1} MiB");
    }
}
