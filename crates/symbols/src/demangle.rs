//! Names as people know them. Mangled names come from files that nobody vouches for,
//! so depth, input and output are bounded; what goes beyond is shown as it is.

use std::{borrow::Cow, fmt};

use crate::cpp;

/// Longest mangled name that is taken apart, in bytes.
pub const LONGEST_MANGLED: usize = 16 << 10;
/// Longest result, in bytes: a short name can stand for an endless one.
pub const LONGEST_DEMANGLED: usize = 64 << 10;

/// Rust (both manglings, without the hash), C++ (with parameters, without the return
/// type that only templates have), Go's generic instances; everything else as it is.
///
/// LLVM's `.llvm.123` marks go; clones stay visible: `f() [clone .cold]`.
pub fn demangle(name: &str) -> Cow<'_, str> {
    if let Some(target) = name.strip_suffix("@plt") {
        return Cow::Owned(format!("{}@plt", plain(target)));
    }
    plain(name)
}

fn plain(name: &str) -> Cow<'_, str> {
    let name = without_llvm(name);
    if name.len() > LONGEST_MANGLED {
        return Cow::Borrowed(name);
    }
    let demangled = if name.starts_with("_R") || has_rust_hash(name) {
        rust(name)
    } else if name.starts_with("_Z") || name.starts_with("__Z") {
        cpp::demangle(name, LONGEST_DEMANGLED)
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

/// Rust's older mangling is C++'s with a hash as the last part: `17h` and 16 digits.
fn has_rust_hash(name: &str) -> bool {
    let hash = name.rfind("17h").and_then(|at| name.get(at + 3..at + 20));
    name.starts_with("_ZN")
        && hash.is_some_and(|hash| hash.ends_with('E') && hash.bytes().take(16).all(|b| b.is_ascii_hexdigit()))
}

fn rust(name: &str) -> Option<String> {
    use fmt::Write;
    let demangled = rustc_demangle::try_demangle(name).ok()?;
    let mut out = Bounded::default();
    write!(out, "{demangled:#}").ok()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_in_its_own_words() {
        let cases = [
            ("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE", "core::fmt::Formatter::pad"),
            ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
            ("_RNvNtCsdiDFQvrRuA7_4core3fmt5write.llvm.12345", "core::fmt::write"),
            ("_ZN4shop4CartIiLi3EE5totalEv", "shop::Cart<int, 3>::total()"),
            ("_ZSt4sortIPiEvT_S1_", "std::sort<int*>(int*, int*)"),
            ("_ZN6icu_7812_GLOBAL__N_111gCategoriesE", "icu_78::(anonymous namespace)::gCategories"),
            ("_ZNSt6vectorIiSaIiEED1Ev", "std::vector<int, std::allocator<int> >::~vector()"),
            ("_ZN1AC1IiEET_", "A::A<int>(int)"),
            ("_ZN1AcvT_IiEEv", "A::operator int<int>()"),
            ("_Z1fIJidEEvDpRKT_", "f<int, double>(int const&, double const&)"),
            ("_Z1fPFivEPA3_cM1AKFvvE", "f(int (*)(), char (*) [3], void (A::*)() const)"),
            ("_ZZ4mainENKUlT_E_clIiEEDaS_", "main::{lambda(auto:1)#1}::operator()<int>(auto:1) const"),
            ("_ZTV4Shop", "vtable for Shop"),
            ("_ZThn16_N1A1fEv", "non-virtual thunk to A::f()"),
            ("_ZNKR1A1fEv", "A::f() const &"),
            ("_ZN3foo3barEi.cold", "foo::bar(int) [clone .cold]"),
            ("_ZN3foo3barEi.isra.0.llvm.5390254", "foo::bar(int) [clone .isra.0]"),
            ("do_work.constprop.0", "do_work.constprop.0"),
            ("do_work.llvm.99887766", "do_work"),
            ("main.Map[go.shape.int,go.shape.string]", "main.Map[...]"),
            ("main.(*Cart).Total", "main.(*Cart).Total"),
            ("memcpy", "memcpy"),
            ("memcpy@plt", "memcpy@plt"),
            ("_Znwm@plt", "operator new(unsigned long)@plt"),
            ("", ""),
            ("_Z", "_Z"),
            ("_ZN", "_ZN"),
            ("_R", "_R"),
            (".llvm.1", ".llvm.1"),
        ];
        for (mangled, shown) in cases {
            assert_eq!(demangle(mangled), shown, "{mangled}");
        }
    }

    #[test]
    fn endless_names_are_shown_as_they_are() {
        // Each substitution doubles what the one before it stands for.
        let mut doubling = String::from("_Z1fI1aE");
        for n in 0..200u32 {
            doubling.push_str(&format!("1bIS{0}_S{0}_E", char::from_digit(n % 36, 36).unwrap().to_ascii_uppercase()));
        }
        let deep_pointer = format!("_Z1f{}i", "P".repeat(15_000));
        let deep_template = format!("_Z1f{}i{}", "1aI".repeat(5_000), "E".repeat(5_000));
        let deep_rust = format!("_R{}C1a", "Nv".repeat(8_000));
        let long = format!("_Z{0}{1}v", 100_000, "x".repeat(100_000));
        // Kept a demangler that goes back on failure busy for a minute.
        let literals = format!("_ZN1aI1bE1cEPF{}{}", "14HashtableEntryIS0_L".repeat(60), "E".repeat(60));
        let operators = format!("_Z1fIX{}Li1EEEvv", "plngde".repeat(2_000));
        for name in [doubling, deep_pointer, deep_template, deep_rust, long, literals, operators] {
            assert!(demangle(&name).len() <= LONGEST_DEMANGLED.max(name.len()));
        }
    }

    #[test]
    fn a_thread_with_a_small_stack_is_enough() {
        let shapes: [fn(usize) -> String; 4] = [
            |n| format!("_Z1f{}i", "P".repeat(n)),
            |n| format!("_Z1f{}i{}", "1aI".repeat(n), "E".repeat(n)),
            |n| format!("_Z1f{}i{}", "PF".repeat(n), "E".repeat(n)),
            |n| format!("_Z1fIX{}Li1E{}EEvv", "ps".repeat(n), ""),
        ];
        let work = move || {
            for depth in [1, 50, 90, 95, 120, 180, 190, 191, 250, 255, 300] {
                shapes.iter().for_each(|shape| drop(demangle(&shape(depth)).into_owned()));
            }
        };
        std::thread::Builder::new().stack_size(1 << 20).spawn(work).unwrap().join().unwrap();
    }
}
