//! The running kernel's own symbols. Needs root, or readable addresses in
//! `/proc/kallsyms`; says so where they are hidden.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use everflame_symbols::{
    Error,
    kallsyms::{KernelSymbols, VMLINUX},
};

#[test]
fn this_kernel() {
    let text = std::fs::read_to_string("/proc/kallsyms").unwrap();
    let modules = std::fs::read_to_string("/proc/modules").ok();
    let symbols = match KernelSymbols::parse(&text, modules.as_deref()) {
        Err(Error::AddressesHidden) => return eprintln!("SKIPPED: the kernel hides its addresses; run as root"),
        symbols => symbols.unwrap(),
    };
    let mut checked = 0;
    let mut names_at = std::collections::BTreeMap::<u64, Vec<&str>>::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if matches!(words[1], "T" | "t" | "W" | "w")
            && !words[2].starts_with("__pfx_")
            && !words[2].starts_with("__cfi_")
        {
            names_at.entry(u64::from_str_radix(words[0], 16).unwrap()).or_default().push(words[2]);
        }
    }
    for (&address, names) in &names_at {
        let Some(symbol) = symbols.resolve(address) else { continue };
        assert_eq!(symbol.offset, 0, "{address:#x} {names:?}");
        assert!(names.contains(&symbol.name), "{address:#x} is called {}, not one of {names:?}", symbol.name);
        checked += 1;
    }
    assert!(checked > 10_000 && checked * 100 > names_at.len() * 99, "{checked} of {}", names_at.len());
    assert!(symbols.memory_bytes() < 6 << 20, "{} bytes", symbols.memory_bytes());
    eprintln!("{} functions in {} bytes", symbols.len(), symbols.memory_bytes());

    let schedule = names_at.iter().find(|(_, names)| names.contains(&"schedule")).unwrap();
    let symbol = symbols.resolve(schedule.0 + 1).unwrap();
    assert_eq!((symbol.name, symbol.module, symbol.offset), ("schedule", VMLINUX, 1));
    if cfg!(target_arch = "x86_64") {
        assert!((0xffff_ffff_8100_0000..0xffff_ffff_c000_0000).contains(&symbol.address), "{:#x}", symbol.address);
    }
}
