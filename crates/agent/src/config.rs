//! What the agent is told.

use std::{net::SocketAddr, path::PathBuf};

use crate::{
    export::{Destination, ExportConfig, SpoolLimits},
    filter::Filter,
    memory::Memory,
    processes::TrackerOptions,
    who::kubernetes::WatchOptions,
    worker::client::WorkerCommand,
};

/// The agent's options.
#[derive(Clone)]
pub struct AgentConfig {
    /// Where to send.
    pub destination: Destination,
    /// Where to send as well, each under a name of its own.
    pub further: Vec<Destination>,
    /// Directory for batches that are not acknowledged yet.
    pub spool: PathBuf,
    /// Bytes of batches in it at most; each destination has the same part.
    pub spool_bytes: u64,
    /// Address of the agent's own metrics; none where another listener serves them.
    pub listen: Option<SocketAddr>,
    /// Name of this node.
    pub node: String,
    /// The project that samples are sent under.
    pub project: Option<String>,
    /// What memory may be taken.
    pub memory: Memory,
    /// Bytes of unwind tables at most, where they are not to be the memory's usual part.
    pub table_bytes: Option<u64>,
    /// Whether OTEL_SERVICE_NAME of processes may be read.
    pub read_service_env: bool,
    /// Whose pods are followed; none without Kubernetes.
    pub kubernetes: Option<WatchOptions>,
    /// Which processes are profiled.
    pub filter: Filter,
}

impl AgentConfig {
    /// For the tracker; it makes symbol indexes only where someone takes them.
    pub(crate) fn tracker(&self) -> TrackerOptions {
        TrackerOptions {
            table_budget_bytes: self.table_bytes.unwrap_or(self.memory.tables()),
            max_processes: self.memory.processes(),
            worker: WorkerCommand { memory: Some(self.memory), ..WorkerCommand::default() },
            worker_answer: self.memory.answer(),
            read_service_env: self.read_service_env,
            table_cache: Some(self.spool.join("tables")),
            ..TrackerOptions::default()
        }
    }

    /// For the exporters, the main one first. Disk and memory are divided among them alike.
    pub(crate) fn exports(&self) -> Vec<ExportConfig> {
        let exporters = 1 + self.further.len() as u64;
        let limits =
            SpoolLimits { disk_bytes: self.spool_bytes / exporters, memory_bytes: self.memory.batches() / exporters };
        let export = |destination: &Destination, spool: PathBuf| ExportConfig {
            destination: destination.clone(),
            spool,
            limits,
            ..ExportConfig::default()
        };
        let main = export(&self.destination, self.spool.clone());
        let further = self.further.iter().map(|destination| export(destination, destination.spool(&self.spool)));
        std::iter::once(main).chain(further).collect()
    }
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            destination: Destination::default(),
            further: Vec::new(),
            spool: PathBuf::from("/var/lib/everflame/spool"),
            spool_bytes: 256 << 20,
            listen: None,
            node: host_name(),
            project: None,
            memory: Memory::default(),
            table_bytes: None,
            read_service_env: true,
            kubernetes: None,
            filter: Filter::default(),
        }
    }
}

impl std::fmt::Debug for AgentConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentConfig")
            .field("endpoint", &self.destination.endpoint)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// The host's name.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".into() } else { name.trim().into() }
}
