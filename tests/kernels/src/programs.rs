//! The programs with known truth, as they run in the guest.

use std::{
    io::Read,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::Value;

/// A running program that prints its truth when it ends.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    child: Child,
}

impl Program {
    /// Starts `/targets/NAME`.
    pub fn start(name: &'static str, arguments: &[&str]) -> anyhow::Result<Self> {
        let child = Command::new(format!("/targets/{name}"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { name, child })
    }

    /// Whether it has ended.
    pub fn is_over(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Its name and what it said of itself.
    pub fn truth(mut self) -> anyhow::Result<(&'static str, Value)> {
        let status = self.child.wait()?;
        ensure!(status.success(), "{} ended with {status}", self.name);
        let mut text = String::new();
        self.child.stdout.take().context("piped")?.read_to_string(&mut text)?;
        Ok((self.name, serde_json::from_str(&text).with_context(|| format!("{text:?}"))?))
    }
}

/// Calls `turn` until all programs have ended.
pub fn while_running(
    programs: &mut [Program],
    limit: Duration,
    mut turn: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        turn()?;
        let mut over = true;
        for program in programs.iter_mut() {
            over &= program.is_over()?;
        }
        if over {
            return Ok(());
        }
        ensure!(start.elapsed() < limit, "the programs run for more than {limit:?}");
    }
}
