//! Makes the symbol index of a file and says what it cost: `index FILE [ADDRESS]...`
//! With addresses (hexadecimal) it prints what they are called instead; `index FILE -o OUT`
//! writes the index.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::Instant;

use everflame_symbols::{Index, IndexLimits, build_index, demangle, inspect};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().expect("say which file: index FILE [ADDRESS]...");
    let elf = std::fs::read(&path).unwrap();
    let start = Instant::now();
    let facts = inspect(&elf).unwrap();
    let inspected = start.elapsed();
    let start = Instant::now();
    let bytes = build_index(&elf, &path, &IndexLimits::default()).unwrap();
    let built = start.elapsed();
    let start = Instant::now();
    let index = Index::parse(&bytes).unwrap();
    let parsed = start.elapsed();
    let mut arguments = arguments.peekable();
    if arguments.next_if_eq("-o").is_some() {
        return std::fs::write(arguments.next().expect("say where to: -o OUT"), bytes).unwrap();
    }
    let addresses: Vec<u64> = arguments.map(|a| u64::from_str_radix(a.trim_start_matches("0x"), 16).unwrap()).collect();
    for &address in &addresses {
        let function = index.lookup(address);
        let name = function.and_then(|f| f.name).map(demangle);
        println!("{address:#x} {:#x?} {name:?}", function.map(|f| (f.start, f.end)));
    }
    if !addresses.is_empty() {
        return;
    }
    let functions: Vec<_> = index.iter().collect();
    // A stride through the file that is no multiple of its size, so as to miss caches.
    let lookups = 1_000_000.min(functions.len() * 64);
    let picked: Vec<u64> =
        (0..lookups).map(|n| functions[n * 7919 % functions.len()]).map(|f| (f.start + f.end) / 2).collect();
    let start = Instant::now();
    let found = picked.iter().filter(|&&address| index.lookup(address).is_some()).count();
    let each = start.elapsed().as_nanos() / picked.len().max(1) as u128;
    let start = Instant::now();
    let demangled: usize = functions.iter().filter_map(|f| f.name).map(|name| demangle(name).len()).sum();
    println!(
        "{path}: {} bytes, content {}, build id {}, go {}\n  inspect {inspected:?}, build {built:?}, parse {parsed:?}\n  \
         index {} bytes, {} functions, {} named, {} refused; {found} of {} look-ups, {each} ns each\n  \
         demangled to {demangled} bytes in {:?}",
        elf.len(),
        facts.content_id,
        facts.build_id,
        facts.is_go,
        bytes.len(),
        index.functions(),
        index.named(),
        index.refused(),
        picked.len(),
        start.elapsed(),
    );
}
