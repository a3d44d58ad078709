//! The page, driven in a real browser by `tests/browser/run.mjs`; README's screenshot comes
//! from it.

use std::process::Command;
use std::time::Duration;

use everflame_tests::machine::{cache, finish, need_program, need_root, repository};
use everflame_tests::zoo::Zoo;
use everflame_tests::{Everflame, Outcome, Skip};

pub fn the_page_in_a_real_browser() -> Outcome {
    need_root()?;
    need_program("node")?;
    need_program("chromium")?;
    let script = repository().join("tests/browser/run.mjs");
    if !repository().join("tests/browser/node_modules").is_dir() {
        return Err(Skip("needs tests/browser/node_modules (make test fetches it)".into()));
    }
    // `make screenshot` says where README's picture is; otherwise it is only kept.
    let screenshot = std::env::var("EVERFLAME_SCREENSHOT")
        .unwrap_or_else(|_| cache().join("screenshot.png").to_string_lossy().into());
    let up = Everflame::up(99);
    let zoo = Zoo::open(180);
    // The page is looked at with a past of its own.
    std::thread::sleep(Duration::from_secs(40));
    let mut command = Command::new("node");
    command.args([script.to_str().unwrap(), up.api().url(), "--screenshot", &screenshot]);
    let ended = finish(&mut command);
    drop(zoo);
    println!("{}", String::from_utf8_lossy(&ended.stdout));
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    up.stop();
    Ok(())
}
