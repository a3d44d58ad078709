//! The forms of a recording: chosen by the ending of the file's name.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    time::Duration,
};

use anyhow::Context;
use everflame_agent::Recording;
use everflame_profile::{folded::folded, pprof::pprof};
use everflame_server::{
    query::flamegraph,
    symbols::{Limits, Symbols},
};
use everflame_store::{Embedded, Store};

use super::named::named;
use crate::WrongUse;

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `.pb.gz`
    Pprof,
    /// `.folded`
    Folded,
    /// `.svg`
    Svg,
    /// `.json`: the API's flame graph.
    Json,
}

impl Format {
    /// By the ending of a file's name.
    pub fn of(path: &Path) -> anyhow::Result<Self> {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let endings = [(".pb.gz", Self::Pprof), (".folded", Self::Folded), (".svg", Self::Svg), (".json", Self::Json)];
        match endings.into_iter().find(|(ending, _)| name.ends_with(ending)) {
            Some((_, format)) => Ok(format),
            None => {
                Err(WrongUse(format!("--output {}: end it in .pb.gz, .folded, .svg or .json", path.display())).into())
            }
        }
    }
}

/// Writes the whole file, or none: first beside it, then in its place.
pub fn write(recording: &Recording, took: Duration, rate: u32, format: Format, path: &Path) -> anyhow::Result<()> {
    let bytes = match format {
        Format::Pprof => pprof(&named(recording, took, rate)),
        Format::Folded => folded(&named(recording, took, rate)).into_bytes(),
        Format::Svg => svg(&folded(&named(recording, took, rate)))?,
        Format::Json => json(recording)?,
    };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let mut file = BufWriter::new(File::create(&beside)?);
    file.write_all(&bytes)?;
    file.into_inner().map_err(|e| e.into_error())?.sync_all()?;
    std::fs::rename(&beside, path)?;
    Ok(())
}

fn svg(folded: &str) -> anyhow::Result<Vec<u8>> {
    let mut options = inferno::flamegraph::Options::default();
    options.title = "everflame record".into();
    options.count_name = "samples".into();
    let mut out = Vec::new();
    if folded.is_empty() {
        anyhow::bail!("there is no sample to draw: record for longer, or something that runs");
    }
    inferno::flamegraph::from_lines(&mut options, folded.lines(), &mut out).context("drawing the flame graph")?;
    Ok(out)
}

/// The answer that the server would give: by the server's own code, on a store that is
/// thrown away.
fn json(recording: &Recording) -> anyhow::Result<Vec<u8>> {
    // Of a name that nobody can know before, and for our eyes only: we may be root.
    let dir = tempfile::tempdir().context("cannot make a directory for what is thrown away: set TMPDIR")?;
    json_in(recording, dir.path())
}

fn json_in(recording: &Recording, dir: &Path) -> anyhow::Result<Vec<u8>> {
    let store = Embedded::open(everflame_store::Options::new(dir.join("store")))?;
    let symbols = Symbols::open(&dir.join("symbols"), Limits::default())?;
    for (id, index) in &recording.indexes {
        if let Err(e) = symbols.put(&id.to_string(), index, false) {
            tracing::warn!("the symbol index of {id} is not taken: {}", e.message);
        }
    }
    let times = recording.batch.profiles.iter().flat_map(|p| &p.samples).flat_map(|s| &s.points).map(|p| p.time);
    let (first, last) = times.fold((i64::MAX, 0), |(first, last), t| (first.min(t), last.max(t)));
    store.append(&recording.batch, None, last)?;
    let (from, until) = (first.min(last) / 1_000_000_000, last / 1_000_000_000 + 1);
    let uri: http::Uri = format!("/api/v1/flamegraph?from={from}&until={until}&max_nodes=0").parse()?;
    let answer = flamegraph::Request::new(&uri).and_then(|request| request.answer(&store, &symbols));
    answer.map_err(|e| anyhow::anyhow!("making the flame graph: {}", e.message))
}
