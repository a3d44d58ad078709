//! Who it was: from the control group of a sample to container, pod, workload and service.
//!
//! ```text
//! sample ─▶ cgroup (births: told by the kernel; else /proc) ─▶ container id, pod uid
//!              ├─▶ kubernetes: the node's pods as the API server tells them
//!              └─▶ runtime: what the container runtime keeps on disk
//! ```
//! The API server may be away: names come late then, or from the runtime alone, and what was
//! known stays.

mod births;
mod cgroup;
pub mod kubernetes;
mod location;
mod metrics;
mod own;
mod runtime;

pub use births::{Births, MAX_CGROUPS};
pub use cgroup::{Cgroup, Cgroups};
pub use location::{Location, MAX_LOCATIONS, Who};
pub use runtime::Runtimes;
