//! The privileged part: samples every process through eBPF and ships OTLP profiles.
//! Knows no store and no server.

pub mod agent;
pub mod aggregate;
pub mod bpf;
pub mod config;
pub mod confinement;
pub mod describe;
pub mod error;
pub mod executables;
pub mod export;
pub mod filter;
pub mod identity;
pub mod ledger;
pub mod memory;
pub mod opinion;
pub mod pins;
pub mod presence;
pub mod processes;
pub mod recorder;
pub mod rights;
pub mod sample;
pub mod sampler;
pub mod status;
pub mod strings;
pub mod sys;
pub mod tls;
pub mod usage;
pub mod wall_clock;
pub mod who;
pub mod worker;

pub use agent::Agent;
pub use config::AgentConfig;
pub use error::AgentError;
pub use memory::Memory;
pub use recorder::{Recorder, Recording};
pub use sampler::{Sampler, SamplerOptions};
