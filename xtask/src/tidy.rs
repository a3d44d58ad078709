//! The house rules that can be checked. A rule without a check is decoration; a finding says
//! the file, the line and what to do.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

mod edges;
mod features;
mod text;

/// Something that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// File, relative to the repository.
    pub file: String,
    /// Line from 1, 0 for the whole file.
    pub line: usize,
    /// What is wrong and what to do.
    pub what: String,
}

/// Checks every file that git knows or would take.
pub fn run(repository: &Path) -> Result<()> {
    let files = files(repository)?;
    let mut findings = edges::check(repository)?;
    findings.extend(features::check(repository)?);
    let mut advice = Vec::new();
    for file in &files {
        // A file may have been deleted and not yet committed; a picture is no text.
        let Ok(bytes) = std::fs::read(repository.join(file)) else { continue };
        let Ok(text) = String::from_utf8(bytes) else { continue };
        text::check(file, &text, &mut findings);
        text::advise(file, &text, &mut advice);
    }
    for finding in &advice {
        println!("advice: {}: {}", finding.file, finding.what);
    }
    for finding in &findings {
        println!("{}:{}: {}", finding.file, finding.line, finding.what);
    }
    if !findings.is_empty() {
        bail!("{} finding(s) in {} files", findings.len(), files.len());
    }
    println!("tidy: {} files, nothing to say", files.len());
    Ok(())
}

fn files(repository: &Path) -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(repository)
        .output()
        .context("running git")?;
    if !output.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    }
    let mut files: Vec<String> =
        output.stdout.split(|&b| b == 0).filter(|f| !f.is_empty()).map(|f| String::from_utf8_lossy(f).into()).collect();
    files.sort();
    files.dedup();
    Ok(files)
}
