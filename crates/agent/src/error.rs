//! Why an agent does not start.

use crate::{
    bpf::BpfError,
    export::{DestinationError, ExportError},
    ledger::LedgerError,
};

/// Why an agent does not start. The messages say what to do.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The kernel side.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// The way to the server.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The account.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// What a server wants to see, or whose word about it counts.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// No name for this run.
    #[error("cannot read /proc/sys/kernel/random/uuid: {0}; mount /proc")]
    Instance(std::io::Error),
    /// No thread.
    #[error("cannot start a thread: {0}; raise the limit on threads")]
    Start(std::io::Error),
    /// The agent's own listener.
    #[error("cannot listen on {0}: {1}; choose another address with --listen")]
    Listen(std::net::SocketAddr, std::io::Error),
}
