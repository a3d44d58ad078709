//! Demangles names, one a line, from standard input.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

fn main() {
    let mut out = String::new();
    for line in std::io::stdin().lines() {
        out.push_str(&everflame_symbols::demangle(&line.unwrap()));
        out.push('\n');
    }
    print!("{out}");
}
