//! The guides' commands, in the order of their pages, as a reader runs them: on this machine,
//! with a network and places for files of their own.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use everflame_tests::guide::{self, Block};
use everflame_tests::machine::{finish, need_program, need_root, repository};
use everflame_tests::{Outcome, Skip, everflame};
use serde_json::Value;

/// A network with nothing but itself, and layers over the folders that readers write to.
const ROOM: &str = r#"
ip link set lo up
mount -t tmpfs tmpfs "$ROOM"
for at in /etc /srv /var/lib /usr/local; do
    mkdir -p "$ROOM$at/upper" "$ROOM$at/work"
    mount -t overlay -o "lowerdir=$at,upperdir=$ROOM$at/upper,workdir=$ROOM$at/work" overlay "$at"
done
echo 127.0.0.1 profiles.example >>/etc/hosts
"#;

/// What pages that begin in the middle take for granted: a server, and an agent.
const RUNNING: &str = r#"
everflame server --data "$SCRATCH/data" >"$SCRATCH/server" 2>&1 &
running+=($!); ready "$SCRATCH/server" $! '' server
everflame agent --endpoint http://127.0.0.1:4040 --spool "$SCRATCH/spool" >"$SCRATCH/agent" 2>&1 &
running+=($!); ready "$SCRATCH/agent" $! yes agent
"#;

pub fn quick_start() -> Outcome {
    let page = "docs/quick-start.md";
    let (blocks, text) = run(page, "")?;
    let outputs: Vec<&str> = blocks.iter().map(|block| guide::printed(&text, block)).collect();
    let with = |command: &str| {
        let found = blocks.iter().zip(&outputs).filter(|(block, _)| block.text.contains(command));
        found.map(|(_, output)| *output).collect::<Vec<_>>()
    };
    assert!(with("everflame doctor")[0].lines().any(|line| line.starts_with("ok    sampler")), "{text}");
    for output in with("everflame top") {
        assert!(output.lines().count() >= 8, "no rows:\n{text}");
    }
    assert!(with("accounting")[0].contains("\"taken\""), "{text}");
    assert!(with("doctor --server")[0].contains("accepted: role admin"), "{text}");
    assert!(with("api/v1/nodes")[0].contains("\"rate\": 19"), "{text}");
    Ok(())
}

/// The data of a server goes into a backup, comes back, and is read by a server with tokens and TLS.
pub fn operations() -> Outcome {
    let (_, text) = run("docs/operations.md", "")?;
    assert!(text.contains("everflame_store_block_bytes"), "{text}");
    assert!(text.contains("https://profiles.example:4040 is ready"), "{text}");
    assert!(text.contains("everflame_tls_failed_reloads_total 0"), "{text}");
    figures();
    Ok(())
}

/// What sizing is planned with is not below what was measured, and not far above.
fn figures() {
    let page = std::fs::read_to_string(repository().join("docs/operations.md")).unwrap();
    let planned = |what: &str| -> f64 {
        let row = page.lines().find(|line| line.starts_with(&format!("| {what}"))).unwrap_or_else(|| panic!("{what}"));
        row.split('|').nth(2).unwrap().trim().parse().unwrap()
    };
    let measured = |file: &str, path: &str| -> f64 {
        let text = std::fs::read_to_string(repository().join("docs/bench").join(file)).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        json.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{file} has no {path}"))
    };
    let figures = [
        ("bytes a sample on the wire", measured("agent.json", "/figures/busy/socket_bytes_per_sample")),
        ("CPU of an agent", measured("agent.json", "/figures/busy/percent_of_node")),
    ];
    for (what, measured) in figures {
        let planned = planned(what);
        assert!(planned >= measured && planned <= 2.5 * measured, "{what}: planned {planned}, measured {measured}");
    }
}

pub fn integration() -> Outcome {
    let (_, text) = run("docs/integration.md", "")?;
    assert!(text.lines().any(|line| line.parse::<u32>().is_ok_and(|alerts| alerts >= 8)), "{text}");
    Ok(())
}

pub fn troubleshooting() -> Outcome {
    let (_, text) = run("docs/troubleshooting.md", RUNNING)?;
    assert!(text.contains("everflame_agent_samples_taken_total"), "{text}");
    // Every line that doctor can print here has its entry.
    let server = ["--server", "http://127.0.0.1:1"];
    let output = finish(&mut everflame::command(&[&["doctor", "--output", "json"][..], &server].concat()));
    let checks: Value = serde_json::from_slice(&output.stdout).unwrap();
    let guide = std::fs::read_to_string(repository().join("docs/troubleshooting.md")).unwrap();
    let table = guide.split_once("## Every line of `doctor`").unwrap().1;
    for check in checks.as_array().unwrap() {
        let name = format!("`{}`", check["check"].as_str().unwrap());
        assert!(table.contains(&name), "{name} has no entry in docs/troubleshooting.md");
    }
    Ok(())
}

/// Runs what of a page is for a machine.
fn run(page: &'static str, prepare: &str) -> Result<(Vec<Block>, String), Skip> {
    need_root()?;
    ["jq", "curl", "openssl", "unshare"].into_iter().try_for_each(need_program)?;
    let blocks = guide::of_tier(page, "machine");
    assert!(!blocks.is_empty());
    // Servers that are started as root look at it as somebody else.
    let scratch = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
    let room = tempfile::tempdir().unwrap();
    guide::programs(&scratch.path().join("bin"));
    // Where the page's reader is: a copy of the repository, as far as commands look at it.
    let home = scratch.path().join("home");
    std::fs::create_dir_all(home.join("target/release")).unwrap();
    std::fs::copy(everflame::binary(), home.join("target/release/everflame")).unwrap();
    for name in ["deploy", "docs"] {
        std::os::unix::fs::symlink(repository().join(name), home.join(name)).unwrap();
    }
    let script = guide::script(&blocks, scratch.path(), &format!("{ROOM}\n{prepare}"));
    let file = scratch.path().join("page.sh");
    std::fs::write(&file, script).unwrap();
    let path = format!("{}:{}", scratch.path().join("bin").display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--propagation", "private", "bash"]).arg(&file).current_dir(&home);
    command.env("PATH", path).env("ROOM", room.path()).env("SCRATCH", scratch.path());
    let output = finish(&mut command);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{page}: {}\n{text}\n{errors}", output.status);
    Ok((blocks, text))
}
