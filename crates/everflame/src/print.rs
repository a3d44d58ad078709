//! Printing a server's answer: as it is, or for people.

use std::io::{self, Write};

use serde_json::Value;

use crate::options::Output;

/// Prints; who reads it may have read enough.
pub fn print(
    output: Output,
    answer: &Value,
    table: impl FnOnce(&mut dyn Write, &Value) -> io::Result<()>,
) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let printed = match output {
        Output::Json => serde_json::to_writer(&mut out, answer).map_err(io::Error::from).and_then(|()| writeln!(out)),
        Output::Table => table(&mut out, answer),
    };
    match printed {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
