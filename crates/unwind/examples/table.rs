//! Prints what the table of a file costs: `table FILE...`, one line of figures a file.
#![allow(clippy::print_stdout)]
use everflame_unwind::{Limits, convert};
use std::time::Instant;

fn main() {
    println!(
        "{:>9} {:>9} {:>9} {:>6} {:>6} {:>7} {:>9} {:>6} {:>7}  file",
        "fdes", "raw rows", "rows", "rules", "unsup", "blocks", "bytes", "B/row", "ms"
    );
    let mut failed = false;
    for path in std::env::args().skip(1) {
        let table = std::fs::read(&path).map_err(|e| e.to_string()).and_then(|bytes| {
            let begin = Instant::now();
            let table = convert(&bytes, &Limits::default()).map_err(|e| e.to_string())?;
            Ok((table, begin.elapsed()))
        });
        match table {
            Ok((table, time)) => {
                let (s, bytes) = (table.stats(), table.bytes().len());
                println!(
                    "{:>9} {:>9} {:>9} {:>6} {:>6} {:>7} {:>9} {:>6.2} {:>7.1}  {path}",
                    s.fdes,
                    s.raw_rows,
                    s.rows,
                    s.rules,
                    s.unsupported_rows,
                    s.blocks,
                    bytes,
                    bytes as f64 / s.rows as f64,
                    time.as_secs_f64() * 1e3,
                );
                if s.malformed + s.outside > 0 {
                    println!("          malformed {}, outside code {}", s.malformed, s.outside);
                }
            }
            Err(error) => {
                failed = true;
                println!("{path}: {error}");
            }
        }
    }
    std::process::exit(i32::from(failed));
}
