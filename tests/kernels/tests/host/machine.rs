//! The machines that guests are: emulator, console, and where their programs come from.

use std::path::{Path, PathBuf};
use std::process::Command;

use everflame_tests::{Skip, machine};

/// One architecture.
#[derive(Debug)]
pub struct Machine {
    /// As the distribution calls it.
    pub name: &'static str,
    /// The program and its own arguments.
    pub emulator: &'static [&'static str],
    pub console: &'static str,
    /// To the kernel.
    pub arguments: &'static str,
    /// Where the host has the guest's libraries.
    pub libraries: &'static [&'static str],
    /// Where the guest has them.
    pub folder: &'static str,
    /// Folder and name of what loads dynamic programs.
    pub loader: (&'static str, &'static str),
    /// Of the guest's own program, where it is another than the host's.
    triple: Option<&'static str>,
}

const AMD64: Machine = Machine {
    name: "amd64",
    emulator: &["qemu-system-x86_64", "-cpu", "max"],
    console: "ttyS0",
    arguments: "tsc=reliable",
    libraries: &["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64"],
    folder: "lib/x86_64-linux-gnu",
    loader: ("lib64", "ld-linux-x86-64.so.2"),
    triple: None,
};

/// The usual signing of pointers takes an emulator longer than all else.
const ARM64: Machine = Machine {
    name: "arm64",
    emulator: &["qemu-system-aarch64", "-machine", "virt", "-cpu", "max,pauth-impdef=on"],
    console: "ttyAMA0",
    arguments: "",
    libraries: &["/usr/aarch64-linux-gnu/lib"],
    folder: "lib",
    loader: ("lib", "ld-linux-aarch64.so.1"),
    triple: Some("aarch64-unknown-linux-gnu"),
};

impl Machine {
    /// By the distribution's name.
    pub fn of(name: &str) -> &'static Self {
        if name == ARM64.name { &ARM64 } else { &AMD64 }
    }

    /// The first process of a guest.
    pub fn guest(&self) -> Result<PathBuf, Skip> {
        let Some(triple) = self.triple else { return Ok(Path::new(env!("CARGO_BIN_EXE_guest")).to_owned()) };
        let setup = || Skip(format!("the build for {} is not set up (scripts/setup.sh {})", self.name, self.name));
        let repository = machine::repository();
        let library = Command::new("rustc").args(["--print", "target-libdir", "--target", triple]).output();
        let library = library.map_err(|_| setup())?;
        let folder = PathBuf::from(String::from_utf8_lossy(&library.stdout).trim().to_owned());
        if !folder.is_dir() || !repository.join(".tools").join(self.name).is_dir() {
            return Err(setup());
        }
        println!("building the guest's program for {}", self.name);
        machine::output(Command::new("cargo").current_dir(&repository).args([
            "build",
            "--release",
            "--quiet",
            "--package=everflame-kernels",
            "--bin=guest",
            "--target",
            triple,
        ]));
        Ok(repository.join("target").join(triple).join("release/guest"))
    }
}
