//! A real Kubernetes for tests: etcd, API server, controller manager, scheduler, containerd and
//! kubelet, in namespaces of their own, gone without a trace when the tests end.
#![forbid(unsafe_code)]
// A test says what went wrong by panicking, and prints what it does.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

pub mod cgroups;
pub mod endpoint;
pub mod images;
pub mod kubectl;
pub mod monitoring;
pub mod names;
pub mod objects;
pub mod plane;
pub mod rooms;
pub mod tools;

pub use kubectl::Kubectl;
pub use plane::Plane;
