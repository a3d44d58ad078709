//! Pods in control groups of version 2, laid out as the kubelet's systemd driver does it, on a
//! machine with AppArmor: what the agent in a container of its own makes of them, under a
//! profile like the runtimes' default and under none. What each container is stands in its
//! bundle, which the host wrote (`tests/host/containers.rs`).

use std::{
    fs,
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rustix::process::{Pid, setpriority_process};
use serde_json::{Value, json};

use crate::{machine, say};

const EVERFLAME: &str = "/agent/everflame";
const BUSYBOX: &str = "/bin/busybox";
const SERVER: &str = "127.0.0.1:4040";
/// Bundles that work, by the name of their program.
const PODS: [&str; 2] = ["in_default", "in_free"];
/// How the agent is run.
const AGENTS: [&str; 2] = ["default", "free"];
const READY_WITHIN: Duration = Duration::from_secs(300);

/// Plays all of it, and says what doctor, agent and server said.
pub fn play() -> anyhow::Result<()> {
    machine::mount_for_containers()?;
    output(Command::new(BUSYBOX).args(["ifconfig", "lo", "up"]))?;
    output(Command::new("/bin/apparmor_parser").args(["--add", "--skip-cache", "/etc/container-default"]))?;
    start(Command::new(EVERFLAME).args(["server", "--listen", SERVER, "--data", "/tmp/data"]))?;
    for pod in PODS {
        gently(start(&mut container(pod))?)?;
    }
    let begun = Instant::now();
    while !PODS.iter().all(|pod| runs(pod)) || ask("/readyz").is_err() {
        ensure!(begun.elapsed() < READY_WITHIN, "pods and server do not run within {READY_WITHIN:?}");
        sleep(Duration::from_secs(1));
    }
    let mut on_host = Command::new("/pod/on_host");
    gently(start(on_host.arg("600"))?)?;
    // Debian's kernel is at a level at which it takes no capability but the one for all.
    say("paranoid", &said_by_doctor("doctor_free")?);
    let refused = container("agent_free").output()?;
    say("refused", &String::from_utf8_lossy(&refused.stderr).into());
    fs::write("/proc/sys/kernel/perf_event_paranoid", "2")?;
    for agent in AGENTS {
        let checks = said_by_doctor(&format!("doctor_{agent}"))?;
        let agent_said = output(&mut container(&format!("agent_{agent}")))?;
        let log = String::from_utf8_lossy(&agent_said.stderr).into_owned();
        say(agent, &json!({"doctor": checks, "log": log}));
    }
    for (what, path) in [("processes", "/api/v1/processes"), ("accounting", "/api/v1/accounting")] {
        say(what, &ask(path)?);
    }
    for pod in PODS {
        let query = format!("/api/v1/series?by=container.id&query=%7Bprocess%3D%22{pod}%22%7D");
        say(&format!("containers_of_{pod}"), &ask(&query)?);
    }
    Ok(())
}

/// It may find faults.
fn said_by_doctor(bundle: &str) -> anyhow::Result<Value> {
    let doctor = container(bundle).output()?;
    serde_json::from_slice(&doctor.stdout).with_context(|| format!("{doctor:?}"))
}

fn container(bundle: &str) -> Command {
    let mut command = Command::new("/bin/runc");
    command
        .args(["--root", "/run/runc", "run", "--no-pivot", "--bundle"])
        .arg(format!("/bundles/{bundle}"))
        .arg(bundle);
    command
}

/// Lets it run until the machine ends.
fn start(command: &mut Command) -> anyhow::Result<Child> {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().with_context(|| format!("starting {command:?}"))
}

/// It and its children leave the emulated CPUs to whoever wants them.
fn gently(child: Child) -> anyhow::Result<()> {
    setpriority_process(Pid::from_raw(i32::try_from(child.id())?), 10).context("lowering a priority")
}

fn output(command: &mut Command) -> anyhow::Result<Output> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {output:?}");
    Ok(output)
}

/// Whether a process of this name has come.
fn runs(name: &str) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut names = processes.filter_map(|entry| fs::read_to_string(entry.path().join("comm")).ok());
    names.any(|comm| comm.trim_end() == name)
}

/// What the server's API says.
fn ask(path: &str) -> anyhow::Result<Value> {
    let said = output(Command::new(BUSYBOX).args(["wget", "-q", "-O", "-"]).arg(format!("http://{SERVER}{path}")))?;
    Ok(serde_json::from_slice(&said.stdout).unwrap_or_default())
}
