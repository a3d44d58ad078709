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

mod churn;
mod deployment;
mod helm;
mod install;
mod outage;
mod overlays;
mod pages;
mod pods;
mod reader;
mod rights;
mod stage;
mod tls;

const TESTS: [runner::Test; 15] = [
    ("kubernetes::the_script_says_what_is_wrong", install::says_what_is_wrong),
    ("kubernetes::the_script_installs", install::installs),
    ("kubernetes::the_agents_account", rights::account),
    ("kubernetes::metrics_exist", install::metrics_exist),
    ("kubernetes::who_it_was", pods::who_it_was),
    ("kubernetes::a_pod_of_two_seconds", pods::two_seconds),
    ("kubernetes::pods_that_come_and_go", churn::identity),
    ("kubernetes::the_api_server_is_away", outage::api_server_away),
    ("kubernetes::the_script_may_be_repeated", install::repeats),
    ("kubernetes::certificate_and_token_change", tls::certificate_and_token_change),
    ("kubernetes::others_as_well", overlays::as_well),
    ("kubernetes::uninstall_leaves_nothing", install::uninstalls),
    // Those that install in their own way, and remove it.
    ("kubernetes::others_instead", overlays::instead),
    ("kubernetes::the_chart", helm::the_chart),
    ("kubernetes::the_guides_are_followed", pages::are_followed),
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
