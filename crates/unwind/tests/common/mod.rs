//! What the tests of this crate share: finding real files, and the oracle's view of a file.
#![allow(dead_code)]
use everflame_unwind::Rule;
use everflame_unwind::layout::{RULE_RBX, RULE_SIGNAL, cfa, fp, ra};
use everflame_unwind::peek::WINDOW;
use gimli::{CfaRule, Register, RegisterRule, UnwindSection};
use object::{Object, ObjectSection, ObjectSegment};
use std::path::PathBuf;

pub type Slice<'a> = gimli::EndianSlice<'a, gimli::LittleEndian>;

/// The first file that exists, or a loud word that there is none.
pub fn find(what: &str, candidates: &[String]) -> Option<PathBuf> {
    let found = candidates.iter().map(PathBuf::from).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: {what} is not on this machine (looked for {candidates:?})");
    }
    found
}

/// The files of a directory whose names begin and end like this.
pub fn glob(directory: &str, prefix: &str, suffix: &str) -> Vec<String> {
    let mut out: Vec<String> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| e.file_name().to_str().is_some_and(|n| n.starts_with(prefix) && n.ends_with(suffix)))
        .map(|e| e.path().to_string_lossy().into_owned())
        .collect();
    out.sort();
    out
}

pub fn libc() -> Vec<u8> {
    let path = find("libc.so.6", &["/lib/x86_64-linux-gnu/libc.so.6".into(), "/lib64/libc.so.6".into()]);
    std::fs::read(path.expect("every Linux for these tests has a libc")).expect("libc can be read")
}

/// A Go program of one file, built with `arguments`; `None`, loudly, where there is no Go.
pub fn go_program(source: &str, arguments: &[&str]) -> Option<Vec<u8>> {
    let (_directory, program) = go_build(source, arguments)?;
    Some(std::fs::read(program).expect("readable"))
}

/// The same for a machine, as Go calls it.
pub fn go_program_for(machine: &str, source: &str, arguments: &[&str]) -> Option<Vec<u8>> {
    let (_directory, program) = go_build_for(machine, source, arguments)?;
    Some(std::fs::read(program).expect("readable"))
}

/// A program on disk as long as the directory is kept.
pub fn go_build(source: &str, arguments: &[&str]) -> Option<(tempfile::TempDir, PathBuf)> {
    go_build_for("amd64", source, arguments)
}

fn go_build_for(machine: &str, source: &str, arguments: &[&str]) -> Option<(tempfile::TempDir, PathBuf)> {
    use std::process::Command;
    let go = ["go", "/usr/local/go/bin/go"].into_iter().find(|go| Command::new(go).arg("version").output().is_ok());
    let Some(go) = go else {
        eprintln!("SKIPPED: go is not on this machine");
        return None;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join("program");
    std::fs::write(directory.path().join("main.go"), source).expect("written");
    let done = Command::new(go)
        .current_dir(&directory)
        .env("GOFLAGS", "-mod=mod")
        .env("GO111MODULE", "off")
        .env("GOPROXY", "off")
        .env("GOARCH", machine)
        .arg("build")
        .args(arguments)
        .arg("-o")
        .arg(&program)
        .arg("main.go")
        .status();
    assert!(done.expect("go runs").success(), "go build {arguments:?}");
    Some((directory, program))
}

/// [start, end) of a row and the rule it stands for.
pub struct Expected {
    pub start: u64,
    pub end: u64,
    pub rule: Rule,
}

/// A machine's registers by DWARF's numbers.
#[derive(Clone, Copy)]
struct Registers {
    fp: Register,
    sp: Register,
    ra: Register,
    /// Rules can name those below.
    general: u16,
    arm64: bool,
}

impl Registers {
    fn of(object: &object::File<'_>) -> Self {
        use gimli::{AArch64, X86_64};
        match object.architecture() {
            object::Architecture::X86_64 => {
                Self { fp: X86_64::RBP, sp: X86_64::RSP, ra: X86_64::RA, general: 16, arm64: false }
            }
            object::Architecture::Aarch64 => {
                Self { fp: AArch64::X29, sp: AArch64::SP, ra: AArch64::X30, general: 31, arm64: true }
            }
            other => panic!("no oracle for {other:?}"),
        }
    }
}

/// What an independent reader (gimli) says of `.eh_frame`: (function ranges, rows).
pub fn oracle(bytes: &[u8]) -> (Vec<(u64, u64)>, Vec<Expected>) {
    let object = object::File::parse(bytes).expect("the oracle can parse it");
    let section = object.section_by_name(".eh_frame").expect("it has .eh_frame");
    let registers = Registers::of(&object);
    let text = object.section_by_name(".text").map_or(0, |s| s.address());
    let bases = gimli::BaseAddresses::default().set_eh_frame(section.address()).set_text(text);
    let data = section.data().expect("section has data");
    let mut frames = gimli::EhFrame::new(data, gimli::LittleEndian);
    if registers.arm64 {
        frames.set_vendor(gimli::Vendor::AArch64);
    }
    let mut context = gimli::UnwindContext::new();
    let (mut ranges, mut rows) = (Vec::new(), Vec::new());
    let (mut saved, mut by_rbx) = (Vec::new(), false);
    let mut entries = frames.entries(&bases);
    while let Some(entry) = entries.next().expect("entries are well formed") {
        let gimli::CieOrFde::Fde(partial) = entry else { continue };
        let fde = partial.parse(|_, bases, offset| frames.cie_from_offset(bases, offset)).expect("FDE");
        let (start, end) = (fde.initial_address(), fde.initial_address() + fde.len());
        ranges.push((start, end));
        let mut table = fde.rows(&frames, &bases, &mut context).expect("rows");
        while let Some(row) = table.next_row().expect("row") {
            let rule = rule_of(row, fde.is_signal_trampoline(), &frames, registers);
            let rbx = match row.register(Register(3)) {
                None | Some(RegisterRule::SameValue) => Some(0),
                Some(RegisterRule::Offset(offset)) if offset != 0 => Some(offset as i16),
                _ => None,
            };
            by_rbx |= !registers.arm64 && rule.is_found_by_rbx();
            rows.push(Expected { start: row.start_address(), end: row.end_address(), rule });
            saved.push(rbx);
        }
    }
    // In small files in which some frame is found by rbx, all rules say where it is.
    if by_rbx && ranges.len() <= 4096 {
        for (Expected { rule, .. }, rbx) in rows.iter_mut().zip(saved) {
            if let (Some(offset), true) = (rbx, rule.ra == ra::CFA_8 && rule.cfa != cfa::END) {
                (rule.flags, rule.ra_offset) = (rule.flags | RULE_RBX, offset);
            }
        }
    }
    (ranges, rows)
}

fn rule_of(
    row: &gimli::UnwindTableRow<usize>,
    signal: bool,
    frames: &gimli::EhFrame<Slice<'_>>,
    Registers { fp: rbp, sp: rsp, ra: rip, general, arm64 }: Registers,
) -> Rule {
    let simple = |code: &[u8]| simple(code, [rbp, rsp]);
    let code = |x: &gimli::UnwindExpression<usize>| x.get(frames).expect("expression is there").0.slice().to_vec();
    let mut rule = Rule { flags: if signal { RULE_SIGNAL } else { 0 }, ..Rule::NONE };
    if matches!(row.register(rip), Some(RegisterRule::Undefined)) {
        return Rule::END;
    }
    match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } if *register == rsp => {
            (rule.cfa, rule.cfa_offset) = (cfa::SP, *offset as i32);
        }
        CfaRule::RegisterAndOffset { register, offset } if *register == rbp => {
            (rule.cfa, rule.cfa_offset) = (cfa::FP, *offset as i32);
        }
        CfaRule::RegisterAndOffset { register, offset } if register.0 < general => {
            (rule.cfa, rule.cfa_offset, rule.cfa_add) = (cfa::REGISTER, *offset as i32, register.0 as i16);
            // rcx: the end of an unwinder's function, which leaves for a landing pad.
            rule.flags |= if register.0 == 2 && !arm64 { RULE_SIGNAL } else { 0 };
        }
        CfaRule::RegisterAndOffset { .. } => return Rule::UNSUPPORTED,
        CfaRule::Expression(x) => match code(x)[..] {
            [0x77, 8, 0x80, 0, 0x3f, 0x1a, at, 0x2a, 0x33, 0x24, 0x22] => {
                (rule.cfa, rule.cfa_offset) = (cfa::PLT, i32::from(at - 0x30));
            }
            ref other => match simple(other) {
                Some((base, offset, None)) => {
                    rule.cfa = if base == rbp { cfa::FP } else { cfa::SP };
                    rule.cfa_offset = offset as i32;
                }
                Some((base, offset, Some(add))) => {
                    rule.cfa = if base == rbp { cfa::DEREF_FP } else { cfa::DEREF_SP };
                    (rule.cfa_offset, rule.cfa_add) = (offset as i32, add as i16);
                }
                None => return Rule::UNSUPPORTED,
            },
        },
    }
    // longjmp: the caller's sp is not the CFA.
    if matches!(row.register(rsp), Some(RegisterRule::Register(_))) {
        return Rule::UNSUPPORTED;
    }
    match row.register(rip) {
        Some(RegisterRule::Offset(-8)) if !arm64 => {}
        Some(RegisterRule::Offset(offset)) if arm64 => match row.register(rbp) {
            Some(RegisterRule::Offset(fp)) if fp + 8 == offset => rule.ra = ra::RECORD,
            None | Some(RegisterRule::SameValue) => (rule.ra, rule.fp_offset) = (ra::RECORD, offset as i32 - 8),
            _ => (rule.ra, rule.ra_offset) = (ra::CFA_WORDS, (offset / 8) as i16),
        },
        None | Some(RegisterRule::SameValue) if arm64 => (rule.ra, rule.ra_offset) = (ra::REGISTER, 30),
        Some(RegisterRule::Register(register)) if arm64 && register.0 < general => {
            (rule.ra, rule.ra_offset) = (ra::REGISTER, register.0 as i16);
        }
        Some(RegisterRule::Register(register)) if register.0 < 16 => {
            (rule.ra, rule.ra_offset, rule.flags) = (ra::REGISTER, register.0 as i16, rule.flags | RULE_SIGNAL);
        }
        Some(RegisterRule::Expression(x)) => match simple(&code(&x)) {
            Some((base, offset, None)) if base == rsp => (rule.ra, rule.ra_offset) = (ra::SP, offset as i16),
            _ => return Rule::UNSUPPORTED,
        },
        _ => return Rule::UNSUPPORTED,
    }
    match row.register(rbp) {
        // Where nothing is said the convention holds: rbp is preserved.
        None | Some(RegisterRule::SameValue) => {}
        Some(RegisterRule::Offset(o)) => rule = rule.with_fp_at(o as i32),
        Some(RegisterRule::Expression(x)) => match simple(&code(&x)) {
            Some((base, offset, None)) => {
                rule.fp = if base == rbp { fp::FP } else { fp::SP };
                rule.fp_offset = offset as i32;
            }
            _ => rule.fp = fp::UNKNOWN,
        },
        _ => rule.fp = fp::UNKNOWN,
    }
    rule
}

/// (register, offset, added after a dereference if there is one), by the oracle's own decoder of operations.
fn simple(code: &[u8], pointers: [Register; 2]) -> Option<(Register, i64, Option<i64>)> {
    use gimli::Operation::{Deref, PlusConstant, RegisterOffset};
    let encoding = gimli::Encoding { format: gimli::Format::Dwarf32, version: 4, address_size: 8 };
    let mut operations = gimli::Expression(Slice::new(code, gimli::LittleEndian)).operations(encoding);
    let mut found = match operations.next().ok()?? {
        RegisterOffset { register, offset, .. } if pointers.contains(&register) => (register, offset, None),
        _ => return None,
    };
    while let Some(operation) = operations.next().ok()? {
        match (operation, &mut found.2) {
            (Deref { .. }, None) => found.2 = Some(0),
            (PlusConstant { value }, Some(add)) => *add += value as i64,
            (PlusConstant { value }, None) => found.1 += value as i64,
            _ => return None,
        }
    }
    Some(found)
}

/// The bytes that are mapped.
pub struct Code<'a>(Vec<(u64, &'a [u8])>);

impl<'a> Code<'a> {
    pub fn of(bytes: &'a [u8]) -> Self {
        let file = object::File::parse(bytes).expect("ELF");
        Self(file.segments().map(|s| (s.address(), s.data().expect("data"))).collect())
    }

    pub fn from(&self, address: u64) -> &'a [u8] {
        let inside = |s: &&(u64, &'a [u8])| s.0 <= address && address - s.0 < s.1.len() as u64;
        self.0.iter().find(inside).map_or(&[][..], |s| &s.1[(address - s.0) as usize..])
    }

    pub fn window(&self, pc: u64) -> [u8; WINDOW] {
        let mut window = [0; WINDOW];
        let from = self.from(pc - 1);
        let length = from.len().min(WINDOW);
        window[..length].copy_from_slice(&from[..length]);
        window
    }
}

/// Length of what takes part in a function's beginning or end and is no call: endbr64, push rbp, mov rbp rsp, pop, ret.
pub fn plain(code: &[u8]) -> Option<usize> {
    match code {
        [0xf3, 0x0f, 0x1e, 0xfa, ..] => Some(4),
        [0x48, 0x89, 0xe5, ..] => Some(3),
        [0x41, 0x58..=0x5f, ..] => Some(2),
        [0x55 | 0x58..=0x5f | 0xc3, ..] => Some(1),
        _ => None,
    }
}

/// Whether the first `length` bytes hold nothing but such instructions: no caller stands there.
pub fn calls_nothing(code: &[u8], length: u64) -> bool {
    let mut at = 0;
    while at < length as usize {
        let Some(next) = code.get(at..).and_then(plain) else { return false };
        at += next;
    }
    at == length as usize
}

/// Two ways to say one thing on the way to a `ret`: the slot of a register that was popped already, and a frame
/// that is left by the stack pointer while the frame pointer still stands.
pub fn same_by_code(row: &Rule, leaf: &Rule, code: &[u8]) -> bool {
    let mut at = 0;
    while code.get(at).is_some_and(|b| *b != 0xc3) {
        let Some(next) = plain(&code[at..]).filter(|_| !matches!(code[at], 0xf3 | 0x48 | 0x55)) else { return false };
        at += next;
    }
    let stale = row.fp == fp::CFA && row.cfa_offset + row.fp_offset < 0 && leaf.fp == fp::SAME;
    row.cfa == cfa::FP || (stale && (row.cfa, row.cfa_offset) == (leaf.cfa, leaf.cfa_offset))
}
