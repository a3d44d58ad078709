//! Names as people know them. Mangled names come from files that nobody vouches for,
//! so depth, input and output are bounded; what goes beyond is shown as it is.

use std::{borrow::Cow, fmt};

use cpp_demangle::{BorrowedSymbol, DemangleOptions, ParseOptions};

/// Longest mangled name that is taken apart, in bytes.
pub const LONGEST_MANGLED: usize = 16 << 10;
/// Longest result, in bytes: a short name can stand for an endless one.
pub const LONGEST_DEMANGLED: usize = 64 << 10;

/// Rust (both manglings, without the hash), C++ (with parameters, without the return
/// type that only templates have), Go's generic instances; everything else as it is.
///
/// LLVM's `.llvm.123` marks go; clones stay visible: `f() [clone .cold]`.
pub fn demangle(name: &str) -> Cow<'_, str> {
    let name = without_llvm(name);
    if name.len() > LONGEST_MANGLED {
        return Cow::Borrowed(name);
    }
    let demangled = if name.starts_with("_Z") || name.starts_with("__Z") || name.starts_with("_R") {
        rust(name).or_else(|| cpp(name))
    } else {
        go_instance(name)
    };
    demangled.map_or(Cow::Borrowed(name), Cow::Owned)
}

/// Link-time optimisation marks what it made global: `f.llvm.5390254`.
fn without_llvm(name: &str) -> &str {
    match name.rsplit_once(".llvm.") {
        Some((before, mark)) if !before.is_empty() && mark.bytes().all(|b| b.is_ascii_hexdigit()) => before,
        _ => name,
    }
}

fn rust(name: &str) -> Option<String> {
    use fmt::Write;
    let demangled = rustc_demangle::try_demangle(name).ok()?;
    let mut out = Bounded::default();
    write!(out, "{demangled:#}").ok()?;
    Some(out.text)
}

fn cpp(name: &str) -> Option<String> {
    // Depths at which neither step can overflow the 2 MiB stack of a thread.
    let parsing = ParseOptions::default().recursion_limit(192);
    let symbol = BorrowedSymbol::new_with_options(name.as_bytes(), &parsing).ok()?;
    let mut out = Bounded::default();
    symbol.structured_demangle(&mut out, &DemangleOptions::new().no_return_type().recursion_limit(256)).ok()?;
    Some(out.text)
}

/// Go prints `main.Map[...]` for `main.Map[go.shape.int,go.shape.string]`.
fn go_instance(name: &str) -> Option<String> {
    let (before, _) = name.split_once("[go.shape.")?;
    let (_, after) = name.rsplit_once(']')?;
    Some(format!("{before}[...]{after}"))
}

/// Text that refuses to grow beyond the limit.
#[derive(Debug, Default)]
struct Bounded {
    text: String,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if self.text.len() + part.len() > LONGEST_DEMANGLED {
            return Err(fmt::Error);
        }
        self.text.push_str(part);
        Ok(())
    }
}
