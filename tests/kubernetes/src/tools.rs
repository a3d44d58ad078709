//! The tools that work on manifests and are in no package of Debian.

use std::path::PathBuf;
use std::process::Command;

use everflame_tests::{Skip, machine};

/// The folder of helm, kustomize and OpenTelemetry's collector, or why there is none.
pub fn folder() -> Result<PathBuf, Skip> {
    let found = machine::finish(Command::new(machine::repository().join("scripts/kubernetes.sh")).arg("find-tools"));
    match found.status.success() {
        true => Ok(String::from_utf8_lossy(&found.stdout).trim().into()),
        false => Err(Skip(String::from_utf8_lossy(&found.stderr).trim().to_owned())),
    }
}
