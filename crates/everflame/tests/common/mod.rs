//! The real program, as the tests of its commands start it.

use std::process::{Command, Stdio};

/// The program without any setting of the surroundings.
pub fn everflame(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_everflame"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if ["EVERFLAME_", "ELASTIC_", "OTEL_", "PROFILING_"].iter().any(|start| name.starts_with(start)) {
            command.env_remove(&*name);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    command
}
