//! The program for 64-bit ARM, run by an emulator of its processor on this machine's kernel:
//! that it was linked whole, starts, looks around, and serves.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use everflame_tests::machine::{finish, free_port, need_program, output, repository, signal, wait_for};
use everflame_tests::{Api, Outcome, Skip};
use serde_json::Value;

const EMULATOR: &str = "qemu-aarch64";
/// An emulated start takes some seconds.
const PATIENCE: Duration = Duration::from_secs(60);

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn the_arm64_program() -> Outcome {
    need_program(EMULATOR)?;
    let program = std::env::var_os("EVERFLAME_ARM64_BINARY")
        .map_or_else(|| repository().join("target/aarch64-unknown-linux-gnu/release/everflame"), PathBuf::from);
    if !program.is_file() {
        return Err(Skip("needs make build-arm64".into()));
    }
    let command = |arguments: &[&str]| {
        let mut command = Command::new(EMULATOR);
        command.arg(&program).args(arguments);
        command
    };
    let version = output(&mut command(&["--version"]));
    assert_eq!(version.trim(), concat!("everflame ", env!("CARGO_PKG_VERSION")));
    // What it finds is the emulator's business; that it says it is ours.
    let told = finish(&mut command(&["doctor", "--output", "json"]));
    let checks: Value = serde_json::from_slice(&told.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&told.stderr)));
    assert!(checks.as_array().is_some_and(|checks| checks.len() >= 3), "{checks}");

    let data = tempfile::tempdir().unwrap();
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    // As root the program starts over as somebody else by way of /proc/self/exe, which no emulator
    // hands to the kernel: so it is started by one who may not change users.
    let mut server = Command::new("setpriv");
    server.args(["--bounding-set=-all", "--inh-caps=-all", EMULATOR]).arg(&program);
    server.args(["server", "--listen", &listen, "--data"]).arg(data.path().join("data")).stdin(Stdio::null());
    let mut server = Server(server.spawn().unwrap());
    let api = Api::new(&format!("http://{listen}"));
    wait_for("the emulated server's /healthz", PATIENCE, || {
        assert!(server.0.try_wait().unwrap().is_none(), "the emulated server ended");
        (api.try_status("/healthz") == Some(200)).then_some(())
    });
    assert_eq!(api.get("/api/v1/types", &[]).0, 200);
    signal(server.0.id(), "TERM");
    let status = wait_for("its end", PATIENCE, || server.0.try_wait().unwrap());
    assert!(status.success(), "{status}");
    Ok(())
}
