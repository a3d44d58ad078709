//! Which room may know which: read from `cargo metadata`, so that an edge that should not be
//! is found on the day it is drawn.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Finding;

/// Room, and the rooms that it may depend on. `xtask` and the tests may know all.
const ROOMS: [(&str, &[&str]); 8] = [
    ("everflame-profile", &[]),
    ("everflame-unwind", &[]),
    ("everflame-symbols", &["everflame-profile", "everflame-unwind"]),
    ("everflame-secrets", &[]),
    ("everflame-agent", &["everflame-profile", "everflame-unwind", "everflame-symbols"]),
    ("everflame-store", &["everflame-profile"]),
    ("everflame-server", &["everflame-profile", "everflame-store", "everflame-symbols"]),
    (
        "everflame",
        &[
            "everflame-profile",
            "everflame-secrets",
            "everflame-symbols",
            "everflame-agent",
            "everflame-store",
            "everflame-server",
        ],
    ),
];

/// Checks the edges of the workspace.
pub fn check(repository: &Path) -> Result<Vec<Finding>> {
    let output = Command::new("cargo")
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(repository)
        .output()
        .context("running cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(findings(&serde_json::from_slice(&output.stdout)?))
}

fn findings(metadata: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = ROOMS.iter().find(|(room, _)| *room == name) else { continue };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            // Tests of a room may use others as oracles.
            let target = dependency["name"].as_str().unwrap_or_default();
            let ours = target.starts_with("everflame");
            if ours && dependency["kind"].as_str() != Some("dev") && !allowed.contains(&target) {
                findings.push(Finding {
                    file: format!("crates/{}/Cargo.toml", name.trim_start_matches("everflame-")),
                    line: 0,
                    what: format!("{name} must not depend on {target}: see the code map in ARCHITECTURE.md"),
                });
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_edge_that_should_not_be_is_found() {
        let package = |name: &str, dependency: &str, kind: Value| json!({"name": name, "dependencies": [{"name": dependency, "kind": kind}]});
        let found = |package: Value| findings(&json!({"packages": [package]})).len();
        assert_eq!(found(package("everflame-agent", "everflame-store", Value::Null)), 1);
        assert_eq!(found(package("everflame-store", "everflame-server", Value::Null)), 1);
        assert_eq!(found(package("everflame-server", "everflame-store", Value::Null)), 0);
        assert_eq!(found(package("everflame-profile", "everflame-store", json!("dev"))), 0);
        assert_eq!(found(package("everflame-agent", "libc", Value::Null)), 0);
    }
}
