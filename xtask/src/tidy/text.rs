//! Rules about what stands in a file.

use super::Finding;

/// Lines of a source file at which it should be split by noun…
const LONG: usize = 400;
/// …and at which it must be.
const TOO_LONG: usize = 500;

/// The only places for `unsafe`: the border to the kernel, and one module that maps files.
const UNSAFE_PLACES: [&str; 5] = [
    "crates/agent/src/bpf/",
    "crates/agent/src/sys.rs",
    "crates/agent/src/worker/mapping.rs",
    "crates/server/src/symbols/map.rs",
    "tests/targets/",
];

/// What belongs to one person's machine or to a registry's address, and not to the project:
/// the ordinary clients know where they fetch from.
const FOREIGN: [&str; 9] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("pypi", ".org"),
    concat!("files.python", "hosted.org"),
    concat!("registry.npm", "js.org"),
    concat!("deb.deb", "ian.org"),
    concat!("proxy.go", "lang.org"),
    concat!("repo1.ma", "ven.org"),
];

/// Appends what is wrong with a file.
pub fn check(file: &str, text: &str, findings: &mut Vec<Finding>) {
    let mut add =
        |line: usize, what: &str| findings.push(Finding { file: file.to_owned(), line, what: what.to_owned() });
    if is_foreign_text(file) {
        return;
    }
    let rust = file.ends_with(".rs");
    if rust && !text.starts_with("//!") {
        add(1, "a Rust file begins with //! and says why it exists");
    }
    if is_source(file) && text.lines().count() > TOO_LONG {
        add(0, "more than 500 lines: split it by noun");
    }
    if !text.is_empty() && !text.ends_with('\n') {
        add(text.lines().count(), "the last line has no end");
    }
    let unsafe_allowed = UNSAFE_PLACES.iter().any(|place| file.starts_with(place));
    for (number, line) in text.lines().enumerate() {
        if line.ends_with([' ', '\t', '\r']) {
            add(number + 1, "white space at the end of the line");
        }
        if rust && !unsafe_allowed && has_unsafe(line) {
            add(number + 1, "unsafe belongs into crates/agent/src/bpf or one of the mapping modules");
        }
        if FOREIGN.iter().any(|foreign| line.contains(foreign)) {
            add(number + 1, "a path of one machine or the address of a registry: leave it to the machine");
        }
    }
}

/// Appends what could be better.
pub fn advise(file: &str, text: &str, advice: &mut Vec<Finding>) {
    let lines = text.lines().count();
    if is_source(file) && (LONG + 1..=TOO_LONG).contains(&lines) {
        let what = format!("{lines} lines: consider splitting it by noun");
        advice.push(Finding { file: file.to_owned(), line: 0, what });
    }
}

/// Files that are made or were written by others.
fn is_foreign_text(file: &str) -> bool {
    file.ends_with(".lock")
        || file.ends_with("package-lock.json")
        || file.contains("LICENSE")
        || file.contains("/fixtures/")
        || file.ends_with(".svg")
}

fn is_source(file: &str) -> bool {
    [".rs", ".ts", ".mjs", ".c", ".h", ".cc", ".go"].iter().any(|ending| file.ends_with(ending))
}

/// The word `unsafe` in code: not in a comment, not as part of a lint's name.
fn has_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices("unsafe").any(|(at, word)| {
        let word_like = |c: char| c.is_alphanumeric() || c == '_' || c == '"';
        !code[..at].ends_with(word_like) && !code[at + word.len()..].starts_with(word_like)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(file: &str, text: &str) -> usize {
        let mut findings = Vec::new();
        check(file, text, &mut findings);
        findings.len()
    }

    #[test]
    fn rules_find_what_they_are_for() {
        assert_eq!(findings("crates/a/src/x.rs", "//! Why.\nfn f() {}\n"), 0);
        assert_eq!(findings("crates/a/src/x.rs", "fn f() {}\n"), 1);
        assert_eq!(findings("crates/a/src/x.rs", "//! Why.\nfn f() {} \n"), 1);
        assert_eq!(findings("crates/a/src/x.rs", "//! Why.\nunsafe { f() }\n"), 1);
        assert_eq!(findings("crates/a/src/x.rs", "//! Why.\n#![forbid(unsafe_code)] // no unsafe here\n"), 0);
        assert_eq!(findings("crates/agent/src/bpf/x.rs", "//! Why.\nunsafe { f() }\n"), 0);
        assert_eq!(findings("docs/x.md", concat!("see /wo", "rk/here\n")), 1);
        assert_eq!(findings("crates/a/src/x.rs", &("//! Why.\n".repeat(501))), 1);
        assert_eq!(findings("README.md", "no end"), 1);
    }

    #[test]
    fn long_files_are_advised_about() {
        let mut advice = Vec::new();
        advise("crates/a/src/x.rs", &"//! Why.\n".repeat(450), &mut advice);
        advise("crates/a/src/y.rs", &"//! Why.\n".repeat(400), &mut advice);
        assert_eq!(advice.len(), 1);
    }
}
