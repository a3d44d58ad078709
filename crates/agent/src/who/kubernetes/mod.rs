//! The pods of this node, as the API server tells them: one list, then a watch limited to the
//! node. Only the fields that become attributes are read. The client is our own: two kinds of
//! request over the HTTP client that is here already, where the usual library would bring
//! some sixty crates more and whole objects into memory.

mod client;
mod config;
mod kubeconfig;
mod object;
mod owners;
mod pods;
mod watch;

pub use client::{Client, ClientError};
pub use config::{Access, ConfigError, Secret};
pub use owners::MAX_OWNERS;
pub use pods::{Container, Found, GRACE, MAX_IDS, MAX_PODS, Pod, Pods, Workload};
pub use watch::{NodePods, Watch, WatchOptions, WatchStats, node_pods};
