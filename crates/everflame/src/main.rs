//! The program: command line, `up`, `agent`, `server`, `record`, `top`, `diff`, `symbols`, `token`, `doctor`.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong use; a failure is one line on standard error that
//! says what to do.

mod agent;
mod also;
mod client;
mod config_file;
mod diff;
mod doctor;
mod filter;
mod logging;
mod node;
mod options;
mod print;
mod privileges;
mod record;
mod secret;
mod server;
mod symbols;
mod token;
mod top;
mod up;

use std::process::ExitCode;

use options::Command;

fn main() -> ExitCode {
    // The parser of other programs' files starts before anything else could be opened.
    if std::env::args_os().nth(1).is_some_and(|a| a == "internal-worker") {
        return everflame_agent::worker::main();
    }
    everflame_agent::sys::names_by_hosts_and_dns();
    let cli = match config_file::parse() {
        Ok(cli) => cli,
        Err(e) => return wrong_use(&format!("{e:#}")),
    };
    if let Err(e) = logging::start(&cli.log) {
        return wrong_use(&format!("{e:#}"));
    }
    let done = match cli.command {
        Command::Up(options) => up::run(options, &cli.log),
        Command::Agent(options) => agent::run(options),
        Command::Server(options) => server::run(options),
        Command::Record(options) => return record::run(options).unwrap_or_else(failed),
        Command::Top(options) => top::run(options),
        Command::Diff(options) => diff::run(options),
        Command::Symbols { command } => symbols::run(command),
        Command::Token { command } => token::run(command),
        Command::Doctor(options) => return doctor::run(options).unwrap_or_else(failed),
        Command::InternalWorker => Ok(()), // taken above
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => failed(e),
    }
}

/// What a person did wrong, found later than by the parser of the command line.
#[derive(Debug)]
struct WrongUse(String);

impl std::fmt::Display for WrongUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongUse {}

/// A failure that has been told on standard error already.
#[derive(Debug)]
struct Told;

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("see the message above")
    }
}

impl std::error::Error for Told {}

fn failed(error: anyhow::Error) -> ExitCode {
    if error.is::<Told>() {
        return ExitCode::FAILURE;
    }
    if let Some(wrong) = error.downcast_ref::<WrongUse>() {
        return wrong_use(&wrong.0);
    }
    eprintln!("everflame: {}", one_line(&format!("{error:#}")));
    ExitCode::FAILURE
}

fn wrong_use(message: &str) -> ExitCode {
    eprintln!("everflame: {}", one_line(message));
    ExitCode::from(2)
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
