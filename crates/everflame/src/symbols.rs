//! `symbols`: makes symbol indexes on this machine and sends them to a server; lists what
//! the server has.

use std::{
    fs,
    io::{self, Write},
};

use anyhow::{Context, bail};
use everflame_symbols::{IndexLimits, build_index, inspect};

use crate::{
    client::Client,
    options::{Output, SymbolsCommand, SymbolsListOptions, SymbolsPushOptions},
};

/// Runs one of the sub-commands.
pub fn run(command: SymbolsCommand) -> anyhow::Result<()> {
    match command {
        SymbolsCommand::Push(options) => push(options),
        SymbolsCommand::List(options) => list(options),
    }
}

fn push(options: SymbolsPushOptions) -> anyhow::Result<()> {
    let client = Client::new(&options.access.server, &options.access.credentials)?;
    let mut failed = 0;
    for path in &options.files {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let pushed = fs::read(path).map_err(anyhow::Error::from).and_then(|bytes| {
            let facts = inspect(&bytes)?;
            let index = build_index(&bytes, &name, &IndexLimits::default())?;
            let id = if facts.build_id.is_empty() { facts.content_id.to_string() } else { facts.build_id };
            client.put(&format!("/api/v1/symbols/{id}"), &index).map(|answer| (answer, id, index.len()))
        });
        match pushed.with_context(|| path.display().to_string()) {
            Ok(((201, _), id, bytes)) => eprintln!("{}: sent as {id} ({bytes} bytes)", path.display()),
            Ok(((409, message), ..)) => eprintln!("{}: {message}", path.display()),
            Ok(((status, message), ..)) => {
                failed += 1;
                eprintln!("{}: the server answers {status}: {message}", path.display());
            }
            Err(e) => {
                failed += 1;
                eprintln!("{e:#}");
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {} files were not taken: see above", options.files.len());
    }
    Ok(())
}

fn list(options: SymbolsListOptions) -> anyhow::Result<()> {
    let client = Client::new(&options.access.server, &options.access.credentials)?;
    let answer = client.get("/api/v1/symbols", &[])?;
    let mut out = io::stdout().lock();
    if options.output == Output::Json {
        serde_json::to_writer(&mut out, &answer)?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(out, "{:<40} {:>9} {:>9} {:>9}  name", "build id", "functions", "named", "samples")?;
    for row in answer["executables"].as_array().into_iter().flatten() {
        let id = row["build_id"].as_str().filter(|id| !id.is_empty()).or(row["content_id"].as_str()).unwrap_or("");
        let name = row["name"].as_str().unwrap_or("");
        writeln!(out, "{id:<40} {:>9} {:>9} {:>9}  {name}", row["functions"], row["named"], row["samples"])?;
    }
    Ok(())
}
