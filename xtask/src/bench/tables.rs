//! Unwind tables of the executables that matter: how long they take to build and how large
//! they are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use everflame_unwind::{Limits, convert};
use serde_json::{Value, json};

/// Converts each file five times and keeps the quickest.
pub fn measure(repository: &Path) -> Result<Value> {
    let mut figures = Vec::new();
    for (name, path) in files(repository) {
        let Ok(bytes) = std::fs::read(&path) else {
            println!("tables: {name} is not on this machine");
            continue;
        };
        let (mut best, mut table) = (f64::MAX, None);
        for _ in 0..5 {
            let start = cpu_seconds()?;
            table =
                Some(convert(&bytes, &Limits::default()).with_context(|| format!("converting {}", path.display()))?);
            best = best.min(cpu_seconds()? - start);
        }
        let Some(table) = table else { continue };
        let stats = table.stats();
        figures.push(json!({
            "file": name,
            "functions": stats.fdes,
            "raw_rows": stats.raw_rows,
            "left_out": stats.left_out,
            "rows": stats.rows,
            "unsupported_rows": stats.unsupported_rows,
            "bytes": table.bytes().len(),
            "milliseconds": best * 1e3,
            "lookup_nanoseconds": lookup(&path)?,
        }));
    }
    Ok(Value::Array(figures))
}

/// CPU time of this thread so far: others' work does not count.
fn cpu_seconds() -> Result<f64> {
    let told =
        std::fs::read_to_string("/proc/thread-self/schedstat").context("the kernel has no scheduler statistics")?;
    let nanoseconds: f64 = told.split(' ').next().unwrap_or_default().parse().context("/proc/thread-self/schedstat")?;
    Ok(nanoseconds / 1e9)
}

/// Nanoseconds of a look-up of a random address: the kernel program's code, compiled for the host.
fn lookup(path: &Path) -> Result<f64> {
    let arguments = ["run", "--release", "--quiet", "--package", "everflame-agent", "--example", "lookup", "--"];
    let output = Command::new("cargo").args(arguments).arg(path).output().context("running cargo")?;
    let told = String::from_utf8_lossy(&output.stdout);
    told.trim().parse().with_context(|| format!("the example `lookup`: {}", String::from_utf8_lossy(&output.stderr)))
}

fn files(repository: &Path) -> Vec<(&'static str, PathBuf)> {
    let found = |pattern: &str| -> PathBuf {
        let output = Command::new("sh").args(["-c", &format!("ls -1 {pattern} 2>/dev/null | head -1")]).output();
        output.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())).unwrap_or_default()
    };
    vec![
        ("envoy 1.40", repository.join("tests/.cache/envoy")),
        ("libchdb", repository.join("tests/.cache/chdb/libchdb.so")),
        ("libjvm", found("/usr/lib/jvm/*/lib/server/libjvm.so")),
        ("node", found("/usr/bin/node")),
        ("librustc_driver", found("$HOME/.rustup/toolchains/*/lib/librustc_driver-*.so")),
        ("CPython", found("/usr/bin/python3")),
        ("libc", found("/lib/x86_64-linux-gnu/libc.so.6")),
    ]
}
