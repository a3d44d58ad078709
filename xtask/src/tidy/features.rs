//! That tests compile nothing of the product a second time: cargo adds up the features that all
//! of a selection asks of a crate, so what only a test's dependency asks for makes another
//! build of the crate, and of all that is built on it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Finding;

/// Compares the crates of `make build` with those of `make test`.
pub fn check(repository: &Path) -> Result<Vec<Finding>> {
    let product = selection(repository, &["--package", "everflame", "--edges", "normal,build"])?;
    let tests = selection(repository, &["--workspace", "--edges", "normal,build,dev"])?;
    Ok(findings(&product, &tests))
}

/// Each crate of a selection, with its features.
fn selection(repository: &Path, which: &[&str]) -> Result<BTreeSet<String>> {
    let output = Command::new("cargo")
        .args(["tree", "--offline", "--prefix", "none", "--no-dedupe", "--format", "{p} [{f}]"])
        .args(which)
        .current_dir(repository)
        .output()
        .context("running cargo tree")?;
    if !output.status.success() {
        bail!("cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

fn findings(product: &BTreeSet<String>, tests: &BTreeSet<String>) -> Vec<Finding> {
    let twice = product.difference(tests).map(|line| {
        let name = line.split(" [").next().unwrap_or_default();
        let other = tests.iter().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let what = format!("{line} is compiled again for the tests, as{other}: ask for these features in both");
        Finding { file: "Cargo.toml".to_owned(), line: 0, what }
    });
    twice.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_that_is_built_twice_is_found() {
        let set = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<BTreeSet<_>>();
        let product = set(&["a v1 [std]", "b v2 []"]);
        assert!(findings(&product, &set(&["a v1 [std]", "b v2 []", "c v3 []"])).is_empty());
        let found = findings(&product, &set(&["a v1 [default,std]", "b v2 []"]));
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("[default,std]"), "{}", found[0].what);
    }
}
