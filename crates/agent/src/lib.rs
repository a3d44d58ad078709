//! The privileged part: samples every process through eBPF and ships OTLP profiles.
//! Knows no store and no server.

pub mod identity;
pub mod sample;
