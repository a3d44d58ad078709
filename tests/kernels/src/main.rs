//! The first process of a guest: samples programs with known truth on the guest's kernel
//! and prints what it saw as JSON, which the host judges (`tests/main.rs`).
#![forbid(unsafe_code)]
// What it says goes to the console.
#![allow(clippy::print_stdout)]

mod containers;
mod hotplug;
mod machine;
mod profile;
mod programs;
mod scenes;
mod sleep;
mod verifier;

use std::process::ExitCode;

use serde_json::Value;

/// What the host looks for at the beginning of a line.
const MARK: &str = "EVERFLAME";

fn main() -> ExitCode {
    // The agent starts itself again to have files parsed.
    if std::env::args_os().nth(1).is_some_and(|a| a == "internal-worker") {
        return everflame_agent::worker::main();
    }
    if std::process::id() != 1 {
        eprintln!("guest: this is the first process of a virtual machine; `make test-kernels` starts one");
        return ExitCode::from(2);
    }
    if let Err(e) = run() {
        say("error", &Value::from(format!("{e:#}")));
    }
    machine::power_off();
    ExitCode::FAILURE
}

fn run() -> anyhow::Result<()> {
    machine::mount_all()?;
    say("kernel", &Value::from(machine::kernel_release()));
    // What the kernel does not know of its command line is in our environment.
    if std::env::var_os("PLAY").is_some_and(|play| play == "containers") {
        return containers::play();
    }
    say("verifier", &verifier::counts()?);
    say("scenes", &scenes::play()?);
    Ok(())
}

fn say(what: &str, value: &Value) {
    println!("{MARK} {what} {value}");
}
