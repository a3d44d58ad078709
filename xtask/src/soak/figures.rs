//! One line of the soak's table.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use everflame_tests::Everflame;
use everflame_tests::api::residual;

use super::metric;
use crate::bench::process;

/// What is read of agent and server at a moment.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub at: Duration,
    /// Of the agent and its maps, without the worker, which comes and goes.
    pub bytes: u64,
    pub worker: u64,
    pub maps: u64,
    pub descriptors: usize,
    pub threads: usize,
    pub cpu: f64,
    pub taken: f64,
    pub acknowledged: f64,
    pub dropped: f64,
    pub in_flight: f64,
    pub residual: i64,
    pub processes: f64,
    pub ended: f64,
    pub unidentified: f64,
    pub executables: f64,
    pub tables: f64,
    pub table_bytes: f64,
    pub evicted: f64,
    pub refused: f64,
    pub lost: f64,
    /// Since the line before.
    pub cpu_percent: f64,
    pub samples_a_second: f64,
}

impl Figures {
    /// Names of the columns.
    pub const HEAD: &'static str = "minute | agent MiB | of it maps | worker | fds | threads | CPU % | samples/s | dropped | in flight | residual \
        | processes | ended | unasked | executables | tables | evicted | refused | lost records";

    /// Reads them; `before` is the line before.
    pub fn read(at: Duration, agent: &Everflame, server: &Everflame, before: Option<&Self>) -> Result<Self> {
        let text = agent.api().get("/metrics", &[]).1;
        let one = |name: &str| metric(&text, name);
        let tracker = |name: &str| metric(&text, &format!("tracker_{name}"));
        let pid = agent.pid();
        let count = |folder: &str| std::fs::read_dir(format!("/proc/{pid}/{folder}")).map(Iterator::count);
        let residuals = server.api().accounting();
        let mut now = Self {
            at,
            bytes: agent.memory(),
            worker: (process::memory(pid).0 + process::map_bytes(pid)).saturating_sub(agent.memory()),
            maps: process::map_bytes(pid),
            descriptors: count("fd").context("the agent's descriptors")?,
            threads: count("task").context("the agent's threads")?,
            cpu: process::cpu_seconds(pid) + one("program_seconds_total"),
            taken: one("samples_taken_total") - one("samples_idle_total"),
            acknowledged: one("samples_acknowledged_total"),
            dropped: one("samples_dropped_total"),
            in_flight: one("samples_in_flight"),
            residual: residuals.iter().map(|instance| residual(instance).abs()).sum(),
            processes: tracker("processes"),
            ended: tracker("processes_ended"),
            unidentified: tracker("processes_unidentified"),
            executables: tracker("executables"),
            tables: tracker("tables"),
            table_bytes: tracker("table_bytes"),
            evicted: tracker("processes_evicted") + tracker("tables_evicted"),
            refused: ["processes", "mappings", "executables", "rereads", "tables"]
                .iter()
                .map(|what| tracker(&format!("{what}_refused")))
                .sum(),
            lost: tracker("records_lost"),
            ..Self::default()
        };
        if let Some(before) = before {
            let seconds = (now.at - before.at).as_secs_f64();
            now.cpu_percent = (now.cpu - before.cpu).max(0.0) * 100.0 / seconds;
            now.samples_a_second = (now.taken - before.taken) / seconds;
        }
        Ok(now)
    }

    /// Memory of the agent and its maps, MiB, but for the unwind tables: other programs on the
    /// machine add to those, up to their own limit.
    pub fn memory(&self) -> f64 {
        (self.bytes as f64 - self.table_bytes) / f64::from(1 << 20)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "{:6.1} | {:9.1} | {:10.1} | {:6.1} | {:3} | {:7} | {:5.2} | {:9.1} | {:7} | {:9} | {:8} | {:9} | {:5} | {:7} | {:11} | {:6} | {:7} | {:7} | {:12}",
            self.at.as_secs_f64() / 60.0,
            mib(self.bytes),
            mib(self.maps),
            mib(self.worker),
            self.descriptors,
            self.threads,
            self.cpu_percent,
            self.samples_a_second,
            self.dropped,
            self.in_flight,
            self.residual,
            self.processes,
            self.ended,
            self.unidentified,
            self.executables,
            self.tables,
            self.evicted,
            self.refused,
            self.lost
        )
    }
}
