//! Files that lie: mutated real ones and noise. Whatever comes, the answer is an error or a bounded table.
mod common;
use everflame_unwind::layout::ELEMENT_SIZE;
use everflame_unwind::{Limits, convert, function_ranges};
use proptest::prelude::*;
use std::process::Command;
use std::sync::OnceLock;

/// A small real program with sections, symbols, .eh_frame and .debug_frame; and a small Go program where Go is.
fn seeds() -> &'static Vec<Vec<u8>> {
    static SEEDS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let source = "#include <stdio.h>\nint f(int n) { return n < 2 ? n : f(n - 1) + f(n - 2); }\nint main(int c, char **v) { (void)v; printf(\"%d\\n\", f(c)); return 0; }";
        let (file, program) = (directory.path().join("p.c"), directory.path().join("p"));
        std::fs::write(&file, source).expect("written");
        let done = Command::new("cc").args(["-O1", "-g", "-o"]).arg(&program).arg(&file).status();
        assert!(done.expect("cc runs").success());
        let mut seeds = vec![std::fs::read(&program).expect("readable")];
        if let Some(go) = common::go_program("package main\nfunc main() { println(1) }\n", &["-ldflags=-s -w"]) {
            seeds.push(go);
        }
        // A program of musl, whose code is read instruction by instruction.
        let done = Command::new("musl-gcc").args(["-O1", "-static", "-o"]).arg(&program).arg(&file).status();
        if done.is_ok_and(|status| status.success()) {
            seeds.push(std::fs::read(&program).expect("readable"));
        }
        seeds
    })
}

/// Where lies hurt: the headers at both ends, and the tables.
fn tender(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    use object::{Object, ObjectSection};
    let mut places = vec![0..64, 64..1024, bytes.len().saturating_sub(4096)..bytes.len()];
    if let Ok(file) = object::File::parse(bytes) {
        for name in
            [".eh_frame", ".eh_frame_hdr", ".debug_frame", ".gopclntab", ".symtab", ".dynsym", ".go.module", ".text"]
        {
            if let Some((start, size)) = file.section_by_name(name).and_then(|s| s.file_range()) {
                places.push(start as usize..(start + size) as usize);
            }
        }
    }
    places
}

fn check(bytes: &[u8]) {
    let limits = Limits { max_elements: 1 << 16, max_fdes: 1 << 18, max_rows: 1 << 20, ..Limits::default() };
    if let Ok(table) = convert(bytes, &limits) {
        assert_eq!(table.bytes().len() % ELEMENT_SIZE, 0);
        assert_eq!(table.bytes().len() / ELEMENT_SIZE, table.elements() as usize);
        assert!(table.elements() <= limits.max_elements);
        for pc in [0, 1, 0x1000, 0x1139, 0x40_1000, 0x48_0000, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            table.lookup(pc);
        }
    }
    if let Ok(ranges) = function_ranges(bytes) {
        assert!(ranges.iter().all(|(start, end)| start < end));
        assert!(ranges.windows(2).all(|w| w[0].1 <= w[1].0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_programs(
        seed in 0usize..3,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>(), 1usize..9), 1..12),
        cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
    ) {
        let seeds = seeds();
        let mut bytes = seeds[seed % seeds.len()].clone();
        let places = tender(&bytes);
        for (place, at, value, length) in changes {
            let place = place.get(&places).clone();
            let at = place.start + at.index(place.len());
            let end = (at + length).min(bytes.len());
            // Runs of 0x00 and 0xff make huge counts and sizes.
            bytes[at..end].fill(match value { 0..=63 => 0xff, 64..=127 => 0, other => other });
        }
        if let Some(cut) = cut {
            let length = cut.index(bytes.len());
            bytes.truncate(length);
        }
        check(&bytes);
    }

    #[test]
    fn noise_behind_a_good_header(noise in prop::collection::vec(any::<u8>(), 0..4096)) {
        let mut bytes = seeds()[0][..64.min(seeds()[0].len())].to_vec();
        bytes.extend(noise);
        check(&bytes);
    }

    #[test]
    fn noise_as_unwind_data(noise in prop::collection::vec(any::<u8>(), 1..2048)) {
        use object::{Object, ObjectSection};
        let mut bytes = seeds()[0].clone();
        let file = object::File::parse(&*seeds()[0]).expect("ELF");
        let range = file.section_by_name(".eh_frame").and_then(|s| s.file_range()).expect("it has one");
        let place = &mut bytes[range.0 as usize..(range.0 + range.1) as usize];
        // Behind the first CIE, so that the noise is read as FDEs of a real one.
        for (slot, byte) in place[24..].iter_mut().zip(noise) {
            *slot = byte;
        }
        check(&bytes);
    }

    #[test]
    fn noise(noise in prop::collection::vec(any::<u8>(), 0..256)) {
        check(&noise);
    }
}

/// One section with nothing but the given entries, mapped at 0x10000, code at 0x400000.
fn program(eh_frame: &[u8], code: usize, code_address: u64) -> Vec<u8> {
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    out.extend(2u16.to_le_bytes());
    out.extend(62u16.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    for word in [code_address, 64, 64 + 3 * 56] {
        out.extend(word.to_le_bytes());
    }
    out.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 3, 64, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    let header = 64 + 3 * 56;
    let hdr = [1u8, 0x00, 0xff, 0xff];
    let frame_at = 0x10000u64;
    let mut segment = |kind: u32, flags: u32, offset: usize, address: u64, size: usize| {
        out.extend(kind.to_le_bytes());
        out.extend(flags.to_le_bytes());
        for word in [offset as u64, address, address, size as u64, size as u64, 1] {
            out.extend(word.to_le_bytes());
        }
    };
    let data = 12 + eh_frame.len();
    segment(1, 4, header, frame_at, data);
    segment(1, 5, header + data, code_address, code);
    segment(0x6474_e550, 4, header, frame_at, 12);
    out.extend(hdr);
    out.extend((frame_at + 12).to_le_bytes());
    out.extend(eh_frame);
    out.extend(std::iter::repeat_n(0xcc, code));
    // No sections.
    out[40..48].fill(0);
    out
}

fn entry(id: u32, body: &[u8]) -> Vec<u8> {
    let mut out = ((body.len() + 4) as u32).to_le_bytes().to_vec();
    out.extend(id.to_le_bytes());
    out.extend(body);
    out
}

/// Version 1, no augmentation, code align 1, data align -8, RA 16; then `instructions`.
fn cie(instructions: &[u8]) -> Vec<u8> {
    let mut body = vec![1, 0, 1, 0x78, 16];
    body.extend(instructions);
    entry(0, &body)
}

const STANDARD: [u8; 5] = [0x0c, 7, 8, 0x90, 1];

fn fde(at: usize, start: u64, length: u64, instructions: &[u8]) -> Vec<u8> {
    let mut body = start.to_le_bytes().to_vec();
    body.extend(length.to_le_bytes());
    body.extend(instructions);
    entry(at as u32 + 4, &body)
}

#[test]
fn the_made_up_program_is_a_good_one() {
    let mut frames = cie(&STANDARD);
    let at = frames.len();
    frames.extend(fde(at, 0x40_0010, 0x20, &[0x41, 0x0e, 16]));
    let table = convert(&program(&frames, 0x100, 0x40_0000), &Limits::default()).expect("a table");
    assert_eq!(table.lookup(0x40_0010).cfa_offset, 8);
    assert_eq!(table.lookup(0x40_0011).cfa_offset, 16);
    assert_eq!(table.stats().malformed, 0);
}

#[test]
fn addresses_at_the_end_of_the_address_space() {
    let top = u64::MAX - 0xff;
    let mut frames = cie(&STANDARD);
    for (start, length) in [(top, u64::MAX), (u64::MAX - 1, 1), (u64::MAX, u64::MAX), (0, u64::MAX), (top + 0x10, 0)] {
        let at = frames.len();
        frames.extend(fde(at, start, length, &[0x44, 0x0e, 16, 0x04, 0xff, 0xff, 0xff, 0xff, 0x0e, 24]));
    }
    check(&program(&frames, 0x100, top));
    check(&program(&frames, 0x1000, top));
}

#[test]
fn deep_nesting_and_unbalanced_restores_end_a_function_not_the_table() {
    let mut frames = cie(&STANDARD);
    let at = frames.len();
    frames.extend(fde(at, 0x40_0000, 0x10, &[0x0a; 4000]));
    let at = frames.len();
    frames.extend(fde(at, 0x40_0010, 0x10, &[0x41, 0x0b]));
    let at = frames.len();
    frames.extend(fde(at, 0x40_0020, 0x10, &[0x41, 0x0a, 0x0e, 16, 0x41, 0x0b]));
    let table = convert(&program(&frames, 0x100, 0x40_0000), &Limits::default()).expect("a table");
    assert_eq!(table.stats().malformed, 2);
    assert_eq!(table.lookup(0x40_0000).cfa, everflame_unwind::layout::cfa::UNSUPPORTED);
    assert_eq!(table.lookup(0x40_0010).cfa_offset, 8);
    assert_eq!(table.lookup(0x40_0011).cfa, everflame_unwind::layout::cfa::UNSUPPORTED);
    assert_eq!([0, 1, 2].map(|at| table.lookup(0x40_0020 + at).cfa_offset), [8, 16, 8]);
}

#[test]
fn many_overlapping_cies_cost_no_more_than_the_section() {
    // One long CIE whose instructions are made of the heads of further CIEs, each as long as what is left.
    let count = 60_000usize;
    let mut frames = Vec::new();
    for i in 0..count {
        let left = (count - i) * 16 - 4;
        let mut head = (left as u32).to_le_bytes().to_vec();
        head.extend(0u32.to_le_bytes());
        head.extend([1, 0, 1, 0x78, 16, 0, 0, 0]);
        frames.extend(head);
    }
    for i in 0..count {
        let (at, start) = (frames.len(), 0x40_0000 + i as u64);
        frames.extend(fde(at + 4 - i * 16 - 4, start, 1, &[]));
    }
    check(&program(&frames, 1 << 17, 0x40_0000));
}

#[test]
fn more_rules_than_can_be_numbered_are_given_up_and_said() {
    let mut frames = cie(&STANDARD);
    let mut instructions = Vec::new();
    for i in 0..70_000u32 {
        // def_cfa_offset with ever new values
        instructions.extend([0x0e, 0x80 | (i & 0x7f) as u8, 0x80 | (i >> 7 & 0x7f) as u8, (i >> 14) as u8, 0x41]);
    }
    let at = frames.len();
    frames.extend(fde(at, 0x40_0000, 70_000, &instructions));
    let table = convert(&program(&frames, 70_000, 0x40_0000), &Limits::default()).expect("a table");
    assert_eq!(table.stats().rules, 65_535);
    let given_up = (0x40_0000..0x40_0000 + 70_000)
        .filter(|pc| table.lookup(*pc).cfa == everflame_unwind::layout::cfa::UNSUPPORTED)
        .count();
    assert!(given_up >= 70_000 - 65_535, "{given_up}");
    assert!((0x40_0000..0x40_1000).any(|pc| table.lookup(pc).cfa_offset == (pc - 0x40_0000) as i32));
}
