//! The file system of a guest of the matrix: the first process and programs with known truth.

use std::path::PathBuf;

use everflame_tests::{Skip, target};

use super::archive::Archive;
use super::machine::Machine;

/// Names under which programs run in the guest, and what they are.
const PROGRAMS: [(&str, &str); 12] = [
    ("truth_cpp", "truth_cpp"),
    ("truth_musl", "truth_musl"),
    ("truth_rust", "truth_rust"),
    ("deep", "deep"),
    ("interrupted", "interrupted"),
    ("during_1", "truth_cpp"),
    ("during_2", "truth_cpp"),
    ("after_1", "truth_cpp"),
    ("after_2", "truth_cpp"),
    ("sleeper", "truth_cpp"),
    ("awake_1", "truth_cpp"),
    ("awake_2", "truth_cpp"),
];

/// What dynamic programs need beside the loader.
const LIBRARIES: [&str; 4] = ["libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1"];

/// Those of a guest of the matrix.
pub fn file_system(machine: &Machine) -> Result<Archive, Skip> {
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
    Ok(archive)
}
