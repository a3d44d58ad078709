//! Against a real implementation of AWS's API, in a process of its own (moto, which
//! `scripts/setup.sh test` installs): each way to credentials, what is refused, rotation. A machine
//! without it skips these tests aloud, and counts them.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod common;
mod suite;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

const TESTS: [(&str, fn()); 10] = [
    ("environment_and_rotation", suite::credentials::environment_and_rotation),
    ("web_identity", suite::credentials::web_identity),
    ("pod_identity", suite::credentials::pod_identity),
    ("profile", suite::credentials::profile),
    ("metadata_of_the_machine", suite::credentials::metadata_of_the_machine),
    ("no_credentials_anywhere", suite::refusals::no_credentials_anywhere),
    ("signatures_and_policies_are_checked", suite::refusals::signatures_and_policies_are_checked),
    ("missing_deleted_and_of_another_shape", suite::refusals::missing_deleted_and_of_another_shape),
    ("nobody_answers", suite::refusals::nobody_answers),
    ("over_tls", suite::refusals::over_tls),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with("--")).collect();
    let chosen = |name: &str| filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str()));
    let skip = !common::moto::is_here();
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    for (name, test) in TESTS.iter().filter(|(name, _)| chosen(name)) {
        let word = match (skip, skip || catch_unwind(AssertUnwindSafe(test)).is_ok()) {
            (true, _) => {
                ignored += 1;
                "ignored, moto is not here: run scripts/setup.sh test"
            }
            (false, true) => {
                passed += 1;
                "ok"
            }
            (false, false) => {
                failed += 1;
                "FAILED"
            }
        };
        println!("test {name} ... {word}");
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; 0 filtered out\n"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(101) }
}
