//! What the agent is told.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use crate::{
    export::{Authorization, AuthorizationSource, Credentials, ExportConfig, Secret, SpoolLimits},
    memory::Memory,
    processes::TrackerOptions,
    tls::Roots,
    who::kubernetes::WatchOptions,
    worker::client::WorkerCommand,
};

/// The agent's options. None of the values is a secret but `token`, `api_key` and `headers`, which
/// are never logged.
#[derive(Clone)]
pub struct AgentConfig {
    /// `http://host:port` or `https://host:port` of an OTLP server.
    pub endpoint: String,
    /// Directory for batches that are not acknowledged yet.
    pub spool: PathBuf,
    /// Bytes of it at most.
    pub spool_bytes: u64,
    /// Address of the agent's own metrics; none where another listener serves them.
    pub listen: Option<SocketAddr>,
    /// Name of this node.
    pub node: String,
    /// File with a bearer token.
    pub token_file: Option<PathBuf>,
    /// A bearer token; of the agent inside `up`, which has no file.
    pub token: Option<String>,
    /// Certificates of authorities that may speak for the server; the system's where there is none.
    pub ca_file: Option<PathBuf>,
    /// File with an API key.
    pub api_key_file: Option<PathBuf>,
    /// An API key.
    pub api_key: Option<String>,
    /// What says who we are before all of these: a secret that is kept elsewhere and may change.
    pub authorization: Option<Arc<dyn AuthorizationSource>>,
    /// Further headers of requests.
    pub headers: Vec<(String, String)>,
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

    /// What the server wants to see.
    pub(crate) fn credentials(&self) -> Credentials {
        let file = |path: &PathBuf| Secret::File(path.clone());
        let token = self.token.clone().map(Secret::Value).or(self.token_file.as_ref().map(file));
        let token = token.map(Authorization::Bearer);
        let key_file = self.api_key_file.as_ref().map(|path| Authorization::ApiKey(file(path)));
        let key = self.api_key.clone().map(|key| Authorization::ApiKey(Secret::Value(key)));
        let source = self.authorization.clone().map(Authorization::Source);
        Credentials { authorization: source.or(token).or(key_file).or(key), headers: self.headers.clone() }
    }

    /// Whose word about the server's identity counts.
    pub(crate) fn roots(&self) -> Roots {
        Roots { ca_file: self.ca_file.clone() }
    }

    /// For the exporter.
    pub(crate) fn export(&self) -> ExportConfig {
        let defaults = ExportConfig::default();
        ExportConfig {
            endpoint: self.endpoint.clone(),
            spool: self.spool.clone(),
            limits: SpoolLimits { disk_bytes: self.spool_bytes, memory_bytes: self.memory.batches() },
            credentials: self.credentials(),
            roots: self.roots(),
            ..defaults
        }
    }
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            spool: PathBuf::from("/var/lib/everflame/spool"),
            spool_bytes: 256 << 20,
            listen: None,
            node: host_name(),
            token_file: None,
            token: None,
            ca_file: None,
            api_key_file: None,
            api_key: None,
            authorization: None,
            headers: Vec::new(),
            project: None,
            memory: Memory::default(),
            table_bytes: None,
            read_service_env: true,
            kubernetes: None,
        }
    }
}

impl std::fmt::Debug for AgentConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentConfig")
            .field("endpoint", &self.endpoint)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// The host's name.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".into() } else { name.trim().into() }
}
