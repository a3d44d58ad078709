//! What can be said of the manifests without a cluster: they are what Kubernetes defines, they
//! give no right that is not named in docs/security.md, and none of the faults is in them that
//! such directories are known for.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

mod admission;
mod faults;
mod guides;
mod monitoring;
mod secrets;
mod types;
