//! What a person does who has a cluster: runs deploy.sh, looks at pods' flame graphs, and
//! removes it again. The cluster is a real one (`src/plane`), with a control plane and a node.
//!
//! `make test-kubernetes` builds its programs once; where they are not there, every test here
//! is skipped, aloud.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::process::ExitCode;

use everflame_kubernetes::{plane, rooms};
use everflame_tests::{Skip, runner};

mod deployment;
mod install;
mod pods;
mod rights;
mod stage;

const TESTS: [runner::Test; 8] = [
    ("kubernetes::the_script_says_what_is_wrong", install::says_what_is_wrong),
    ("kubernetes::the_script_installs", install::installs),
    ("kubernetes::the_agents_account", rights::account),
    ("kubernetes::metrics_exist", install::metrics_exist),
    ("kubernetes::who_it_was", pods::who_it_was),
    ("kubernetes::a_pod_of_two_seconds", pods::two_seconds),
    ("kubernetes::the_script_may_be_repeated", install::repeats),
    ("kubernetes::uninstall_leaves_nothing", install::uninstalls),
];

fn main() -> ExitCode {
    let listing = std::env::args().any(|argument| argument == "--list");
    if !rooms::inside() && !listing {
        if let Err(Skip(reason)) = plane::binaries() {
            stage::WHY.get_or_init(|| reason);
            return runner::run(&TESTS.map(|(name, _)| (name, (|| stage::skip()) as fn() -> everflame_tests::Outcome)));
        }
        return rooms::enter();
    }
    let code = runner::run(&TESTS);
    stage::end();
    code
}
