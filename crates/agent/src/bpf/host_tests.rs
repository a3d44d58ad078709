//! Stacks made by hand, walked by the step as it is compiled for the host.

use std::{io::Write, mem::offset_of, process::Command};

use everflame_unwind::{Limits, convert, function_ranges, layout};

use super::*;
use crate::sample::UserStack;

const NUMBER: u32 = 19;
const BIAS: u64 = 0x5555_0000_0000;
const TOP: u64 = 0x7fff_ffff_0000;

/// One mapping that holds every address of the executable.
fn mapping() -> [abi::Mapping; 1] {
    [abi::Mapping { start: BIAS, bias: BIAS, pages: 1 << 20, executable: NUMBER }]
}

fn frame(address: u64) -> u64 {
    u64::from(NUMBER) << 44 | address
}

/// A stack, and code of which all that can be said is that it is no beginning and no end of a function.
struct Running<'a>(Piece<'a>);

impl Memory for Running<'_> {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        if address >> 40 == BIAS >> 40 {
            into.fill(0x90);
            return true;
        }
        self.0.read(address, into)
    }
}

/// A stack of frames that stand at `addresses`, leaf first, laid out by the table's rules.
fn stack_of(addresses: &[u64], table: &everflame_unwind::Table) -> Vec<u8> {
    let mut stack = Vec::new();
    for pair in addresses.windows(2) {
        let rule = table.lookup(pair[0]);
        assert_eq!(rule.cfa, layout::cfa::SP);
        let cfa = stack.len() + rule.cfa_offset as usize;
        stack.resize(cfa - 8, 0xaa);
        // The caller stands behind its call: its frame is at the address before.
        stack.extend_from_slice(&(BIAS + pair[1] + 1).to_le_bytes());
    }
    stack.resize(stack.len() + 64, 0xaa);
    stack
}

#[test]
fn walks_a_stack_by_the_tables_of_this_very_program() {
    let elf = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let table = convert(&elf, &Limits::default()).unwrap();
    let entry = u64::from_le_bytes(elf[24..32].try_into().unwrap());
    assert_eq!(table.lookup(entry).cfa, layout::cfa::END, "the entry point is a root");
    let by_sp = |address: &u64| {
        let rule = table.lookup(*address);
        rule.cfa == layout::cfa::SP && rule.fp == layout::fp::SAME && (8..512).contains(&rule.cfa_offset)
    };
    let middles = function_ranges(&elf).unwrap().into_iter().map(|(start, end)| start + (end - start) / 2);
    let mut addresses: Vec<u64> = middles.filter(by_sp).step_by(5).take(500).collect();
    assert!(addresses.len() > 100, "a program has functions");
    addresses.push(entry);
    let bytes = stack_of(&addresses, &table);

    let mut tables = Tables::default();
    tables.add(3, &vec![0x55; abi::ELEMENT_SIZE * abi::CHUNK_ELEMENTS as usize - 64]);
    tables.add(NUMBER, table.bytes());
    let start = TOP - bytes.len() as u64;
    let at = Registers { pc: BIAS + addresses[0], sp: start, ..Registers::default() };
    let walked = walk(at, &mapping(), &tables.view(), &Running(Piece { start, bytes: &bytes }));
    assert_eq!(walked.completeness, Completeness::Complete);
    assert_eq!(walked.frames, addresses.iter().map(|a| frame(*a)).collect::<Vec<_>>());

    // Half a stack ends where it ends, and says so.
    let half = Running(Piece { start, bytes: &bytes[..bytes.len() / 2] });
    let cut = walk(at, &mapping(), &tables.view(), &half);
    assert_eq!(cut.completeness, Completeness::UnreadableMemory);
    assert!(walked.frames.starts_with(&cut.frames) && cut.frames.len() > 10);

    let unread = walk(at, &mapping(), &Tables::default().view(), &half);
    assert_eq!((unread.frames.len(), unread.waits_for), (1, None), "no place at all: there will be none");
    tables.set_place(NUMBER, abi::TABLE_NOT_YET);
    let early = walk(at, &mapping(), &tables.view(), &half);
    assert_eq!((early.frames.len(), early.waits_for), (1, Some(NUMBER)));
    let nowhere = walk(at, &[], &tables.view(), &half);
    assert_eq!((nowhere.frames.len(), nowhere.completeness), (1, Completeness::UnknownMapping));
}

#[test]
fn threads_walk_side_by_side() {
    // Each thread has one mapping of no file at an address of its own, and frame pointers.
    let threads: Vec<_> = (1..5u64)
        .map(|n| {
            std::thread::spawn(move || {
                let code = n << 32;
                let mappings = [abi::Mapping { start: code, bias: 0, pages: 16, executable: 1 }];
                struct Frames(u64);
                impl Memory for Frames {
                    fn read(&self, address: u64, into: &mut [u8]) -> bool {
                        if address >> 32 == self.0 >> 32 {
                            into.fill(0xe8); // calls, wherever one looks
                        } else if into.len() == 16 {
                            into[..8].copy_from_slice(&(address + 16).to_le_bytes());
                            into[8..].copy_from_slice(&(self.0 + 0x100).to_le_bytes());
                        }
                        address < TOP
                    }
                }
                let start = TOP - 16 * 50;
                let at = Registers { pc: code, sp: start, fp: start, ..Registers::default() };
                for _ in 0..1000 {
                    let walked = walk(at, &mappings, &Tables::default().view(), &Frames(code));
                    assert_eq!(walked.completeness, Completeness::UnreadableMemory);
                    assert_eq!(walked.frames.len(), 51);
                    assert!(walked.frames[1..].iter().all(|f| *f == code + 0xff));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
}

fn written(suffix: &str, source: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(suffix).tempfile().unwrap();
    file.write_all(source.as_bytes()).unwrap();
    file
}

/// A library of functions of two instructions each, with the frame descriptions that are given.
fn library(descriptions: &[String]) -> Vec<u8> {
    let function = |(n, what): (usize, &String)| {
        format!(".globl f{n}\nf{n}: .cfi_startproc\n.cfi_def_cfa 7, 8\n{what}\nnop\nnop\n.cfi_endproc\n")
    };
    let source: String = descriptions.iter().enumerate().map(function).collect();
    let (file, out) = (written(".s", &source), tempfile::NamedTempFile::new().unwrap());
    let (from, to) = (file.path().as_os_str(), out.path().as_os_str());
    let status = Command::new("cc").args(["-shared", "-nostdlib", "-o"]).args([to, from]).status().unwrap();
    assert!(status.success());
    std::fs::read(out.path()).unwrap()
}

/// Late samples are walked like this: what the kernel's walk knows of the leaf, this one must know.
#[test]
fn a_leafs_frame_is_found_by_any_of_its_registers() {
    const FRAME: u64 = 24;
    let by_cfa = (0..16).map(|n| format!(".cfi_def_cfa {n}, {FRAME}"));
    let by_return = (0..16).map(|n| format!(".cfi_register 16, {n}"));
    let mut descriptions: Vec<String> = by_cfa.chain(by_return).collect();
    descriptions.push(".cfi_undefined 16".into());
    let elf = library(&descriptions);
    let functions: Vec<u64> = function_ranges(&elf).unwrap().into_iter().map(|(start, _)| start).collect();
    assert_eq!(functions.len(), descriptions.len());
    let (root, leaves) = functions.split_last().unwrap();
    let mut tables = Tables::default();
    tables.add(NUMBER, convert(&elf, &Limits::default()).unwrap().bytes());

    let back = BIAS + root + 1;
    let mut stack = vec![0xaa; FRAME as usize - 8];
    stack.extend_from_slice(&back.to_le_bytes());
    let start = TOP - FRAME;
    for (n, leaf) in leaves.iter().enumerate() {
        let (register, is_return) = (n % 16, n >= 16);
        if is_return && (register == 6 || register == 7) {
            continue; // They hold frame and stack.
        }
        let mut at = Registers { pc: BIAS + leaf, sp: start, fp: 1, lr: 0, general: [1; 16] };
        at.general[7] = start;
        at.general[register] = if is_return { back } else { start };
        at.fp = at.general[6];
        let walked = walk(at, &mapping(), &tables.view(), &Running(Piece { start, bytes: &stack }));
        // Who leaves by a jump to what rcx or a register says does not come from a call.
        let exact = u64::from(is_return || register == 2);
        let frames = vec![frame(*leaf), frame(root + exact)];
        let expected = Walked { frames, completeness: Completeness::Complete, waits_for: None };
        assert_eq!(walked, expected, "{}", descriptions[n]);
    }
}

/// A frame pointer that was popped already is looked up where it was, which is below the stack pointer by now.
#[test]
fn a_copy_of_a_stack_has_what_is_below_the_stack_pointer() {
    let elf = library(&[".cfi_offset 6, -16".into(), ".cfi_undefined 16".into()]);
    let functions: Vec<u64> = function_ranges(&elf).unwrap().into_iter().map(|(start, _)| start).collect();
    let mut tables = Tables::default();
    tables.add(NUMBER, convert(&elf, &Limits::default()).unwrap().bytes());
    let walked = |below: usize| {
        let mut bytes = vec![0; below];
        bytes.extend_from_slice(&(BIAS + functions[1] + 1).to_le_bytes());
        let registers = Registers { pc: BIAS + functions[0], sp: TOP - 8, fp: 1, ..Registers::default() };
        let start = TOP - bytes.len() as u64;
        let copy = UserStack { registers, start, code: None, bytes: bytes.into() };
        assert_eq!(copy.above(), (BIAS + functions[1] + 1).to_le_bytes());
        walk(registers, &mapping(), &tables.view(), &copy).completeness
    };
    assert_eq!(walked(0), Completeness::UnreadableMemory);
    assert_eq!(walked(abi::BELOW_SP), Completeness::Complete);
}

#[test]
fn the_border_is_that_of_the_header() {
    let mut source = String::from("#include <linux/types.h>\n#include <stddef.h>\n#include \"host.h\"\n");
    for (field, offset) in [
        ("row_chunks", offset_of!(Host, row_chunks)),
        ("tables", offset_of!(Host, tables)),
        ("read", offset_of!(Host, read)),
        ("memory", offset_of!(Host, memory)),
        ("at", offset_of!(Host, at)),
        ("frames", offset_of!(Host, frames)),
        ("taken", offset_of!(Host, taken)),
        ("reason", offset_of!(Host, reason)),
        ("late", offset_of!(Host, late)),
    ] {
        source += &format!("_Static_assert(offsetof(struct host, {field}) == {offset}, \"{field}\");\n");
    }
    for (name, size) in [("host", size_of::<Host>()), ("array", size_of::<Array>())] {
        source += &format!("_Static_assert(sizeof(struct {name}) == {size}, \"{name}\");\n");
    }
    let file = written(".c", &source);
    let host = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bpf/host");
    let status = Command::new("cc").args(["-fsyntax-only", "-I", host]).arg(file.path()).status().unwrap();
    assert!(status.success(), "host.rs and host.h disagree: see the assertion above");
}
