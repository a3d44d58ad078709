//! The guides in `docs/`, as far as a machine can read them: their fenced blocks, and where each
//! is to be run. What stands behind a block's language says it: `sh test=machine`. What follows
//! after a comma: `stays` is a command that runs until the page ends or until a block that is
//! `stopped`, before which a reader presses Ctrl-C.

use std::path::Path;
use std::process::Command;

use crate::machine::{self, repository};

/// The pages whose every block is run or judged by a test.
pub const PAGES: [&str; 4] =
    ["docs/quick-start.md", "docs/integration.md", "docs/operations.md", "docs/troubleshooting.md"];

/// A fenced block.
#[derive(Debug, Clone)]
pub struct Block {
    /// Its page.
    pub page: &'static str,
    /// The line of its fence.
    pub line: usize,
    /// What it is written in; empty for what a program prints.
    pub language: String,
    /// Where it is tried: what follows `test=`.
    pub tier: String,
    /// What follows the tier.
    pub manner: String,
    /// What is in it, without the indentation of its fence.
    pub text: String,
}

/// All blocks of a page, in order.
pub fn blocks(page: &'static str) -> Vec<Block> {
    let text = std::fs::read_to_string(repository().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
    let (mut blocks, mut open): (Vec<Block>, Option<(usize, Block)>) = (Vec::new(), None);
    for (index, line) in text.lines().enumerate() {
        let indentation = line.len() - line.trim_start().len();
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take().map(|(_, block)| block)),
            (Some(info), None) => {
                let (language, rest) = info.split_once(' ').unwrap_or((info, ""));
                let (tier, manner) = rest
                    .strip_prefix("test=")
                    .unwrap_or("")
                    .split_once(',')
                    .map_or_else(|| (rest.strip_prefix("test=").unwrap_or(""), ""), |(tier, manner)| (tier, manner));
                let [language, tier, manner] = [language, tier, manner].map(str::to_owned);
                open =
                    Some((indentation, Block { page, line: index + 1, language, tier, manner, text: String::new() }));
            }
            (None, Some((indentation, block))) => {
                block.text.push_str(line.get(*indentation..).unwrap_or("").trim_end());
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{page}: a block is not closed");
    blocks
}

/// The blocks of a page that are tried in one place.
pub fn of_tier(page: &'static str, tier: &str) -> Vec<Block> {
    blocks(page).into_iter().filter(|block| block.tier == tier).collect()
}

/// Waits for what a `stays` block starts: a port that is forwarded, a server, an agent.
const READY: &str = r#"
ready() {
    for _ in $(seq 600); do
        grep -qE 'everflame is ready|Forwarding from' "$1" && sleep 6 && return
        curl -sf http://127.0.0.1:4041/readyz >/dev/null && [ -n "$3" ] && sleep 6 && return
        kill -0 "$2" 2>/dev/null || break
        sleep 0.1
    done
    echo "$4 does not start:" >&2; cat "$1" >&2; exit 1
}
stopped() { for pid in "${running[@]}"; do kill -INT -- "-$pid"; done; for pid in "${running[@]}"; do wait "$pid" || { echo "ended with $?" >&2; exit 1; }; done; running=(); }
running=()
trap 'for pid in "${running[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || true; done; wait' EXIT
set -m
"#;

/// The blocks as one script that stops at the first that fails. `folder` is for its logs, and
/// `prepare` comes before all.
pub fn script(blocks: &[Block], folder: &Path, prepare: &str) -> String {
    let mut script = format!("set -euo pipefail\n{READY}\n{prepare}\n");
    for block in blocks {
        let (at, text) = (format!("{}:{}", block.page, block.line), &block.text);
        script.push_str(&format!("echo '## {at}'\n"));
        if block.manner == "stays" {
            let log = folder.join(format!("{}.log", block.line));
            let file = folder.join(format!("{}.sh", block.line));
            std::fs::write(&file, text).unwrap();
            let (file, log) = (file.display(), log.display());
            let agent = if text.contains("everflame agent") { "yes" } else { "" };
            script.push_str(&format!(
                "bash -e {file} >{log} 2>&1 </dev/null &\nrunning+=($!)\nready {log} $! '{agent}' '{at}'\n"
            ));
        } else {
            if block.manner == "stopped" {
                script.push_str("stopped\n");
            }
            script.push_str(&format!("{text}\n"));
        }
    }
    script
}

/// The parts of a script's output, by the place of their blocks.
pub fn printed<'a>(output: &'a str, block: &Block) -> &'a str {
    let head = format!("## {}:{}\n", block.page, block.line);
    let rest = output.split_once(&head).unwrap_or_else(|| panic!("{head} was not run:\n{output}")).1;
    rest.split_once("\n## ").map_or(rest, |(part, _)| part)
}

/// Programs by the names that the guides use: ours, and a `sudo` that has nothing to do.
pub fn programs(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    std::os::unix::fs::symlink(crate::everflame::binary(), folder.join("everflame")).unwrap();
    std::fs::write(folder.join("sudo"), "#!/bin/sh\n[ \"$1\" != -E ] || shift\nexec \"$@\"\n").unwrap();
    machine::output(Command::new("chmod").arg("+x").arg(folder.join("sudo")));
}
