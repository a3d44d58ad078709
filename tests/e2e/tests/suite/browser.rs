//! The page, driven in a real browser by `tests/browser/run.mjs`; README's screenshot comes
//! from it.

use std::process::Command;

use everflame_tests::machine::{finish, need_program, need_root, repository};
use everflame_tests::target::built;
use everflame_tests::{Everflame, Outcome, Skip, Target};

pub fn the_page_in_a_real_browser() -> Outcome {
    need_root()?;
    need_program("node")?;
    need_program("chromium")?;
    let script = repository().join("tests/browser/run.mjs");
    if !script.is_file() {
        return Err(Skip("tests/browser/run.mjs is missing".into()));
    }
    let truth = built("truth_cpp")?;
    let up = Everflame::up(199);
    let _load = Target::start(&truth, &["120"]);
    up.api().wait_for_samples("{process=\"truth_cpp\"}", 500);
    let ended = finish(Command::new("node").arg(&script).arg(up.api().url()).env("EVERFLAME_URL", up.api().url()));
    println!("{}", String::from_utf8_lossy(&ended.stdout));
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    up.stop();
    Ok(())
}
