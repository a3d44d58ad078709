//! What can be said of the guides without running them: no block is without a place where it is
//! tried, what they name is there, and every line of `doctor` has its entry.

use std::collections::BTreeSet;
use std::process::Command;

use everflame_tests::guide::{self, Block, PAGES};
use everflame_tests::machine::{output, repository};

/// Where blocks are tried: on this machine, on the cluster of `make test-kubernetes`, against AWS's
/// API, as names of make's targets, as what `deploy/` renders, by what judges a configuration.
const TIERS: [&str; 7] = ["machine", "cluster", "aws", "make", "rendered", "promtool", "collector"];

fn all() -> impl Iterator<Item = Block> {
    PAGES.into_iter().filter(|page| repository().join(page).try_exists().unwrap()).flat_map(guide::blocks)
}

/// Whoever adds a command says where it is tried.
#[test]
fn every_block_is_tried_somewhere() {
    for block in all().filter(|block| !["", "text"].contains(&block.language.as_str())) {
        let at = format!("{}:{}", block.page, block.line);
        assert!(TIERS.contains(&block.tier.as_str()), "{at} is tried nowhere: write ```sh test=machine, or {TIERS:?}");
        assert!(["", "stays", "stopped"].contains(&block.manner.as_str()), "{at}: `{}` is no manner", block.manner);
        if block.language == "sh" {
            output(Command::new("bash").args(["-n", "-c", &block.text]));
        }
    }
}

#[test]
fn targets_of_make_are_there() {
    let makefile = std::fs::read_to_string(repository().join("Makefile")).unwrap();
    for block in all().filter(|block| block.tier == "make") {
        for line in block.text.lines() {
            let words = line.split('#').next().unwrap().split_whitespace();
            for target in words.skip_while(|word| *word != "make").skip(1).filter(|word| !word.contains('=')) {
                let there = makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
                assert!(there, "{}:{}: make has no {target}", block.page, block.line);
            }
        }
    }
}

/// Options of the script are options of the script.
#[test]
fn options_of_the_script_are_there() {
    let help = output(Command::new(repository().join("deploy/deploy.sh")).arg("--help"));
    let mut seen = 0;
    for block in all() {
        let text = block.text.replace("\\\n", " ");
        for line in text.lines().filter(|line| line.contains("deploy/deploy.sh")) {
            let words = line.split_whitespace().filter(|word| word.starts_with("--"));
            for word in words {
                seen += 1;
                assert!(help.contains(&format!("  {word} ")), "{}:{}: {word}", block.page, block.line);
            }
        }
    }
    assert!(seen >= 3, "{seen}");
}

/// Links between pages lead to files and headings that are there.
#[test]
fn links_lead_somewhere() {
    for page in PAGES.into_iter().chain(["README.md", "deploy/README.md"]) {
        let path = repository().join(page);
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            if file.contains("://") {
                continue;
            }
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.try_exists().unwrap(), "{page}: {link} leads nowhere");
            if !heading.is_empty() {
                let there = headings(&std::fs::read_to_string(&target).unwrap());
                assert!(there.contains(heading), "{page}: {link}: there are {there:?}");
            }
        }
    }
}

/// Headings as addresses, as GitHub makes them.
fn headings(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| line.starts_with('#'));
    let slug = |line: &str| -> String {
        let line = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        line.chars().filter(|c| c.is_alphanumeric() || *c == '-' || *c == '_').collect()
    };
    lines.map(slug).collect()
}

/// Each check of `doctor`, by the sources: which of them a machine shows depends on the machine.
#[test]
fn every_check_of_doctor_has_its_entry() {
    let guide = std::fs::read_to_string(repository().join("docs/troubleshooting.md")).unwrap();
    let entries = guide.split_once("## Every line of `doctor`").expect("the table").1;
    let folder = repository().join("crates/everflame/src/doctor");
    let mut sources: String =
        std::fs::read_dir(folder).unwrap().map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    sources += &std::fs::read_to_string(repository().join("crates/agent/src/rights.rs")).unwrap();
    let check =
        regex::Regex::new(r#"Check::(?:ok|warn|fail)\(\s*"([a-z-]+)"|\("([a-z]+)", Module::|name: "(CAP_[A-Z_]+)""#)
            .unwrap();
    let found = check.captures_iter(&sources).filter_map(|c| c.iter().skip(1).flatten().next());
    let names: BTreeSet<&str> = found.map(|name| name.as_str()).collect();
    assert!(names.len() >= 23, "{names:?}");
    let missing: Vec<&&str> = names.iter().filter(|name| !entries.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/troubleshooting.md has no entry for {missing:?}");
    let rows = entries.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let said: BTreeSet<&str> = rows.flat_map(|row| row.split('`').skip(1).step_by(2)).collect();
    let gone: Vec<&&str> = said
        .iter()
        .filter(|name| **name != "doctor" && **name != "warn" && **name != "fail" && !names.contains(*name))
        .collect();
    assert!(gone.is_empty(), "docs/troubleshooting.md explains checks that are not there: {gone:?}");
}
