//! Builds a guest's file system, boots it in an emulator, and reads what it tells.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use everflame_tests::machine::need_program;
use everflame_tests::{Skip, target};
use serde_json::Value;

use super::archive::Archive;
use super::image::Kernel;
use super::machine::Machine;

/// A guest that takes longer than this hangs: one takes about half a minute.
const LIMIT: Duration = Duration::from_secs(240);

/// Names under which programs run in the guest, and what they are.
const PROGRAMS: [(&str, &str); 9] = [
    ("truth_cpp", "truth_cpp"),
    ("truth_musl", "truth_musl"),
    ("truth_rust", "truth_rust"),
    ("deep", "deep"),
    ("interrupted", "interrupted"),
    ("during_1", "truth_cpp"),
    ("during_2", "truth_cpp"),
    ("after_1", "truth_cpp"),
    ("after_2", "truth_cpp"),
];

/// What a guest told.
#[derive(Debug)]
pub struct Told {
    pub kernel: String,
    pub verifier: Value,
    pub scenes: Value,
}

/// What dynamic programs need beside the loader.
const LIBRARIES: [&str; 4] = ["libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1"];

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

/// Boots the guest and waits for its end.
pub fn run(kernel: &Kernel) -> Result<Told, Skip> {
    let machine = Machine::of(kernel.architecture);
    need_program(machine.emulator[0])?;
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("initrd");
    std::fs::write(&files, file_system(machine)?).unwrap();
    for boot in 1.. {
        let (told, log) = boot_once(machine, kernel, &files);
        let member = |name: &str| told.iter().find(|(what, _)| what == name).map(|(_, value)| value.clone());
        if let (Some(name), Some(verifier), Some(scenes)) = (member("kernel"), member("verifier"), member("scenes")) {
            return Ok(Told { kernel: name.as_str().unwrap_or_default().to_owned(), verifier, scenes });
        }
        let error = member("error").map_or_else(|| log.join("\n"), |error| error.to_string());
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

fn boot_once(machine: &Machine, kernel: &Kernel, files: &Path) -> (Vec<(String, Value)>, Vec<String>) {
    let mut child = emulator(machine, &kernel.image, files)
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
fn listen(console: impl std::io::Read + Send + 'static) -> (Vec<(String, Value)>, Vec<String>) {
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
    let (start, mut told, mut log) = (Instant::now(), Vec::new(), Vec::new());
    while let Ok(line) = lines.recv_timeout(LIMIT.saturating_sub(start.elapsed())) {
        match line.strip_prefix("EVERFLAME ").and_then(|rest| rest.split_once(' ')) {
            Some((what, json)) => {
                let value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error} in {line:?}"));
                told.push((what.to_owned(), value));
            }
            None => log.push(line),
        }
    }
    (told, log)
}

fn emulator(machine: &Machine, kernel: &Path, files: &Path) -> Command {
    let mut command = Command::new(machine.emulator[0]);
    command
        .args(&machine.emulator[1..])
        .args(["-accel", "tcg,thread=multi", "-smp", "2", "-m", "1024", "-no-reboot"])
        .args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-nodefaults"])
        .args(["-append", &format!("console={} panic=-1 quiet loglevel=3 {}", machine.console, machine.arguments)])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(files);
    command
}

fn file_system(machine: &Machine) -> Result<Vec<u8>, Skip> {
    let mut archive = Archive::default();
    let folders = ["dev", "proc", "sys", "tmp", "targets", "lib", "lib64", "lib/x86_64-linux-gnu"];
    folders.iter().for_each(|path| archive.directory(path));
    archive.console();
    archive.program("init", &machine.guest()?);
    for (name, built) in PROGRAMS {
        archive.program(&format!("targets/{name}"), &target::built_for(machine.name, built)?);
    }
    for library in LIBRARIES.iter().chain([&machine.loader.1]) {
        let mut folders = machine.libraries.iter().map(|folder| PathBuf::from(folder).join(library));
        let path = folders.find(|path| path.is_file());
        let path = path.ok_or_else(|| Skip(format!("{library} of {} is not where Debian has it", machine.name)))?;
        let folder = if *library == machine.loader.1 { machine.loader.0 } else { machine.folder };
        archive.program(&format!("{folder}/{library}"), &path);
    }
    Ok(archive.finish())
}
