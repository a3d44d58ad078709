//! The kernel matrix: each guest is a virtual machine with a distribution's kernel in which
//! the agent samples programs with known truth (`src/`); here it is started and judged.
//!
//! Four kernels by default; `EVERFLAME_KERNELS=all` (`make test-kernels`) is all of them.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::process::ExitCode;

use everflame_tests::{Outcome, runner};

mod host {
    pub mod archive;
    pub mod budget;
    pub mod containers;
    pub mod guest;
    pub mod image;
    pub mod judge;
    pub mod machine;
    pub mod programs;
}

use host::{budget, containers, guest, image::Kernel, judge, machine::Machine, programs};

const AMD64: &str = "amd64";
const ARM64: &str = "arm64";

fn main() -> ExitCode {
    let usual: [runner::Test; 4] = [
        ("kernels::x86_64_5_10", || functional("5.10", AMD64)),
        ("kernels::x86_64_6_1", || functional("6.1", AMD64)),
        ("kernels::x86_64_7", || functional("7", AMD64)),
        ("kernels::arm64_6_12", || functional("6.12", ARM64)),
    ];
    let more: [runner::Test; 3] = [
        ("kernels::x86_64_6_12", || functional("6.12", AMD64)),
        ("kernels::arm64_6_1", || functional("6.1", ARM64)),
        ("kernels::containers_under_apparmor", containers_under_apparmor),
    ];
    let all = std::env::var("EVERFLAME_KERNELS").is_ok_and(|which| which == "all");
    let tests: Vec<runner::Test> = usual.into_iter().chain(more.into_iter().filter(|_| all)).collect();
    runner::run(&tests)
}

/// Boots a node with containers under AppArmor, in control groups of version 2.
fn containers_under_apparmor() -> Outcome {
    let kernel = Kernel::find("6.1", AMD64)?;
    let files = containers::file_system(Machine::of(AMD64))?;
    let told = guest::run(&kernel, containers::WORDS, files, &containers::TELLS)?;
    containers::judge(&told);
    Ok(())
}

/// Boots the newest kernel of a series and judges all that the guest tells.
fn functional(series: &str, architecture: &'static str) -> Outcome {
    let kernel = Kernel::find(series, architecture)?;
    let files = programs::file_system(Machine::of(architecture))?;
    let told = guest::run(&kernel, "", files, &["kernel", "verifier", "scenes"])?;
    let release = told["kernel"].as_str().unwrap();
    println!("kernel {release} ({}, {architecture})", kernel.package);
    budget::check(&kernel, release, &told["verifier"]);
    judge::judge(&told["scenes"]);
    Ok(())
}
