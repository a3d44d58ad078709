//! The privileged part: samples every process through eBPF and ships OTLP profiles.
//! Knows no store and no server.

pub mod aggregate;
pub mod bpf;
pub mod identity;
pub mod ledger;
pub mod processes;
pub mod sample;
pub mod usage;
