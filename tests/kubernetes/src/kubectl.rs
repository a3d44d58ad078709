//! kubectl, as its users run it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use everflame_tests::machine;
use serde_json::Value;

/// kubectl with a configuration, and perhaps in the name of another.
#[derive(Debug, Clone)]
pub struct Kubectl {
    /// The program.
    pub program: PathBuf,
    /// Its configuration.
    pub kubeconfig: PathBuf,
    /// In whose name it asks, if not its own: `--as`.
    pub who: Option<String>,
}

impl Kubectl {
    /// In the name of another.
    #[must_use]
    pub fn as_other(&self, who: &str) -> Self {
        Self { who: Some(who.to_owned()), ..self.clone() }
    }

    /// A command.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env("KUBECONFIG", &self.kubeconfig);
        if let Some(who) = &self.who {
            command.arg(format!("--as={who}"));
        }
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// What a command that must succeed prints.
    pub fn run(&self, arguments: &[&str]) -> String {
        machine::output(&mut self.command(arguments))
    }

    /// Runs a command to its end, whatever that is.
    pub fn try_run(&self, arguments: &[&str]) -> Output {
        machine::finish(&mut self.command(arguments))
    }

    /// The JSON of a `get`, or nothing where it fails.
    pub fn get(&self, arguments: &[&str]) -> Option<Value> {
        let output = self.try_run(&[&["get", "-o", "json"], arguments].concat());
        serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success())
    }

    /// Applies objects.
    pub fn apply(&self, objects: &[Value]) {
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let mut command = self.command(&["apply", "-f", "-"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(list.to_string().as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "kubectl apply: {list}");
    }
}
