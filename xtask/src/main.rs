//! Chores in Rust: what a shell script would do worse. `cargo xtask --help` lists them.
#![forbid(unsafe_code)]
// A chore talks to the person who runs it.
#![allow(clippy::print_stdout)]

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bench;
mod generate;
mod soak;
mod tidy;

#[derive(Parser)]
#[command(about = "Chores of the Everflame repository")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Checks the house rules that can be checked (CONTRIBUTING.md lists them)
    Tidy,
    /// Sends a seeded cluster's load to a server and prints what it must answer
    Generate(generate::Options),
    /// Measures, writes docs/bench/*.json and generates docs/benchmarks.md
    Bench(bench::Options),
    /// Runs an agent under storms for an hour and fails where anything grows, sticks or is lost
    Soak(soak::Options),
}

fn main() -> Result<()> {
    match Arguments::parse().chore {
        Chore::Tidy => tidy::run(&repository()),
        Chore::Generate(options) => generate::run(&options),
        Chore::Bench(options) => bench::run(&repository(), &options),
        Chore::Soak(options) => soak::run(&options),
    }
}

/// The folder that this crate is a room of.
fn repository() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path
}
