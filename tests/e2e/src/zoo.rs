//! A zoo of busy processes, so that both cores are full of every kind of code: a real Envoy
//! under load, CPython, a JVM, Node, Go, Rust, C++ without frame pointers, and short lives.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::machine::{cache, free_port, repository, wait_for};
use crate::target::{built, envoy_configuration};
use crate::{Api, Target};

/// Its animals; they end with it.
#[derive(Debug)]
pub struct Zoo {
    animals: Vec<Target>,
    _folder: tempfile::TempDir,
}

impl Zoo {
    /// Opens it for a time.
    pub fn open(seconds: u32) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let seconds = seconds.to_string();
        let mut animals = Vec::new();
        for name in ["truth_cpp", "truth_go", "truth_rust"] {
            if let Ok(path) = built(name) {
                animals.push(Target::start(&path, &[&seconds]));
            }
        }
        if let Ok(path) = built("storm") {
            animals.push(Target::start(&path, &["100000"]));
        }
        let scripts = repository().join("tests/targets");
        let mut start = |program: &str, arguments: &[&str]| {
            if Command::new(program).arg("--version").output().is_ok() {
                animals.push(Target::spawn(Command::new(program).args(arguments)));
            }
        };
        start("/usr/bin/python3", &[&scripts.join("truth.py").to_string_lossy(), &seconds]);
        start("node", &[&scripts.join("truth.js").to_string_lossy(), &seconds]);
        start("java", &["-cp", &cache().join("targets").to_string_lossy(), "Truth", &seconds]);
        if let Ok(envoy) = cache().join("envoy").canonicalize() {
            animals.extend(envoy_under_load(&envoy, folder.path(), &seconds));
        }
        Self { animals, _folder: folder }
    }

    /// How many animals there are.
    pub fn animals(&self) -> usize {
        self.animals.len()
    }
}

fn envoy_under_load(binary: &Path, folder: &Path, seconds: &str) -> Vec<Target> {
    let port = free_port();
    let configuration = folder.join("envoy.json");
    std::fs::write(&configuration, envoy_configuration(port)).expect("the temporary folder can be written");
    let arguments = ["--concurrency", "1", "--disable-hot-restart", "-l", "critical", "-c"];
    let envoy = Target::spawn(Command::new(binary).args(arguments).arg(&configuration));
    let site = Api::new(&format!("http://127.0.0.1:{port}"));
    wait_for("Envoy's first answer", Duration::from_secs(60), || (site.try_status("/") == Some(200)).then_some(()));
    let wrk = Target::spawn(Command::new("wrk").args(["-t1", "-c16", &format!("-d{seconds}s"), site.url()]));
    vec![envoy, wrk]
}
