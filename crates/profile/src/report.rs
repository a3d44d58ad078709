//! The report: an agent's own account of every sample it took, sent beside a batch.
//!
//! It travels as JSON in the request header `everflame-report`, so that the body
//! stays plain OTLP. The figures describe the agent **as it will stand once this
//! request is acknowledged**: the samples of the request's own batch are in none of
//! the stages. The server writes report and batch in one record, so that
//! `taken - idle - stored - in flight - dropped` is 0 at every moment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::SecondOpinion;

/// Name of the request header (gRPC metadata and HTTP alike).
pub const REPORT_HEADER: &str = "everflame-report";

/// Name of the response header by which a server says that it is one of ours: it reads reports, and
/// it takes symbol indexes at `/api/v1/symbols`. Its value is the server's version.
pub const SERVER_HEADER: &str = "everflame-server";

/// What one agent instance has counted since it started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Names one run of one agent: 32 hexadecimal digits.
    pub instance: String,
    /// `host.name` of the node.
    pub node: String,
    /// The project that its samples go to; the server's word where the sender's token has one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub project: String,
    /// Grows by one with each report of the instance; an older one never replaces a
    /// newer one.
    pub sequence: u64,
    /// Unix time in nanoseconds when the instance began to sample.
    pub since: i64,
    /// Version of the agent.
    pub agent_version: String,
    /// Kernel release.
    pub kernel: String,
    /// CPUs that are sampled.
    pub cpus: u32,
    /// Samples per second and CPU that were asked for.
    pub rate: u32,
    /// CPU time of the agent (user space and its kernel programs) since the last
    /// report, in percent of one CPU.
    pub cpu_percent: f64,
    /// Resident memory of the agent plus its kernel maps, in bytes.
    pub memory_bytes: u64,
    /// Ticks counted by the kernel program at its first instruction.
    pub taken: u64,
    /// Those of them on an idle task.
    pub idle: u64,
    /// Samples in flight by stage: `ring`, `aggregate`, `spool`, `sent`.
    pub in_flight: BTreeMap<String, u64>,
    /// Samples dropped by the agent, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Ticks that never reached the program, with the same busy task on both sides.
    pub missed_sure: u64,
    /// The same, where the CPU may have been idle.
    pub missed_perhaps_idle: u64,
    /// What a second unwinder says of the stacks, now and then: what was said before holds
    /// until then. Agents before it say nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second_opinion: Option<SecondOpinion>,
}
