//! What the code where a thread stands says by itself about its frame, so that tables need no rows for it.
//!
//! Most rows of an executable tell of single instructions: `push rbp` and `mov rbp, rsp` at
//! the beginning of a function, each `pop` and the `ret` at its end. No call is among them,
//! so only a leaf (or a frame that a signal interrupted) can stand there, and what is left
//! of the stack can be read from the next bytes as well. `bpf/peek.h` does; this is the same
//! in Rust, by which rows are left out and tests compare. x86-64 only.
use crate::layout::{RULE_PEEK, Rule, cfa, fp, ra};

/// Bytes that are looked at: one before the pc, the rest from there on.
pub const WINDOW: usize = 16;
/// Registers popped before a `ret` at most: those that a callee must preserve, and two more.
const MAX_POPS: i32 = 8;
/// `push rbp; mov rbp, rsp`.
const FRAME: [u8; 4] = [0x55, 0x48, 0x89, 0xe5];
const ENDBR: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// What a probe or a debugger puts over the first byte of an instruction.
const BREAKPOINT: u8 = 0xcc;

/// How to unwind at the window's second byte, and for how many bytes from there on that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peek {
    /// As if a table had said it.
    pub rule: Rule,
    /// Length of the instruction (or two) that stand there.
    pub length: u8,
    /// It is on its way to a `ret`, which returns to where the stack says, whatever else is said.
    pub returns: bool,
}

/// What the code says, if it is of a kind that says something.
pub fn peek(window: &[u8; WINDOW]) -> Option<Peek> {
    let frame_at = |at: usize| match window.get(at..at + 4) {
        Some([first, rest @ ..]) => (*first == FRAME[0] || *first == BREAKPOINT) && *rest == FRAME[1..],
        _ => false,
    };
    let entry = Rule::of(cfa::SP, 8);
    if frame_at(0) {
        return Some(Peek { rule: Rule::of(cfa::SP, 16).with_fp_at(-16), length: 3, returns: false });
    }
    if frame_at(1) {
        return Some(Peek { rule: entry, length: 1, returns: false });
    }
    if window[1..5] == ENDBR && frame_at(5) {
        return Some(Peek { rule: entry, length: 5, returns: false });
    }
    let (mut code, mut slot, mut first) = (&window[1..], None, 0);
    for pops in 0..=MAX_POPS {
        let (length, pops_fp) = match *code {
            [0xc3, ..] => {
                let rule = Rule::of(cfa::SP, 8 * pops + 8);
                let rule = slot.map_or(rule, |slot| rule.with_fp_at(8 * slot - rule.cfa_offset));
                return Some(Peek { rule, length: if pops == 0 { 1 } else { first }, returns: true });
            }
            [0x5c, ..] => return None, // pop rsp
            [byte @ 0x58..=0x5f, ..] => (1, byte == 0x5d),
            [0x41, 0x58..=0x5f, ..] => (2, false),
            _ => return None,
        };
        if pops == 0 {
            first = length;
        }
        if pops_fp {
            slot = Some(pops);
        }
        code = &code[usize::from(length)..];
    }
    None
}

/// Whether `row`, which a table would say, and what the code says are the same.
pub(crate) fn agrees(row: &Rule, code: &Rule) -> bool {
    if row.cfa != cfa::SP || row.ra != ra::CFA_8 || row.flags != 0 || row.cfa_offset != code.cfa_offset {
        return false;
    }
    // A register that was restored already: compilers go on naming the slot that it came from.
    let stale = row.fp == fp::CFA && row.cfa_offset + row.fp_offset < 0 && code.fp == fp::SAME;
    stale || (row.fp, row.fp_offset) == (code.fp, code.fp_offset)
}

/// Whether what the code says cannot be true if `row` is.
pub(crate) fn contradicts(code: &Peek, row: &Rule) -> bool {
    match row.cfa {
        cfa::SP => !agrees(row, &code.rule),
        _ => !code.returns,
    }
}

/// Whether rows of this rule may give way to what the code says: by stack or frame pointer, and nothing special.
pub(crate) fn may_give_way(row: &Rule) -> bool {
    matches!(row.cfa, cfa::SP | cfa::FP) && row.ra == ra::CFA_8 && row.flags & !RULE_PEEK == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::Elf;
    use crate::functions::Aim;
    use crate::instruction::decode;
    use crate::{Limits, collect, convert, finish};

    fn window(code: &[u8]) -> [u8; WINDOW] {
        let mut window = [0x90; WINDOW];
        window[..code.len()].copy_from_slice(code);
        window
    }

    #[test]
    fn knows_beginnings_and_ends_of_functions() {
        let rule = |code: &[u8]| peek(&window(code)).map(|peek| (peek.rule, peek.length));
        let entry = Rule::of(cfa::SP, 8);
        assert_eq!(rule(&[0, 0x55, 0x48, 0x89, 0xe5]), Some((entry, 1)));
        assert_eq!(rule(&[0, 0xcc, 0x48, 0x89, 0xe5]), Some((entry, 1)), "under a probe");
        assert_eq!(rule(&[0, 0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5]), Some((entry, 5)));
        assert_eq!(rule(&[0x55, 0x48, 0x89, 0xe5]), Some((Rule::of(cfa::SP, 16).with_fp_at(-16), 3)));
        assert_eq!(rule(&[0, 0xc3]), Some((entry, 1)));
        assert_eq!(rule(&[0, 0x5d, 0xc3]), Some((Rule::of(cfa::SP, 16).with_fp_at(-16), 1)));
        let all = [0, 0x5b, 0x5d, 0x41, 0x5c, 0x41, 0x5d, 0x41, 0x5e, 0x41, 0x5f, 0xc3];
        assert_eq!(rule(&all), Some((Rule::of(cfa::SP, 56).with_fp_at(-48), 1)));
        assert_eq!(rule(&all[2..]), Some((Rule::of(cfa::SP, 40), 2)), "the byte before does not count");
        assert_eq!(rule(&all[4..]), Some((Rule::of(cfa::SP, 32), 2)));
    }

    #[test]
    fn knows_nothing_else() {
        assert_eq!(peek(&window(&[0, 0x5c, 0xc3])), None, "pop rsp");
        assert_eq!(peek(&window(&[0, 0x55, 0x48, 0x8b, 0xec])), None);
        assert_eq!(peek(&[0x5b; WINDOW]), None);
        assert_eq!(peek(&window(&[0, 0x5b, 0xe9])), None, "a tail call");
    }

    /// At every instruction of real libraries: what the code says against what the tables say.
    #[test]
    fn agrees_with_unwind_data_at_every_instruction() {
        let (mut looked, mut told) = (0, 0);
        for name in ["libc.so.6", "libm.so.6", "libcrypto.so.3", "libstdc++.so.6", "libpython3.11.so.1.0"] {
            let directories = ["/lib/x86_64-linux-gnu/", "/usr/lib/x86_64-linux-gnu/", "/usr/lib64/", "/lib64/"];
            let Some(bytes) = directories.iter().find_map(|d| std::fs::read(format!("{d}{name}")).ok()) else {
                eprintln!("SKIPPED: {name} is not on this machine");
                continue;
            };
            let elf = Elf::parse(&bytes).expect("ELF");
            let limits = Limits::default();
            let whole = finish(collect(&elf, &limits, Aim::Rows).expect("functions"), &limits).expect("a table");
            let short = convert(&bytes, &limits).expect("a table");
            let mut wrong = Vec::new();
            for (start, end) in crate::function_ranges(&bytes).expect("ranges") {
                let mut pc = start;
                while let Some(instruction) = (pc < end).then(|| elf.bytes_at(pc).and_then(decode)).flatten() {
                    let mut code = [0; WINDOW];
                    let from = elf.bytes_at(pc - 1).unwrap_or_default();
                    let length = from.len().min(WINDOW);
                    code[..length].copy_from_slice(&from[..length]);
                    let (row, answer) = (whole.lookup(pc), short.lookup_leaf(pc, &code));
                    looked += 1;
                    told += u32::from(answer != short.lookup(pc));
                    // Padding is not run. By frame pointer and on the way out come to the same.
                    let same = row == answer || agrees(&row, &answer);
                    let by_frame_pointer = row.cfa == cfa::FP && peek(&code).is_some_and(|code| code.returns);
                    if !same && !by_frame_pointer && !instruction.nop {
                        wrong.push((pc, row, answer));
                    }
                    pc += u64::from(instruction.length);
                }
            }
            // Two functions of glibc's own assembly (its __mpn_addmul_1 and __mpn_submul_1) push without
            // telling their unwind data: there the code is right.
            wrong.retain(|(_, row, _)| name != "libc.so.6" || *row != Rule::of(cfa::SP, 8));
            let shown: Vec<String> =
                wrong.iter().take(40).map(|(pc, row, answer)| format!("{pc:#x} {row:?} {answer:?}")).collect();
            assert!(wrong.is_empty(), "{name}: {} differ: {shown:#?}", wrong.len());
        }
        eprintln!("{looked} instructions, of {told} the code tells what the table does not");
        assert!(looked > 500_000 && told > 10_000);
    }
}
