//! The soak: an agent and a server for an hour under storms of short processes, thousands of
//! distinct executables, libraries that come and go, and servers that stay. A line of figures
//! each half minute; at the end it fails where memory was not flat, anything stuck, or a
//! sample went missing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use everflame_tests::Everflame;
use everflame_tests::machine::free_port;

mod figures;
mod load;
mod verdict;

use figures::Figures;
use load::Load;

/// Options of the chore.
#[derive(Debug, Args)]
pub struct Options {
    /// How long
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Distinct executables
    #[arg(long, default_value_t = 3_000)]
    executables: u32,
    /// Distinct libraries that are loaded and unloaded
    #[arg(long, default_value_t = 300)]
    libraries: u32,
    /// Executables run a second, one after the other
    #[arg(long, default_value_t = 20)]
    rate: u32,
    /// Processes a second in the ten seconds of each minute in which there is a storm
    #[arg(long, default_value_t = 500)]
    storm: u32,
    /// Samples per second and CPU
    #[arg(long, default_value_t = 20)]
    hertz: u32,
}

/// How long a storm lasts in each minute.
const STORM: Duration = Duration::from_secs(10);

/// Runs it, prints the table and says what is wrong.
pub fn run(options: &Options) -> Result<()> {
    let lasts = Duration::from_secs_f64(options.minutes * 60.0);
    ensure!(lasts >= Duration::from_secs(60), "a soak of less than a minute shows nothing");
    let folder = tempfile::tempdir()?;
    let mut load = Load::start(options, folder.path())?;
    let port = free_port();
    let server = Everflame::server(port, &folder.path().join("data"));
    let mut agent = Everflame::agent(port, options.hertz, &folder.path().join("spool"));
    let every = (lasts / 40).clamp(Duration::from_secs(12), Duration::from_secs(30));
    let (began, mut rows) = (Instant::now(), Vec::new());
    println!("{}", Figures::HEAD);
    while began.elapsed() < lasts {
        let next = began.elapsed() + every;
        while began.elapsed() < next {
            // The last seconds of each minute are the storm's.
            let in_minute = Duration::from_millis(began.elapsed().as_millis() as u64 % 60_000);
            load.storm(in_minute >= Duration::from_secs(60) - STORM)?;
            std::thread::sleep(Duration::from_millis(200));
        }
        ensure!(agent.alive(), "the agent ended:\n{}", agent.log());
        load.check()?;
        let row = Figures::read(began.elapsed(), &agent, &server, rows.last())?;
        println!("{row}");
        rows.push(row);
    }
    drop(load);
    let log = agent.stop();
    let residuals: Vec<i64> = server.api().accounting().iter().map(everflame_tests::api::residual).collect();
    println!("residual after the end: {residuals:?}");
    let mut faults = verdict::faults(&rows, lasts);
    if residuals != [0] {
        faults.push(format!("residuals {residuals:?} after the end"));
    }
    faults.extend(log.lines().find(|line| line.contains("panicked")).map(str::to_owned));
    server.stop();
    if faults.is_empty() {
        println!("soak: nothing grew, stuck or was lost in {} minutes", options.minutes);
        return Ok(());
    }
    bail!("the soak failed:\n{}", faults.join("\n"))
}

/// A figure of the agent's metrics, summed over labels.
fn metric(text: &str, name: &str) -> f64 {
    let name = format!("everflame_agent_{name}");
    let lines = text.lines().filter(|line| line.strip_prefix(&name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Bytes of a file that must be there.
fn read(path: &std::path::Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}
