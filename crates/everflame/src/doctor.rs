//! `doctor`: what this machine, or a server, needs for profiling, one line a check.

use std::{fs, io::Write, process::ExitCode};

use everflame_agent::bpf::{
    clock::online_cpus,
    programs::{ProgramOptions, Programs},
};
use serde::Serialize;

use crate::{
    client::Client,
    options::{DoctorOptions, Output},
    privileges,
};

/// Capabilities that the agent uses, with their numbers in linux/capability.h.
const CAPABILITIES: [(u32, &str); 6] = [
    (2, "DAC_READ_SEARCH"),
    (19, "SYS_PTRACE"),
    (34, "SYSLOG"),
    (38, "PERFMON"),
    (39, "BPF"),
    (40, "CHECKPOINT_RESTORE"),
];
/// Inode of the initial PID namespace (PROC_PID_INIT_INO of linux/proc_ns.h).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    status: Status,
    found: String,
    remedy: String,
}

/// Runs all checks; 0 unless one fails.
pub fn run(options: DoctorOptions) -> anyhow::Result<ExitCode> {
    let mut checks = vec![kernel(), btf(), capabilities(), pid_namespace(), kallsyms(), bpffs(), perf_events()];
    checks.push(sampler());
    if let Some(server) = &options.server {
        checks.push(server_ready(server));
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
                writeln!(out, "{status:<5} {:<14} {}  {}", check.check, check.found, check.remedy)?;
            }
        }
    }
    let failed = checks.iter().any(|check| check.status == Status::Fail);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn check(check: &'static str, status: Status, found: impl Into<String>, remedy: &str) -> Check {
    Check {
        check,
        status,
        found: found.into(),
        remedy: if status == Status::Ok { String::new() } else { remedy.into() },
    }
}

fn kernel() -> Check {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let status = if version >= (5, 10) { Status::Ok } else { Status::Fail };
    check("kernel", status, format!("Linux {release}"), "use Linux 5.10 or newer")
}

fn btf() -> Check {
    match fs::metadata("/sys/kernel/btf/vmlinux") {
        Ok(facts) => check("btf", Status::Ok, format!("/sys/kernel/btf/vmlinux, {} bytes", facts.len()), ""),
        Err(e) => check(
            "btf",
            Status::Fail,
            format!("/sys/kernel/btf/vmlinux: {e}"),
            "use a kernel with CONFIG_DEBUG_INFO_BTF=y",
        ),
    }
}

fn capabilities() -> Check {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let missing: Vec<&str> =
        CAPABILITIES.iter().filter(|(n, _)| effective >> n & 1 == 0).map(|(_, name)| *name).collect();
    if missing.is_empty() {
        return check("capabilities", Status::Ok, if privileges::is_root() { "root" } else { "all that are used" }, "");
    }
    let remedy = "run as root, or give the process these capabilities";
    check("capabilities", Status::Fail, format!("missing: {}", missing.join(" ")), remedy)
}

fn pid_namespace() -> Check {
    match fs::read_link("/proc/self/ns/pid") {
        Ok(link) if link.as_os_str() == INITIAL_PID_NAMESPACE => check("pid-namespace", Status::Ok, "the host's", ""),
        Ok(link) => check(
            "pid-namespace",
            Status::Fail,
            format!("{} is not the host's", link.display()),
            "run with the host's PID namespace (hostPID: true)",
        ),
        Err(e) => check("pid-namespace", Status::Warn, e.to_string(), "mount /proc"),
    }
}

fn kallsyms() -> Check {
    let text = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    match everflame_symbols::kallsyms::KernelSymbols::parse(&text, None) {
        Ok(symbols) => check("kernel-symbols", Status::Ok, format!("{} symbols", symbols.len()), ""),
        Err(e) => check(
            "kernel-symbols",
            Status::Warn,
            e.to_string(),
            "give CAP_SYSLOG or set kernel.kptr_restrict to 0; kernel frames stay addresses until then",
        ),
    }
}

fn bpffs() -> Check {
    let mounted = fs::read_to_string("/proc/mounts").unwrap_or_default().lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some("/sys/fs/bpf") && words.next() == Some("bpf")
    });
    if mounted {
        return check("bpffs", Status::Ok, "/sys/fs/bpf is mounted", "");
    }
    let remedy = "mount -t bpf bpf /sys/fs/bpf; without it the counters of a killed agent are lost";
    check("bpffs", Status::Warn, "/sys/fs/bpf is not mounted", remedy)
}

fn perf_events() -> Check {
    let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    check("cpus", Status::Ok, format!("{} online, perf_event_paranoid {}", online_cpus().len(), paranoid.trim()), "")
}

fn sampler() -> Check {
    let started = Programs::load(&ProgramOptions::default()).and_then(|programs| programs.start_clock(1).map(|_| ()));
    match started {
        Ok(()) => check("sampler", Status::Ok, "loads, verifies and ticks", ""),
        Err(e) => check("sampler", Status::Fail, e.to_string(), "see the checks above"),
    }
}

fn server_ready(server: &str) -> Check {
    match Client::new(server, None).and_then(|client| client.get("/readyz", &[])) {
        Ok(_) => check("server", Status::Ok, format!("{server} is ready"), ""),
        Err(e) => check("server", Status::Fail, format!("{e:#}"), "start `everflame server` or correct --server"),
    }
}
