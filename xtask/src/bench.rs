//! The benchmarks: everything that is promised in figures, measured on this machine, written
//! as JSON with the commit and the machine, and shown in `docs/benchmarks.md`.

use std::path::Path;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde_json::Value;

mod agent;
mod baseline;
mod cost;
mod load;
mod machine;
pub(crate) mod process;
mod report;
mod server;
mod tables;

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Server,
    Agent,
    Tables,
}

/// Options of the chore.
#[derive(Debug, Args)]
pub struct Options {
    /// Parts to measure (all unless said); the others keep their last figures
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Seed of the server's load
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only write the page anew from the figures that are there
    #[arg(long)]
    page: bool,
}

/// Measures, writes `docs/bench/*.json`, and generates `docs/benchmarks.md` from them.
pub fn run(repository: &Path, options: &Options) -> Result<()> {
    let folder = repository.join("docs/bench");
    std::fs::create_dir_all(&folder)?;
    let wanted = |part| !options.page && (options.parts.is_empty() || options.parts.contains(&part));
    if wanted(Part::Tables) {
        write(&folder, "tables", repository, || tables::measure(repository))?;
    }
    if wanted(Part::Server) {
        write(&folder, "server", repository, || server::measure(options.seed))?;
    }
    if wanted(Part::Agent) {
        write(&folder, "agent", repository, agent::measure)?;
    }
    let read = |name: &str| -> Option<Value> {
        serde_json::from_slice(&std::fs::read(folder.join(format!("{name}.json"))).ok()?).ok()
    };
    let [agent, server, tables, tests] = ["agent", "server", "tables", "tests"].map(read);
    let page = report::page(agent.as_ref(), server.as_ref(), tables.as_ref(), tests.as_ref());
    std::fs::write(repository.join("docs/benchmarks.md"), page).context("writing docs/benchmarks.md")?;
    println!("docs/benchmarks.md is written");
    Ok(())
}

/// Says what the machine is like, then measures, and writes both.
fn write(folder: &Path, name: &str, repository: &Path, measure: impl FnOnce() -> Result<Value>) -> Result<()> {
    let (machine, commit) = (machine::describe(), machine::commit(repository));
    let whole = serde_json::json!({"machine": machine, "commit": commit, "figures": measure()?});
    let text = serde_json::to_string_pretty(&whole)?;
    println!("{text}");
    std::fs::write(folder.join(format!("{name}.json")), text + "\n").with_context(|| format!("writing {name}.json"))
}
