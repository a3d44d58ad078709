//! The load generator: what a small cluster's agents send in a quarter of an hour, from a
//! seed, with totals that are known exactly.
//!
//! Its shape is that of a measured comparison of profile servers: 20 nodes of 8 cores, 40 %
//! busy, sampled at 20 Hz for 15 minutes and reported every 10 s; 30 services in 120 pods;
//! about 47,000 stacks of median depth 25 and 126 at most; threads with names; 23 % of the
//! frames bare addresses.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Args;

pub mod batches;
pub mod random;
pub mod send;
pub mod shape;
pub mod totals;

pub use batches::Batches;
pub use send::Compression;
pub use shape::Shape;

/// Options of the chore.
#[derive(Debug, Args)]
pub struct Options {
    /// Server to send to
    #[arg(long, default_value = "http://127.0.0.1:4040")]
    server: String,
    /// The same seed makes the same load
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Minutes of load, ending now
    #[arg(long, default_value_t = 15)]
    minutes: u32,
    /// Nodes of 8 cores
    #[arg(long, default_value_t = 20)]
    nodes: u32,
    /// Requests at a time
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// How requests are compressed
    #[arg(long, value_enum, default_value_t = Compression::Zstd)]
    compression: Compression,
    /// Make the load and say what it is, without sending it
    #[arg(long)]
    dry: bool,
}

/// Makes the load, sends it, and prints what a server that is exact must answer.
pub fn run(options: &Options) -> Result<()> {
    let shape = Shape { seed: options.seed, minutes: options.minutes, nodes: options.nodes, ..Shape::default() };
    let mut batches = Batches::new(&shape, end_now());
    let requests = send::encode_all(&mut batches, options.compression)?;
    let sent = if options.dry {
        serde_json::json!({"requests": requests.len(), "bytes": requests.iter().map(Vec::len).sum::<usize>()})
    } else {
        serde_json::to_value(send::send(&options.server, &requests, options.compression, options.connections)?)?
    };
    let expected = batches.totals().summary(&batches);
    println!("{}", serde_json::to_string_pretty(&serde_json::json!({"sent": sent, "expected": expected}))?);
    Ok(())
}

/// Now, on a whole 10 seconds, in Unix nanoseconds.
pub fn end_now() -> i64 {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
    (seconds / 10 * 10) * 1_000_000_000
}
