//! Unwind rows for Go code, which has no call frame information: from the function table and the code's own prologue.
//!
//! sp is known exactly at every pc (arm64: `go_arm64`). rbp is a frame pointer by convention: a function with a
//! frame saves it right below its return address. Where the runtime changes stacks the
//! saved frame pointer, or the known layout of the thread's first stack, leads on.
use crate::elf::Elf;
use crate::error::Error;
use crate::functions::{Aim, Collector, Source};
use crate::go_arm64;
use crate::go_text;
use crate::known;
use crate::layout::{RULE_SWITCH, Rule, cfa, fp};
use crate::machine::Machine;
use crate::pclntab::{Function, PclnTab, SpDelta};

/// `push rbp; mov rbp, rsp`
const PUSH_FP: [u8; 4] = [0x55, 0x48, 0x89, 0xe5];

/// Reads Go's function table, if there is one; says whether there is.
pub(crate) fn read(elf: &Elf<'_>, out: &mut Collector<'_>) -> Result<bool, Error> {
    let Some((address, table)) = find(elf) else { return Ok(false) };
    let text = if table.absolute { Some(0) } else { go_text::find(elf, address, &table) };
    let Some(text) = text else {
        out.stats.malformed += 1;
        return Ok(false);
    };
    let stack = if out.aim == Aim::Ranges || elf.machine != Machine::X86_64 {
        FirstStack::Unknown
    } else {
        first_stack(elf, text, &table)
    };
    for function in table.functions() {
        let start = text.wrapping_add(function.start);
        if !out.open(Source::Go, start, function.end - function.start)? {
            continue;
        }
        if out.aim != Aim::Ranges {
            let code = code_of(elf, text, &function);
            let rows = match elf.machine {
                Machine::X86_64 => rows(&function, code, stack),
                Machine::Arm64 => go_arm64::rows(&function, code),
            };
            for (offset, rule) in rows {
                out.row(start.saturating_add(offset), rule);
            }
        }
        out.close()?;
        if out.aim != Aim::Ranges && code_of(elf, text, &function).starts_with(elf.machine.trampoline()) {
            known::trampoline(start, out)?;
        }
    }
    Ok(true)
}

/// The function table and its address.
fn find<'a>(elf: &Elf<'a>) -> Option<(u64, PclnTab<'a>)> {
    for name in [".gopclntab", ".data.rel.ro.gopclntab"] {
        if let Some(section) = elf.section(name) {
            return Some((section.address, PclnTab::parse(section.data)?));
        }
    }
    if !elf.sections.is_empty() {
        return None;
    }
    elf.segments.iter().find_map(|segment| {
        let at = segment.data.chunks_exact(8).position(PclnTab::is_magic)? * 8;
        Some((segment.address.checked_add(at as u64)?, PclnTab::parse(segment.data.get(at..)?)?))
    })
}

fn code_of<'a>(elf: &Elf<'a>, text: u64, function: &Function<'_>) -> &'a [u8] {
    let code = elf.bytes_at(text.wrapping_add(function.start)).unwrap_or_default();
    let length = usize::try_from(function.end - function.start).unwrap_or(usize::MAX);
    &code[..code.len().min(length)]
}

/// How far below its CFA `runtime.mstart0` is when it calls `runtime.mstart1`, which is where
/// the scheduler's stack of a thread begins.
fn first_stack(elf: &Elf<'_>, text: u64, table: &PclnTab<'_>) -> FirstStack {
    let mut begin = Vec::new();
    let mut targets = Vec::new();
    for function in table.functions() {
        match function.name {
            b"runtime.mstart0" => begin.push(function),
            b"runtime.mstart1" => targets.push(function.start),
            name if name.starts_with(b"_cgoexp_") => return FirstStack::Anywhere,
            _ => {}
        }
    }
    let below = begin.iter().find_map(|function| {
        let code = code_of(elf, text, function);
        // call rel32
        let calls = code.windows(5).zip(0u64..).filter_map(|(w, at)| match *w {
            [0xe8, a, b, c, d] => Some((at, i64::from(i32::from_le_bytes([a, b, c, d])))),
            _ => None,
        });
        let call = calls.filter(|(at, to)| {
            let target = function.start.wrapping_add(at + 5).wrapping_add_signed(*to);
            targets.contains(&target)
        });
        let (at, _) = call.take(1).next()?;
        let delta = function.sp_deltas().find(|d| d.from <= at && at < d.to)?;
        Some(delta.value)
    });
    below.map_or(FirstStack::Unknown, FirstStack::Below)
}

/// What a goroutine leaves for.
#[derive(Debug, Clone, Copy)]
enum FirstStack {
    /// The frame of `runtime.mstart0`, whose CFA is so far above.
    Below(i64),
    /// Where C calls back into Go that stack begins at the last such call, or where the thread did.
    Anywhere,
    Unknown,
}

/// Functions that nothing of a program has called.
pub(crate) fn is_root(name: &[u8]) -> bool {
    matches!(name, b"runtime.goexit" | b"runtime.mstart" | b"runtime.rt0_go")
}

/// (offset in the function, rule) in growing order.
fn rows(function: &Function<'_>, code: &[u8], stack: FirstStack) -> Vec<(u64, Rule)> {
    let name = function.name.strip_suffix(b".abi0").unwrap_or(function.name);
    match name {
        _ if is_root(name) || name.starts_with(b"_rt0_amd64") => vec![(0, Rule::END)],
        // It ends on the stack of another goroutine.
        b"gogo" | b"runtime.gogo" => vec![(0, Rule::UNSUPPORTED)],
        b"runtime.systemstack" | b"runtime.asmcgocall" | b"runtime.cgocallback" => switch_by_fp(function, code),
        // They ask the vDSO on the thread's first stack.
        b"runtime.nanotime1" | b"runtime.walltime" | b"time.now" => switch_by_fp(function, code),
        b"runtime.mcall" | b"runtime.morestack" => switch_to_first_stack(function, code, stack),
        _ => plain(function, code),
    }
}

/// Any function: sp by the table, rbp by the prologue.
fn plain(function: &Function<'_>, code: &[u8]) -> Vec<(u64, Rule)> {
    let mut saved_from = None;
    let mut out = Vec::new();
    for delta in function.sp_deltas() {
        if delta.value > 0 && saved_from.is_none() {
            saved_from = Some(saves_fp(code, &delta));
        }
        let Some(rule) = by_sp(delta.value) else {
            out.push((delta.from, Rule::UNSUPPORTED));
            continue;
        };
        match saved_from {
            Some(Some(from)) if delta.value >= 8 => {
                if delta.from < from {
                    out.push((delta.from, rule));
                }
                if delta.to > from {
                    out.push((delta.from.max(from), rule.with_fp_at(-16)));
                }
            }
            _ => out.push((delta.from, rule)),
        }
    }
    out
}

fn by_sp(delta: i64) -> Option<Rule> {
    let offset = i32::try_from(delta.checked_add(8)?).ok()?;
    (offset >= 8).then_some(Rule::of(cfa::SP, offset))
}

/// Where rbp has been saved below the return address, if the code at the first change of sp does so.
fn saves_fp(code: &[u8], first: &SpDelta) -> Option<u64> {
    let at = usize::try_from(first.from).ok()?;
    // Go 1.21 and later: push rbp; mov rbp, rsp
    if first.value == 8 && code.get(at.checked_sub(1)?..)?.starts_with(&PUSH_FP) {
        return Some(first.from);
    }
    // Before: sub rsp, N; mov [rsp + N - 8], rbp
    let (slot, length) = match *code.get(at..)? {
        [0x48, 0x89, 0x6c, 0x24, a, ..] => (i64::from(a.cast_signed()), 5),
        [0x48, 0x89, 0xac, 0x24, a, b, c, d, ..] => (i64::from(i32::from_le_bytes([a, b, c, d])), 8),
        _ => return None,
    };
    (slot == first.value - 8).then_some(first.from + length)
}

/// A function that changes sp to another stack and back while rbp stays its frame on the old one.
fn switch_by_fp(function: &Function<'_>, code: &[u8]) -> Vec<(u64, Rule)> {
    if !code.starts_with(&PUSH_FP) {
        // Before Go 1.21 it has no frame of its own: its caller cannot be found.
        return vec![(0, Rule::UNSUPPORTED)];
    }
    let by_fp = Rule { flags: RULE_SWITCH, ..Rule::of(cfa::FP, 16).with_fp_at(-16) };
    let pushed = Rule::of(cfa::SP, 16).with_fp_at(-16);
    let mut out = vec![(0, Rule::of(cfa::SP, 8)), (1, pushed)];
    for delta in function.sp_deltas().skip_while(|d| d.to <= PUSH_FP.len() as u64) {
        let rule = if delta.value >= 8 { by_fp } else { Rule::of(cfa::SP, 8) };
        out.push((delta.from.max(PUSH_FP.len() as u64), rule));
    }
    out
}

/// A function that leaves a goroutine for the beginning of the scheduler's stack: what is below
/// it from then on is the frame of `runtime.mstart0`. Where that stack may begin anywhere the
/// function is its first frame: so it is for Go's own tracebacks, everywhere.
fn switch_to_first_stack(function: &Function<'_>, code: &[u8], stack: FirstStack) -> Vec<(u64, Rule)> {
    // mov rsp, [register + 0x38]: g.sched.sp, once.
    let mut loads = code
        .windows(4)
        .zip(4u64..)
        .filter(|(w, _)| matches!(**w, [0x48 | 0x49, 0x8b, modrm, 0x38] if modrm & 0xf8 == 0x60 && modrm & 7 != 4));
    let (Some((_, switch)), None) = (loads.next(), loads.next()) else { return vec![(0, Rule::UNSUPPORTED)] };
    let Some(at_switch) = function.sp_deltas().find(|d| d.from <= switch && switch < d.to) else {
        return vec![(0, Rule::UNSUPPORTED)];
    };
    let mut out: Vec<(u64, Rule)> = plain(function, code).into_iter().filter(|(from, _)| *from < switch).collect();
    for delta in function.sp_deltas().filter(|d| d.to > switch) {
        let rule = match stack {
            FirstStack::Below(stack) => delta.value.checked_sub(at_switch.value).and_then(|at| at.checked_add(stack)),
            FirstStack::Anywhere => {
                out.push((delta.from.max(switch), Rule::END));
                continue;
            }
            FirstStack::Unknown => None,
        };
        let rule = rule.and_then(by_sp).map(|rule| Rule { fp: fp::UNKNOWN, flags: RULE_SWITCH, ..rule });
        out.push((delta.from.max(switch), rule.unwrap_or(Rule::UNSUPPORTED)));
    }
    out
}
