//! What this machine has: root, tools, places. A test asks for what it needs and is skipped,
//! aloud, where it is missing.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::runner::{Outcome, Skip};

/// The repository.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Where fetched and built things are kept between runs.
pub fn cache() -> PathBuf {
    repository().join("tests/.cache")
}

/// Skips the test unless it runs as root.
pub fn need_root() -> Outcome {
    match output(Command::new("id").arg("-u")).trim() {
        "0" => Ok(()),
        _ => Err(Skip("needs root".into())),
    }
}

/// Skips the test unless a program is in PATH (or at this path).
pub fn need_program(name: &str) -> Outcome {
    if PathBuf::from(name).is_absolute() && PathBuf::from(name).is_file() {
        return Ok(());
    }
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()));
    if found { Ok(()) } else { Err(Skip(format!("needs {name} (scripts/setup.sh test)"))) }
}

/// Runs a command that must succeed and returns what it printed.
pub fn output(command: &mut Command) -> String {
    let output = finish(command);
    assert!(
        output.status.success(),
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command to its end, whatever that is.
pub fn finish(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
}

/// Sends a signal to a process by its id.
pub fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).output();
}

/// A port on the loopback interface that nothing listened on a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Asks until the answer is there; panics with `what` after `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
