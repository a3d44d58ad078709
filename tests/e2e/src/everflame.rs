//! The program under test, started as its users start it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;

use crate::api::Api;
use crate::machine::{self, wait_for};

const READY: &str = "everflame is ready: ";
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A running `everflame`.
#[derive(Debug)]
pub struct Everflame {
    child: Child,
    api: Api,
    log: PathBuf,
    // Kept for as long as the process may write there.
    _scratch: TempDir,
}

/// Path of the program: `EVERFLAME_BINARY`, or what `make build` leaves.
pub fn binary() -> PathBuf {
    std::env::var_os("EVERFLAME_BINARY")
        .map(PathBuf::from)
        .unwrap_or_else(|| machine::repository().join("target/x86_64-unknown-linux-gnu/release/everflame"))
}

/// A command of the program.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments);
    command
}

impl Everflame {
    /// `everflame up` with a fresh data directory.
    pub fn up(rate: u32) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        Self::start(
            &["up", "--listen", "127.0.0.1:0", "--rate", &rate.to_string(), "--data", data.to_str().unwrap()],
            scratch,
        )
    }

    /// `everflame server` on a port and a data directory that outlive it.
    pub fn server(port: u16, data: &Path) -> Self {
        Self::start(
            &["server", "--listen", &format!("127.0.0.1:{port}"), "--data", data.to_str().unwrap()],
            tempfile::tempdir().unwrap(),
        )
    }

    /// The same with more options, and a client that is let in by `api`.
    pub fn server_behind(port: u16, data: &Path, more: &[&str], api: impl FnOnce(&str) -> Api) -> Self {
        let listen = format!("127.0.0.1:{port}");
        let mut arguments = vec!["server", "--listen", &listen, "--data", data.to_str().unwrap()];
        arguments.extend(more);
        let mut server = Self::start(&arguments, tempfile::tempdir().unwrap());
        server.api = api(server.api.url());
        server
    }

    /// `everflame agent` that sends to a port on this machine.
    pub fn agent(server_port: u16, rate: u32, spool: &Path) -> Self {
        Self::agent_in(None, server_port, rate, spool, &[])
    }

    /// The same with more options, and inside a control group (version 1) if one is given.
    pub fn agent_in(cgroup: Option<&Path>, server_port: u16, rate: u32, spool: &Path, more: &[&str]) -> Self {
        Self::agent_to(&format!("http://127.0.0.1:{server_port}"), cgroup, rate, spool, more)
    }

    /// The same to any endpoint.
    pub fn agent_to(endpoint: &str, cgroup: Option<&Path>, rate: u32, spool: &Path, more: &[&str]) -> Self {
        let listen = format!("127.0.0.1:{}", machine::free_port());
        let scratch = tempfile::tempdir().unwrap();
        let rate = rate.to_string();
        let mut arguments = vec!["agent", "--endpoint", endpoint, "--rate", &rate, "--listen", &listen, "--spool"];
        arguments.push(spool.to_str().unwrap());
        arguments.extend(more);
        let log = scratch.path().join("log");
        let mut inside = command(&arguments);
        if let Some(cgroup) = cgroup {
            let script = format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", cgroup.display());
            inside = Command::new("sh");
            inside.args(["-c", &script]).arg(binary()).args(&arguments);
        }
        let child = spawn(inside, &log, Stdio::null());
        let agent = Self { child, api: Api::new(&format!("http://{listen}")), log, _scratch: scratch };
        wait_for("the agent's /healthz", START_LIMIT, || (agent.api.try_status("/healthz") == Some(200)).then_some(()));
        agent
    }

    /// Starts a command that prints the line of readiness.
    pub fn start(arguments: &[&str], scratch: TempDir) -> Self {
        let log = scratch.path().join("log");
        let mut child = spawn(command(arguments), &log, Stdio::piped());
        let stdout = child.stdout.take().expect("standard output is piped");
        let (sender, receiver) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(url) = line.strip_prefix(READY) {
                    let _ = sender.send(url.to_owned());
                }
            }
        });
        match receiver.recv_timeout(START_LIMIT) {
            Ok(url) => Self { child, api: Api::new(&url), log, _scratch: scratch },
            Err(_) => {
                let _ = child.kill();
                let status = child.wait();
                panic!("everflame {arguments:?} was never ready ({status:?}); its log:\n{}", tail(&log));
            }
        }
    }

    /// The API behind it.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Memory of it and its kernel maps, without its children.
    pub fn memory(&self) -> u64 {
        machine::memory(self.pid())
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it as a supervisor does; it must flush and end with 0.
    pub fn stop(mut self) -> String {
        machine::signal(self.child.id(), "TERM");
        let status = self.wait(STOP_LIMIT);
        assert!(status.success(), "everflame ended with {status} after SIGTERM; its log:\n{}", tail(&self.log));
        self.log()
    }

    /// Ends it without any chance to flush.
    pub fn kill_9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn wait(&mut self, limit: Duration) -> ExitStatus {
        wait_for("the end of everflame", limit, || self.child.try_wait().unwrap())
    }
}

impl Drop for Everflame {
    fn drop(&mut self) {
        if self.alive() {
            machine::signal(self.child.id(), "TERM");
            for _ in 0..100 {
                if !self.alive() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            println!("---- the end of everflame's log\n{}", tail(&self.log));
        }
    }
}

fn spawn(mut command: Command, log: &Path, stdout: Stdio) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(File::create(log).unwrap())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {}: {error}: make build", binary().display()))
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
