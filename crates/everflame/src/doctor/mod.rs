//! `doctor`: what this machine, or a server, needs for profiling, one line a check.

mod kubernetes;
mod machine;
mod others;
mod rights;
mod server;

use std::{io::Write, process::ExitCode};

use serde::Serialize;

use crate::options::{DoctorOptions, Output};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warn,
    Fail,
}

/// A matter, what was found, and what to do about it.
#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    status: Status,
    found: String,
    remedy: String,
}

impl Check {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, found: found.into(), remedy: String::new() }
    }

    fn warn(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, status: Status::Warn, found: found.into(), remedy: remedy.into() }
    }

    fn fail(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, status: Status::Fail, found: found.into(), remedy: remedy.into() }
    }
}

/// Runs all checks; 0 unless one fails.
pub fn run(options: DoctorOptions) -> anyhow::Result<ExitCode> {
    let mut checks = vec![machine::kernel(), machine::btf()];
    checks.extend(rights::capabilities());
    checks.extend(rights::security_modules());
    checks.extend([rights::user_namespace(), rights::system_calls(), rights::perf_events(), rights::locked_memory()]);
    checks.extend([machine::pid_namespace(), machine::kernel_symbols(), machine::bpffs(), machine::memory_limit()]);
    checks.extend([others::other_samplers(), machine::sampler()]);
    checks.extend(kubernetes::checks(&options.node));
    if let Some(server) = &options.server {
        checks.extend(server::checks(server, &options.credentials));
    }
    let mut out = std::io::stdout().lock();
    match options.output {
        Output::Json => {
            serde_json::to_writer(&mut out, &checks)?;
            writeln!(out)?;
        }
        Output::Table => {
            for check in &checks {
                let status = match check.status {
                    Status::Ok => "ok",
                    Status::Warn => "warn",
                    Status::Fail => "fail",
                };
                writeln!(out, "{status:<5} {:<22} {}  {}", check.check, check.found, check.remedy)?;
            }
        }
    }
    let failed = checks.iter().any(|check| check.status == Status::Fail);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
