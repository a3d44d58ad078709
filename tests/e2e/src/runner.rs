//! Runs the tests one after another, since they share one kernel and two cores, and prints
//! what `cargo test` prints. Unlike its own harness it can skip a test while it runs, and
//! then it says why and counts it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

/// Why a test did not run here.
#[derive(Debug)]
pub struct Skip(pub String);

/// A test passes, is skipped, or panics.
pub type Outcome = Result<(), Skip>;

/// A named test.
pub type Test = (&'static str, fn() -> Outcome);

/// Runs those whose name contains one of the arguments (all without arguments).
pub fn run(tests: &[Test]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with("--")).collect();
    let chosen: Vec<&Test> = tests
        .iter()
        .filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str())))
        .collect();
    println!("\nrunning {} tests", chosen.len());
    let (mut failed, mut skipped, started) = (Vec::new(), Vec::new(), Instant::now());
    for (name, test) in &chosen {
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(test));
        let word = match outcome {
            Ok(Ok(())) => "ok".to_owned(),
            Ok(Err(Skip(reason))) => {
                skipped.push(*name);
                format!("ignored, {reason}")
            }
            Err(_) => {
                failed.push(*name);
                "FAILED".to_owned()
            }
        };
        println!("test {name} ... {word} ({:.1} s)", start.elapsed().as_secs_f64());
    }
    if !failed.is_empty() {
        println!("\nfailures:");
        failed.iter().for_each(|name| println!("    {name}"));
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; {} ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        chosen.len() - failed.len() - skipped.len(),
        failed.len(),
        skipped.len(),
        tests.len() - chosen.len(),
        started.elapsed().as_secs_f64()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}
