//! Boots a guest in an emulator, and reads what it tells.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use everflame_tests::Skip;
use everflame_tests::machine::need_program;
use serde_json::Value;

use super::archive::Archive;
use super::image::Kernel;
use super::machine::Machine;

/// A guest that takes longer than this hangs: one takes about half a minute.
const LIMIT: Duration = Duration::from_secs(480);

/// What a guest told, by name.
pub type Told = BTreeMap<String, Value>;

/// Ends the emulator with the test.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lines of the console that wait to be read.
const LINES: usize = 1_000;

/// Times that a guest is booted again when the emulator broke its kernel.
const BOOTS: u32 = 3;

/// Boots a guest, with words for its first process, and waits for its end; it must tell all that is `wanted`.
pub fn run(kernel: &Kernel, words: &str, files: Archive, wanted: &[&str]) -> Result<Told, Skip> {
    let machine = Machine::of(kernel.architecture);
    need_program(machine.emulator[0])?;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("initrd");
    std::fs::write(&path, files.finish()).unwrap();
    for boot in 1.. {
        let (told, log) = boot_once(machine, kernel, words, &path);
        if wanted.iter().all(|name| told.contains_key(*name)) {
            return Ok(told);
        }
        let error = format!("{}\n{}", log.join("\n"), told.get("error").unwrap_or(&Value::Null));
        // While a kernel patches its own code, this emulator may run a breakpoint that is not
        // there any more. Kernels without kprobes' check for that fall over it.
        if boot < BOOTS && log.iter().any(|line| line.contains("Oops: int3")) {
            println!("{}: the emulator ran a breakpoint that had gone: booting again", kernel.package);
            continue;
        }
        panic!("the guest with {} did not come to its end: {error}", kernel.package);
    }
    unreachable!("the last boot returns or panics")
}

fn boot_once(machine: &Machine, kernel: &Kernel, words: &str, files: &Path) -> (Told, Vec<String>) {
    let mut child = emulator(machine, &kernel.image, words, files)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap_or_else(|error| panic!("the emulator cannot be started: {error}"));
    let console = child.stdout.take().expect("piped");
    let _emulator = Emulator(child);
    listen(console)
}

/// Lines of the console until it is closed: what the guest told, and all else.
fn listen(console: impl std::io::Read + Send + 'static) -> (Told, Vec<String>) {
    let (sender, lines) = mpsc::sync_channel(LINES);
    std::thread::spawn(move || {
        let mut reader = BufReader::new(console);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(n) if n > 0) {
            if sender.send(String::from_utf8_lossy(&line).trim().to_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    let (start, mut told, mut log) = (Instant::now(), Told::new(), Vec::new());
    while let Ok(line) = lines.recv_timeout(LIMIT.saturating_sub(start.elapsed())) {
        match line.strip_prefix("EVERFLAME ").and_then(|rest| rest.split_once(' ')) {
            Some((what, json)) => {
                let value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error} in {line:?}"));
                told.insert(what.to_owned(), value);
            }
            None => log.push(line),
        }
    }
    (told, log)
}

fn emulator(machine: &Machine, kernel: &Path, words: &str, files: &Path) -> Command {
    let mut command = Command::new(machine.emulator[0]);
    command
        .args(&machine.emulator[1..])
        .args(["-accel", "tcg,thread=multi", "-smp", "2", "-m", "1024", "-no-reboot"])
        .args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-nodefaults"])
        .args([
            "-append",
            &format!("console={} panic=-1 quiet loglevel=3 {} {words}", machine.console, machine.arguments),
        ])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(files);
    command
}
