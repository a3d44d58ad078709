//! Rows for arm64 code that has no unwind data, from what its instructions do to sp and x30.
//!
//! The vDSO has none, and neither has musl. Most of their functions make no frame, so that the
//! frame pointer that a walk would fall back to is their caller's. A function is followed
//! from its first instruction down: every instruction is 4 bytes long, and few change sp.
//! Where two ways lead to one place with different frames, or sp is computed, nothing is said.
use crate::elf::Elf;
use crate::error::Error;
use crate::functions::{Collector, Source};
use crate::layout::Rule;
use crate::limits::MAX_INSTRUCTIONS;
use crate::machine::Machine;
use rustc_hash::FxHashMap;

/// How musl begins: mov x29, #0; mov x30, #0; mov x0, sp
const MUSL_START: [u8; 12] = [0x1d, 0, 0x80, 0xd2, 0x1e, 0, 0x80, 0xd2, 0xe0, 0x03, 0, 0x91];

/// Adds rows for code that nothing else covers: in `bare` files, which have no unwind data, and in musl.
pub(crate) fn read(elf: &Elf<'_>, bare: bool, out: &mut Collector<'_>) -> Result<(), Error> {
    let musl = elf.bytes_at(elf.entry).is_some_and(|code| code.starts_with(&MUSL_START));
    if !musl && !bare {
        return Ok(());
    }
    let mut budget = MAX_INSTRUCTIONS;
    for (start, end) in functions(elf, &out.uncovered(), musl) {
        let Some(code) = elf.bytes_at(start) else { continue };
        let words = (end - start) / 4;
        budget = budget.saturating_sub(usize::try_from(words).unwrap_or(usize::MAX));
        if budget == 0 {
            break;
        }
        let code = code.as_chunks::<4>().0;
        let code = &code[..code.len().min(words as usize)];
        if !code.is_empty() && out.open(Source::Code, start, 4 * code.len() as u64)? {
            let mut last = None;
            for (offset, rule) in follow(code) {
                if last != Some(rule) {
                    out.row(start + offset, rule);
                    last = Some(rule);
                }
            }
            out.close()?;
        }
    }
    Ok(())
}

/// [start, end) of functions in the gaps: symbols say where, and in musl all that is called.
fn functions(elf: &Elf<'_>, gaps: &[(u64, u64)], musl: bool) -> Vec<(u64, u64)> {
    let gap_end = |at: u64| {
        let gap = gaps.get(gaps.partition_point(|gap| gap.0 <= at).checked_sub(1)?)?;
        (at < gap.1).then_some(gap.1)
    };
    let symbols = elf.symbols().filter(|symbol| symbol.function && symbol.address.is_multiple_of(4));
    let mut begins: Vec<(u64, u64)> = symbols.take(MAX_INSTRUCTIONS).map(|s| (s.address, s.size)).collect();
    for segment in elf.code().filter(|_| musl) {
        for (word, at) in segment.data.as_chunks::<4>().0.iter().zip((segment.address..).step_by(4)) {
            let word = u32::from_le_bytes(*word);
            if word >> 26 == BL {
                begins.push((at.wrapping_add_signed(target(word, 0, 26)), 0));
            }
        }
        begins.push((elf.entry, 0));
    }
    begins.retain(|(at, _)| gap_end(*at).is_some());
    // Of those at one place the one that says its size.
    begins.sort_unstable_by_key(|(at, size)| (*at, u64::MAX - size));
    begins.dedup_by_key(|(at, _)| *at);
    let ends = begins.iter().skip(1).map(|(at, _)| *at).chain([u64::MAX]);
    let extent = |(&(start, size), next): (&(u64, u64), u64)| {
        let said = if size == 0 { u64::MAX } else { start.saturating_add(size) };
        Some((start, said.min(next).min(gap_end(start)?)))
    };
    begins.iter().zip(ends).filter_map(extent).collect()
}

const BL: u32 = 0x25;

/// Where a branch goes, from its own place: `bits` of words from bit `low` on, with a sign.
fn target(word: u32, low: u32, bits: u32) -> i64 {
    let words = (word << (32 - low - bits)).cast_signed() >> (32 - bits);
    4 * i64::from(words)
}

/// Where things are, as distances below the CFA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    size: i32,
    /// Where x29 and x30 are stored, side by side.
    record: Option<i32>,
}

const ENTRY: Option<Frame> = Some(Frame { size: 0, record: None });

impl Frame {
    fn rule(self) -> Rule {
        match self.record {
            Some(record) => Machine::Arm64.record(self.size, -record),
            None => Rule { cfa_offset: self.size, ..Machine::Arm64.entry() },
        }
    }
}

/// (offset, rule) of each instruction.
fn follow(code: &[[u8; 4]]) -> Vec<(u64, Rule)> {
    // What is known at places that are branched to from above.
    let mut known: FxHashMap<u64, Option<Frame>> = FxHashMap::default();
    let mut out = Vec::with_capacity(code.len());
    let mut frame = ENTRY;
    // Whether the instruction before leads here.
    let mut falls = true;
    // Whether the function has a frame record, by which a walk goes where nothing is said.
    let mut keeps_record = false;
    for (word, at) in code.iter().zip((0u64..).step_by(4)) {
        let word = u32::from_le_bytes(*word);
        if let Some(met) = known.remove(&at) {
            frame = if !falls || met == frame { met } else { None };
        } else if !falls {
            frame = None;
        }
        keeps_record |= frame.is_some_and(|frame| frame.record.is_some());
        let unknown = if keeps_record { Rule::NONE } else { Rule::UNSUPPORTED };
        out.push((at, frame.map_or(unknown, Frame::rule)));
        let (after, flow) = step(frame, word);
        let (to, goes_on) = match flow {
            Flow::On => (None, true),
            Flow::Branch(to) => (Some(to), true),
            Flow::Jump(to) => (Some(to), false),
            Flow::End => (None, false),
        };
        if let Some(to) = to.and_then(|to| at.checked_add_signed(to)).filter(|to| *to > at) {
            known.entry(to).and_modify(|met| *met = if *met == after { after } else { None }).or_insert(after);
        }
        (frame, falls) = (after, goes_on);
    }
    out
}

enum Flow {
    On,
    Branch(i64),
    Jump(i64),
    End,
}

/// What an instruction does to the frame, and where it leads.
fn step(frame: Option<Frame>, word: u32) -> (Option<Frame>, Flow) {
    let flow = match word >> 24 {
        0x14..=0x17 => Flow::Jump(target(word, 0, 26)),
        0x54 | 0x34 | 0x35 | 0xb4 | 0xb5 => Flow::Branch(target(word, 5, 19)),
        0x36 | 0x37 | 0xb6 | 0xb7 => Flow::Branch(target(word, 5, 14)),
        // br, ret and their signed kin; not blr
        0xd6 | 0xd7 if word >> 21 & 3 != 1 => Flow::End,
        _ => Flow::On,
    };
    let Some(Frame { size, record }) = frame else { return (None, flow) };
    let (destination, base) = (word & 31, word >> 5 & 31);
    let pair = (destination, word >> 10 & 31);
    let resized = |size: i32| (size >= 0).then_some(size);
    let after = match (word >> 22, base) {
        // stp and ldp of general registers, and of floating ones of 8 and 16 bytes
        (0x2a2..=0x2a7 | 0x1b2..=0x1b7 | 0x2b2..=0x2b7, 31) => {
            let floating = word >> 26 & 1 == 1;
            let scale = if floating && word >> 31 == 1 { 16 } else { 8 };
            let offset = target(word, 15, 7) as i32 / 4 * scale;
            // Written back behind the access or before it, or not at all.
            let (at, new) = match word >> 23 & 3 {
                1 => (size, size - offset),
                3 => (size - offset, size - offset),
                _ => (size - offset, size),
            };
            let loads = word >> 22 & 1 == 1;
            let record = match (pair == (29, 30) && !floating, loads) {
                (true, true) => None,
                (true, false) => Some(at),
                (false, _) => record,
            };
            resized(new).map(|size| Frame { size, record })
        }
        // str and ldr of one register, written back
        (0x3e0 | 0x3e1 | 0x2e0 | 0x2e1 | 0x3f0 | 0x3f1, 31) if word >> 10 & 1 == 1 && word >> 21 & 1 == 0 => {
            let offset = target(word, 12, 9) as i32 / 4;
            let kept = if word >> 22 == 0x3e1 { destination < 29 } else { destination != 29 || word >> 22 != 0x3e0 };
            resized(size - offset).filter(|_| kept).map(|size| Frame { size, record })
        }
        // x29 alone is stored to be used for something else, or x30 is loaded: no record is kept
        (0x3e4 | 0x3e5, 31) if destination == 29 || word >> 22 == 0x3e5 && destination == 30 => None,
        // add sp, sp, #n and sub sp, sp, #n
        _ if word & 0xbf80_03ff == 0x9100_03ff => {
            let amount = (word >> 10 & 0xfff) << (12 * (word >> 22 & 1));
            let amount = amount as i32;
            resized(if word >> 30 & 1 == 1 { size + amount } else { size - amount }).map(|size| Frame { size, record })
        }
        // Anything else that could write to sp: add and sub of registers and from others, and.
        _ if destination == 31 && matches!(word >> 24, 0x91 | 0xd1 | 0x8b | 0xcb | 0x92 | 0xb2) && writes_sp(word) => {
            None
        }
        _ => Some(Frame { size, record }),
    };
    // A call overwrites x30: behind it nothing is known of a frame that keeps it there.
    let calls = word >> 26 == BL || word & 0xfeff_f000 == 0xd63f_0000;
    (after.filter(|frame| !calls || frame.record.is_some()), flow)
}

/// Of instructions whose destination is number 31: whether that means sp, not the zero register.
fn writes_sp(word: u32) -> bool {
    match word >> 24 {
        // add, sub, and, orr with an immediate
        0x91 | 0xd1 | 0x92 | 0xb2 => true,
        // with a register: only where that is extended
        _ => word >> 21 & 1 == 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::Aim;
    use crate::layout::{cfa, fp, ra};
    use crate::{Limits, collect, finish};

    /// glibc has both code and unwind data: what is inferred from the one must be what the other says.
    #[test]
    fn inferred_rows_agree_with_real_unwind_data() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/.cache/arm64");
        let (mut told, mut all) = (0, 0);
        for name in ["lib/aarch64-linux-gnu/libc.so.6", "usr/lib/aarch64-linux-gnu/libcrypto.so.3", "bin/busybox"] {
            let Ok(bytes) = std::fs::read(format!("{root}/{name}")) else {
                eprintln!("SKIPPED: {name} of arm64 is not here (scripts/setup.sh test)");
                return;
            };
            let elf = Elf::parse(&bytes).expect("ELF");
            let limits = Limits::default();
            let table = finish(collect(&elf, &limits, Aim::Rows).expect("functions"), &limits).expect("table");
            let mut wrong = Vec::new();
            for (start, end) in crate::function_ranges(&bytes).expect("ranges") {
                let code = elf.bytes_at(start).unwrap_or_default().as_chunks::<4>().0;
                let mut stored = false;
                for (offset, rule) in follow(&code[..code.len().min(((end - start) / 4) as usize)]) {
                    let real = table.lookup(start + offset);
                    all += 1;
                    if rule.cfa != cfa::SP || real.cfa != cfa::SP {
                        continue;
                    }
                    told += 1;
                    stored |= rule.ra == ra::RECORD;
                    // What is in its register and in a slot can be found either way: x30 that was stored alone, and
                    // both when they were loaded again.
                    // Nor do they tell of a store at once.
                    let either = rule.ra == ra::REGISTER && (stored || real.fp == fp::SAME)
                        || rule.ra == ra::RECORD && real.ra == ra::REGISTER;
                    if real != rule && !(either && rule.cfa_offset == real.cfa_offset) {
                        wrong.push((start + offset, real, rule));
                    }
                }
            }
            let shown: Vec<String> = wrong.iter().take(10).map(|w| format!("{:#x} {:?} {:?}", w.0, w.1, w.2)).collect();
            eprintln!("{name}: {} differ", wrong.len());
            assert!(wrong.is_empty(), "{name}: {} differ: {shown:#?}", wrong.len());
        }
        eprintln!("{told} of {all} instructions told");
        assert!(told * 10 > all * 6 && told > 500_000, "{told} of {all}");
    }

    #[test]
    fn a_leaf_has_its_caller_in_the_register_all_along() {
        let code = [0xd503_233fu32, 0xd100_43ff, 0xf940_0008, 0x9100_43ff, 0xd65f_03c0].map(u32::to_le_bytes);
        let sizes: Vec<i32> = follow(&code).iter().map(|(_, rule)| rule.cfa_offset).collect();
        assert_eq!(sizes, [0, 0, 16, 16, 0]);
        assert!(follow(&code).iter().all(|(_, rule)| Rule { cfa_offset: 0, ..*rule } == Machine::Arm64.entry()));
    }
}
