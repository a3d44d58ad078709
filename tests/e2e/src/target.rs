//! Programs that are profiled.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};

use crate::machine::{self, wait_for};
use crate::runner::Skip;

/// A running program that prints its truth when it ends, or is ended with the value.
#[derive(Debug)]
pub struct Target {
    child: Child,
    /// The signal that ends it and the folder that goes with it, where killing it is not enough.
    end: Option<(&'static str, PathBuf)>,
}

/// Path of a built program with known truth (`tests/targets/README.md`).
pub fn built(name: &str) -> Result<PathBuf, Skip> {
    static BUILT: OnceLock<()> = OnceLock::new();
    build(&BUILT, "targets", &[], name)
}

/// The same for an architecture as the distribution calls it.
pub fn built_for(architecture: &str, name: &str) -> Result<PathBuf, Skip> {
    static BUILT: OnceLock<()> = OnceLock::new();
    if architecture == "arm64" { build(&BUILT, "targets-arm64", &["arm64"], name) } else { built(name) }
}

fn build(once: &OnceLock<()>, folder: &str, arguments: &[&str], name: &str) -> Result<PathBuf, Skip> {
    let out = machine::cache().join(folder);
    once.get_or_init(|| {
        let script = machine::repository().join("tests/targets/build.sh");
        machine::output(Command::new(script).arg(&out).args(arguments));
    });
    let path = out.join(name);
    if path.is_file() { Ok(path) } else { Err(Skip(format!("{name} could not be built (scripts/setup.sh test)"))) }
}

/// A configuration with which Envoy answers everything by itself.
pub fn envoy_configuration(port: u16) -> String {
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "test",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "hello"}}}]}]},
        "http_filters": [{"name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]
    });
    let filters = json!([{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]);
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    json!({"static_resources": {"listeners": [{"address": address, "filter_chains": [{"filters": filters}]}]}})
        .to_string()
}

impl Target {
    /// Starts a program; its output is kept for [`Target::truth`].
    pub fn start(program: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments);
        Self::spawn(&mut command)
    }

    /// Starts any command.
    pub fn spawn(command: &mut Command) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { child, end: None }
    }

    /// To be ended by this signal, after which its folder is removed.
    pub fn ended_by(mut self, signal: &'static str, folder: PathBuf) -> Self {
        self.end = Some((signal, folder));
        self
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The ELF files that it has mapped executable.
    pub fn files(&self) -> Vec<PathBuf> {
        files_of(self.pid())
    }

    /// Waits for its end and reads the line of JSON that it printed.
    pub fn truth(mut self) -> Value {
        let status = wait_for("the end of a target", Duration::from_secs(180), || self.child.try_wait().unwrap());
        assert!(status.success(), "a target ended with {status}");
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.child.stdout.take().expect("piped"), &mut text).unwrap();
        serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error} in {text:?}"))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some((signal, _)) = &self.end {
            machine::signal(self.child.id(), signal);
            for _ in 0..100 {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if let Some((_, folder)) = &self.end {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// The ELF files that a process has mapped executable.
pub fn files_of(pid: u32) -> Vec<PathBuf> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let mut files: Vec<PathBuf> = maps
        .lines()
        .filter(|line| line.split_whitespace().nth(1).is_some_and(|rights| rights.contains('x')))
        .filter_map(|line| line.split_whitespace().nth(5))
        .filter(|path| path.starts_with('/') && PathBuf::from(path).is_file())
        .map(PathBuf::from)
        .collect();
    files.sort();
    files.dedup();
    files
}
