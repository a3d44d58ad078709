//! Bytes that nobody vouches for: whatever they are, the answer is an error or
//! something bounded, and what was accepted once never panics later.
#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;

use everflame_symbols::{Index, IndexLimits, build_index, demangle, inspect, kallsyms::KernelSymbols};
use proptest::prelude::*;

/// Small real executables: C with many symbol kinds, and a Go program's tables.
static ELVES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut elves =
        vec![std::fs::read("/lib/x86_64-linux-gnu/libm.so.6").or_else(|_| std::fs::read("/lib64/libm.so.6"))];
    elves.push(std::fs::read(std::env::current_exe().unwrap()));
    elves.push(std::fs::read("/usr/local/go/bin/gofmt").or_else(|_| std::fs::read("/usr/lib/go/bin/gofmt")));
    elves.into_iter().flatten().collect()
});

/// The index of libm: 1,000 functions.
static INDEX: LazyLock<Vec<u8>> =
    LazyLock::new(|| build_index(&ELVES[0], "libm.so.6", &IndexLimits::default()).unwrap());

/// Small enough that a bloated answer is seen.
fn limits() -> IndexLimits {
    IndexLimits { symbols: 20_000, functions: 50_000, longest_name: 4096, name_bytes: 4 << 20, index_bytes: 8 << 20 }
}

fn use_elf(elf: &[u8]) {
    if let Ok(facts) = inspect(elf) {
        assert!(facts.build_id.len() <= 128);
    }
    if let Ok(bytes) = build_index(elf, "hostile", &limits()) {
        assert!(bytes.len() <= limits().index_bytes);
        let index = Index::parse(bytes).expect("an index that was just made is sound");
        use_index(&index);
    }
}

fn use_index<B: AsRef<[u8]>>(index: &Index<B>) {
    let mut end = 0;
    let mut count = 0;
    for function in index.iter() {
        assert!(function.start >= end && function.start < function.end, "{function:?} after {end:#x}");
        end = function.end;
        count += 1;
        if count % 97 == 0 {
            assert_eq!(index.lookup(function.start), Some(function));
            assert_eq!(index.lookup(function.end - 1), Some(function));
            function.name.map(demangle);
        }
    }
    assert_eq!(count, index.functions());
    for address in [0, 1, 0x1000, end, end.wrapping_add(1), u64::MAX] {
        index.lookup(address);
    }
    let _ = (index.name(), index.build_id(), index.named());
}

/// Where damage does most: headers, section table, dynamic tables.
fn places(length: usize) -> impl Strategy<Value = usize> {
    prop_oneof![0..64usize, 64..1024usize, length.saturating_sub(4096)..length, 0..length]
}

fn damaged() -> impl Strategy<Value = Vec<u8>> {
    (0..ELVES.len()).prop_flat_map(|which| {
        let length = ELVES[which].len();
        let value = prop_oneof![Just(0u64), Just(u64::MAX), Just(u64::from(u32::MAX)), any::<u64>(), 0..length as u64];
        let change = (places(length), value, 1..=8usize);
        (prop::collection::vec(change, 1..12), prop::option::of(0..length)).prop_map(move |(changes, cut)| {
            let mut elf = ELVES[which].clone();
            for (at, value, size) in changes {
                let end = (at + size).min(elf.len());
                let at = at.min(end);
                elf[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
            }
            elf.truncate(cut.unwrap_or(length));
            elf
        })
    })
}

/// With packs, lambdas, local names, expressions, conversions, functions of functions.
const CPP_NAMES: &[&str] = &[
    "NSt8_Rb_treeIjSt4pairIKjmESt10_Select1stIS2_ESt4lessIjESaIS2_EE22_M_emplace_hint_uniqueIJRKSt21piecewise_construct_tSt5tupleIJRS1_EESD_IJEEEEESt17_Rb_tree_iteratorIS2_ESt23_Rb_tree_const_iteratorIS2_EDpOT_",
    "ZZN4node9inspector5AgentC1EPNS_11EnvironmentEENKUlvE_clEvENUlT_E0_8__invokeIiEEDaS5_",
    "N1AcvT_IiEEv",
    "St9__find_ifIPPFiPA3_cM1AKFvvEENS_1BIXplL_Z1gvELi3EEEET_S7_S7_DTclfp_spfp0_EE",
    "Thn16_NKR2v88internal4wasm12_GLOBAL__N_14FooD0Ev.isra.0.cold",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_elf(elf in damaged()) {
        use_elf(&elf);
    }

    #[test]
    fn noise_behind_a_magic(mut noise in prop::collection::vec(any::<u8>(), 0..4096)) {
        noise.splice(..noise.len().min(6), *b"\x7fELF\x02\x01");
        use_elf(&noise);
    }

    #[test]
    fn damaged_index(changes in prop::collection::vec((0..INDEX.len(), any::<u8>()), 1..6), sum in any::<bool>()) {
        let mut bytes = INDEX.clone();
        for (at, value) in changes {
            bytes[at] = value;
        }
        if sum {
            // Damage that carries a right checksum, so that the check itself is tried.
            let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[24..]).to_le_bytes();
            bytes[16..24].copy_from_slice(&checksum);
        }
        if let Ok(index) = Index::parse(bytes) {
            use_index(&index);
        }
    }

    #[test]
    fn header_counts_that_lie(field in 0..18usize, value in prop_oneof![Just(u32::MAX), Just(0), any::<u32>()]) {
        let mut bytes = INDEX.clone();
        bytes[24 + field * 4..28 + field * 4].copy_from_slice(&value.to_le_bytes());
        let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[24..]).to_le_bytes();
        bytes[16..24].copy_from_slice(&checksum);
        if let Ok(index) = Index::parse(bytes) {
            use_index(&index);
        }
    }

    #[test]
    fn any_name(name in "(_Z|_ZN|_R|)[0-9A-Za-z_.$]{0,200}") {
        demangle(&name);
    }

    #[test]
    fn damaged_cpp_name(
        seed in prop::sample::select(CPP_NAMES.to_vec()),
        changes in prop::collection::vec((0..400usize, 0..400usize, 0..80usize, any::<u8>()), 1..6),
    ) {
        let mut name = seed.to_owned().into_bytes();
        for (at, from, length, letter) in changes {
            let (at, from) = (at % name.len(), from % name.len());
            let part = name[from..(from + length).min(name.len())].to_vec();
            name.splice(at..at, part);
            name[at] = b"IEJXSTNPKRFLDZlnstcvpr0123456789_"[usize::from(letter) % 33];
        }
        let name = format!("_Z{}", String::from_utf8(name).unwrap());
        prop_assert!(demangle(&name).len() <= everflame_symbols::LONGEST_DEMANGLED.max(name.len()));
    }

    #[test]
    fn any_kallsyms(text in "([0-9a-f]{1,17} [TtWD] [a-z]{0,9}(\t\\[[a-z]{1,3}\\])?\n){0,40}", address in any::<u64>()) {
        if let Ok(symbols) = KernelSymbols::parse(&text, Some(&text)) {
            symbols.resolve(address);
        }
    }
}

#[test]
fn every_length_of_a_real_file() {
    let elf = &ELVES[0];
    for end in (0..elf.len()).step_by(elf.len() / 300 + 1).chain(0..200) {
        use_elf(&elf[..end]);
    }
}

#[test]
fn every_length_of_an_index() {
    for end in (0..INDEX.len()).step_by(61) {
        assert!(Index::parse(&INDEX[..end]).is_err());
    }
    let mut longer = INDEX.clone();
    longer.push(0);
    assert!(Index::parse(longer).is_err());
}

/// An ELF file, without names of sections, with one code segment and a symbol table of `symbols` rows that all
/// name the same string of `name` bytes, each from another place in it.
fn overlapping_names(symbols: usize, name: usize) -> Vec<u8> {
    let mut elf = vec![0u8; 64];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    let put = |elf: &mut Vec<u8>, at: usize, value: u64, size: usize| {
        elf[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
    };
    let program_header = 64;
    elf.resize(program_header + 56, 0);
    put(&mut elf, 32, program_header as u64, 8);
    put(&mut elf, 54, 56, 2);
    put(&mut elf, 56, 1, 2);
    put(&mut elf, program_header, 1, 4);
    put(&mut elf, program_header + 4, 5, 4);
    put(&mut elf, program_header + 40, 1 << 40, 8);
    let strings = elf.len();
    elf.extend(std::iter::repeat_n(b'x', name));
    elf.push(0);
    let rows = elf.len();
    for number in 0..symbols {
        let mut row = [0u8; 24];
        row[..4].copy_from_slice(&((number % name) as u32).to_le_bytes());
        row[4] = 0x12;
        row[6] = 1;
        row[8..16].copy_from_slice(&(0x1000 + number as u64 * 16).to_le_bytes());
        elf.extend_from_slice(&row);
    }
    let sections = elf.len();
    elf.resize(sections + 3 * 64, 0);
    put(&mut elf, 40, sections as u64, 8);
    put(&mut elf, 58, 64, 2);
    put(&mut elf, 60, 3, 2);
    for (number, kind, at, size, link) in [(1, 2u64, rows, symbols * 24, 2u64), (2, 3, strings, name + 1, 0)] {
        let header = sections + number * 64;
        put(&mut elf, header + 4, kind, 4);
        put(&mut elf, header + 24, at as u64, 8);
        put(&mut elf, header + 32, size as u64, 8);
        put(&mut elf, header + 40, link, 4);
    }
    elf
}

#[test]
fn names_that_overlap_are_bounded_and_counted() {
    let elf = overlapping_names(300_000, 60_000);
    let limits = IndexLimits { symbols: 1 << 20, functions: 1 << 20, ..limits() };
    let index = Index::parse(build_index(&elf, "hostile", &limits).unwrap()).unwrap();
    assert!(index.named() > 0 && index.refused() > 200_000, "{} named, {} refused", index.named(), index.refused());
}

#[test]
fn too_much_is_an_error_that_says_so() {
    let elf = overlapping_names(1000, 10);
    let few = IndexLimits { functions: 999, ..limits() };
    assert!(build_index(&elf, "x", &few).unwrap_err().to_string().contains("999"));
    let small = IndexLimits { index_bytes: 1000, ..limits() };
    assert!(build_index(&elf, "x", &small).unwrap_err().to_string().contains("1000"));
    let symbols = IndexLimits { symbols: 10, ..limits() };
    let index = Index::parse(build_index(&elf, "x", &symbols).unwrap()).unwrap();
    assert_eq!((index.functions(), index.refused()), (10, 990));
}

#[test]
fn two_files_with_one_build_id_have_two_contents() {
    let elf = &ELVES[0];
    let facts = inspect(elf).unwrap();
    assert!(!facts.build_id.is_empty());
    let name = elf.windows(5).position(|w| w == b"cosh\0").unwrap();
    let mut other = elf.clone();
    other[name] ^= 1;
    let changed = inspect(&other).unwrap();
    assert_eq!(changed.build_id, facts.build_id);
    assert_ne!(changed.content_id, facts.content_id);
}

#[test]
fn functions_beyond_4_gib_are_refused() {
    let mut elf = overlapping_names(4, 10);
    let rows = 64 + 56 + 11;
    for (number, address) in [0x1000u64, 0x2000, 1 << 33, 1 << 34].into_iter().enumerate() {
        elf[rows + number * 24 + 8..rows + number * 24 + 16].copy_from_slice(&address.to_le_bytes());
    }
    let index = Index::parse(build_index(&elf, "x", &limits()).unwrap()).unwrap();
    assert_eq!((index.functions(), index.refused()), (2, 2));
    assert_eq!(index.lookup(0x2000).unwrap().start, 0x2000);
    assert_eq!(index.lookup(1 << 33), None);
}

#[test]
fn whatever_names_are_read_from_is_in_the_content_id() {
    // Headers (kinds and links of sections, the entry), symbols, strings, relocations,
    // stubs: a file that differs in one byte of them must not pass for the other one.
    let elf = overlapping_names(16, 64);
    let id = inspect(&elf).unwrap().content_id;
    for at in (0..elf.len()).filter(|&at| !(6..16).contains(&at)) {
        let mut other = elf.clone();
        other[at] ^= 1;
        if let Ok(facts) = inspect(&other) {
            assert_ne!(facts.content_id, id, "byte {at}");
        }
    }
}
