//! Measures the kernel program's look-up of rows, as it is compiled for the host: `lookup FILE`
//! prints the nanoseconds that a random address inside the file's rows takes, the least of some rounds.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use everflame_agent::bpf::host::{Tables, rules};
use everflame_unwind::{Limits, convert};

const NUMBER: u32 = 9;
/// In a round, which is short, so that some are not interrupted by others' work.
const LOOKUPS: usize = 1 << 14;
const ROUNDS: usize = 300;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: lookup FILE")?;
    let table = convert(&std::fs::read(path)?, &Limits::default())?;
    let starts = table.row_starts();
    let (Some(low), Some(high)) = (starts.first(), starts.last()) else { return Err("no rows".into()) };
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        low + random % (high - low).max(1)
    };
    let mut tables = Tables::default();
    tables.add(NUMBER, table.bytes());
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let addresses: Vec<u64> = (0..LOOKUPS).map(|_| next()).collect();
        let begin = Instant::now();
        let told = rules(&tables.view(), NUMBER, &addresses);
        best = best.min(begin.elapsed().as_secs_f64() * 1e9 / told.len() as f64);
    }
    println!("{best:.1}");
    Ok(())
}
