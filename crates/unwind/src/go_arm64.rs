//! Unwind rows for Go code of arm64. A function with a frame saves x30 at its lowest address and x29 in the word
//! below; one without keeps its return address in x30.
use crate::go::is_root;
use crate::layout::{RULE_SWITCH, Rule, cfa, fp};
use crate::machine::{LINK, Machine};
use crate::pclntab::Function;

/// `sub x29, sp, #8`: from behind it on x29 points at the saved pair.
const POINT_FP: [u8; 4] = [0xfd, 0x23, 0x00, 0xd1];
/// `add sp, xN, #0`, but for N.
const SP_FROM: ([u8; 4], [u8; 4]) = ([0x1f, 0xfc, 0xff, 0xff], [0x1f, 0, 0, 0x91]);

/// (offset in the function, rule) in growing order.
pub(crate) fn rows(function: &Function<'_>, code: &[u8]) -> Vec<(u64, Rule)> {
    let name = function.name.strip_suffix(b".abi0").unwrap_or(function.name);
    match name {
        _ if is_root(name) || name.starts_with(b"_rt0_arm64") => vec![(0, Rule::END)],
        // They end on another stack, whose frame they do not know.
        b"gogo" | b"runtime.gogo" | b"runtime.asmcgocall" | b"runtime.cgocallback" => vec![(0, Rule::UNSUPPORTED)],
        b"runtime.systemstack" => switch_by_fp(function, code),
        b"runtime.mcall" | b"runtime.morestack" => switch_to_first_stack(function, code),
        _ => plain(function, code),
    }
}

/// Any function: sp by the table, x29 by the code that sets it.
fn plain(function: &Function<'_>, code: &[u8]) -> Vec<(u64, Rule)> {
    let points = offset_behind(code, |word| word == POINT_FP);
    let mut out = Vec::new();
    for delta in function.sp_deltas() {
        let Some(size) = i32::try_from(delta.value).ok().filter(|size| (0..i32::MAX - 8).contains(size)) else {
            out.push((delta.from, Rule::UNSUPPORTED));
            continue;
        };
        if size == 0 {
            out.push((delta.from, Machine::Arm64.entry()));
            continue;
        }
        let points = points.unwrap_or(u64::MAX);
        let framed = Machine::Arm64.record(size, -size - 8);
        if delta.from < points {
            // x29 is the caller's still.
            out.push((delta.from, Rule { fp: fp::SAME, ..framed }));
        }
        if delta.to > points {
            out.push((delta.from.max(points), framed));
        }
    }
    out
}

/// A function that changes sp to another stack and back while x29 stays at its frame on the old one.
fn switch_by_fp(function: &Function<'_>, code: &[u8]) -> Vec<(u64, Rule)> {
    let Some(points) = offset_behind(code, |word| word == POINT_FP) else { return vec![(0, Rule::UNSUPPORTED)] };
    let by_fp = |rule: Rule| Rule { cfa: cfa::FP, cfa_offset: rule.cfa_offset + 8, flags: RULE_SWITCH, ..rule };
    let framed =
        |(from, rule): (u64, Rule)| (from, if from >= points && rule.ra_offset != LINK { by_fp(rule) } else { rule });
    plain(function, code).into_iter().map(framed).collect()
}

/// A function that leaves a goroutine for the beginning of the scheduler's stack, where Go's own walks end too.
fn switch_to_first_stack(function: &Function<'_>, code: &[u8]) -> Vec<(u64, Rule)> {
    let (mask, value) = SP_FROM;
    let switches = |word: [u8; 4]| (0..4).all(|at| word[at] & mask[at] == value[at]);
    let Some(switch) = offset_behind(code, switches) else { return vec![(0, Rule::UNSUPPORTED)] };
    let mut out: Vec<(u64, Rule)> = plain(function, code).into_iter().filter(|(from, _)| *from < switch).collect();
    out.push((switch, Rule::END));
    out
}

/// Where the first instruction of a kind ends.
fn offset_behind(code: &[u8], kind: impl Fn([u8; 4]) -> bool) -> Option<u64> {
    code.as_chunks::<4>().0.iter().zip(1u64..).find(|(word, _)| kind(**word)).map(|(_, count)| 4 * count)
}
