//! The file given by `--config`: its keys become defaults of the command's options, below
//! the environment and the command line.

use std::{ffi::OsString, fs, path::Path};

use anyhow::{Context, bail};
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches, error::ErrorKind};

use crate::options::Cli;

/// Parses the command line; the file that it or the environment names is read first.
/// Wrong use ends the program with 2, as clap does.
pub fn parse() -> anyhow::Result<Cli> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let mut command = Cli::command();
    if let Some(path) = named_file(&arguments) {
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read the file of --config, {}", path.display()))?;
        let keys: toml::Table = text.parse().with_context(|| format!("{} is not TOML", path.display()))?;
        command = with_defaults(command, &keys, &path)?;
    }
    // The name of the deployment that this one replaces; ours goes before it.
    if let Some(level) = std::env::var("PROFILING_LOG_LEVEL").ok().filter(|level| !level.is_empty()) {
        let level = if level.eq_ignore_ascii_case("warning") { "warn".to_owned() } else { level.to_lowercase() };
        command = set_default(command, "log", &[level], &mut false);
    }
    let matches: ArgMatches = command.try_get_matches_from(arguments).map_err(one_line)?;
    Cli::from_arg_matches(&matches).map_err(one_line)
}

/// Help and version are printed; what is wrong becomes one line that says what to do.
fn one_line(error: clap::Error) -> anyhow::Error {
    if !error.use_stderr() {
        error.exit();
    }
    // What clap answers to a missing command is the whole help.
    if matches!(error.kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand) {
        return anyhow::anyhow!("say which command to run (see `everflame --help`)");
    }
    let text = error.to_string();
    let lines =
        text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let said = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let said = said.strip_prefix("error: ").unwrap_or(&said);
    anyhow::anyhow!("{said} (see `everflame --help`)")
}

fn named_file(arguments: &[OsString]) -> Option<std::path::PathBuf> {
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let text = argument.to_string_lossy();
        if text == "--" {
            break;
        }
        if text == "--config" {
            return rest.next().map(Into::into);
        }
        if let Some(path) = text.strip_prefix("--config=") {
            return Some(path.into());
        }
    }
    std::env::var_os("EVERFLAME_CONFIG").map(Into::into)
}

fn with_defaults(mut command: Command, keys: &toml::Table, path: &Path) -> anyhow::Result<Command> {
    for (key, value) in keys {
        let values = texts(value)
            .with_context(|| format!("{}: `{key}` is not a text, number, switch or list", path.display()))?;
        let mut known = false;
        let names: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
        for name in names {
            command = command.mut_subcommand(&name, |sub| set_default(sub, key, &values, &mut known));
        }
        command = set_default(command, key, &values, &mut known);
        if !known {
            bail!("{}: no command has an option `--{key}`", path.display());
        }
    }
    Ok(command)
}

fn set_default(command: Command, key: &str, values: &[String], known: &mut bool) -> Command {
    let id = command.get_arguments().find(|a| a.get_long() == Some(key) && key != "config").map(|a| a.get_id().clone());
    let Some(id) = id else { return command };
    *known = true;
    // clap keeps defaults as 'static text; the file is read once, so the leak is bounded.
    let values: Vec<&'static str> = values.iter().map(|v| &*Box::leak(v.clone().into_boxed_str())).collect();
    command.mut_arg(id, |argument| argument.default_values(values).required(false))
}

fn texts(value: &toml::Value) -> Option<Vec<String>> {
    Some(match value {
        toml::Value::String(s) => vec![s.clone()],
        toml::Value::Integer(n) => vec![n.to_string()],
        toml::Value::Float(n) => vec![n.to_string()],
        toml::Value::Boolean(b) => vec![b.to_string()],
        toml::Value::Array(list) => list.iter().map(texts).collect::<Option<Vec<_>>>()?.concat(),
        _ => return None,
    })
}
