//! What a conversion needs of memory beside the file itself, counted by the allocator: the
//! worker that does it has little. The only test in its program, for the count is of all of it.
use cap::Cap;
use everflame_unwind::{Limits, convert};
use std::alloc::System;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

const MIB: f64 = (1 << 20) as f64;

#[test]
fn envoys_table_takes_16_mib_at_most() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/.cache/envoy");
    let Ok(bytes) = std::fs::read(path) else {
        return eprintln!("SKIPPED: Envoy is not on this machine (scripts/setup.sh test fetches it)");
    };
    // The file is mapped where the worker looks at it: here it is part of what was there before.
    let (before, earlier) = (HEAP.allocated(), HEAP.max_allocated());
    let table = convert(&bytes, &Limits::default()).expect("a table");
    let peak = HEAP.max_allocated();
    assert!(peak > earlier, "the peak is that of something before");
    let heap = (peak - before) as f64 / MIB;
    println!("{heap:.1} MiB of heap for {} rows, {} bytes of table", table.stats().raw_rows, table.bytes().len());
    assert!(heap <= 16.0, "{heap:.1} MiB");
}
