//! Code that has no unwind data but is known by what it is: signal trampolines, beginnings of programs, threads and
//! contexts, procedure linkage tables.
use crate::elf::Elf;
use crate::error::Error;
use crate::functions::{Collector, Source};
use crate::instruction::{Effect, decode};
use crate::layout::{Rule, cfa};
use crate::limits::{MAX_ENTRY_BYTES, MAX_TRAMPOLINE_SEARCH};

/// `mov rax, 15; syscall`: `rt_sigreturn`, as every libc and Go write it.
pub(crate) const TRAMPOLINE: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
/// The new thread's half of musl's `clone`, whose stack begins here: `xor ebp, ebp; pop rdi; call r9`, and then
/// the thread's end.
const NEW_THREAD: [u8; 15] = [0x31, 0xed, 0x5f, 0x41, 0xff, 0xd1, 0x89, 0xc7, 0x31, 0xc0, 0xb0, 60, 0x0f, 0x05, 0xf4];
/// glibc's `__start_context`, to which the first function of a context returns:
/// `mov rsp, rbx; mov rdi, [rsp]; test rdi, rdi; je`. Its unwind data says nothing of that.
const START_CONTEXT: [u8; 11] = [0x48, 0x89, 0xdc, 0x48, 0x8b, 0x3c, 0x24, 0x48, 0x85, 0xff, 0x74];
/// Where in its 16 bytes a lazily bound PLT entry has pushed its number.
const PLT_PUSHED: i32 = 11;

/// Adds what is known of code that nothing covers so far.
pub(crate) fn read(elf: &Elf<'_>, out: &mut Collector<'_>) -> Result<(), Error> {
    let gaps = out.uncovered();
    trampolines(elf, &gaps, out)?;
    contexts(elf, out)?;
    entry(elf, &gaps, out)?;
    plt(elf, out)
}

/// A trampoline at `start`. The handler's return address is its first byte, and callers are
/// looked up one byte before their return address, so that byte belongs to it too.
pub(crate) fn trampoline(start: u64, out: &mut Collector<'_>) -> Result<(), Error> {
    if let Some(before) = start.checked_sub(1)
        && out.open(Source::Known, before, TRAMPOLINE.len() as u64 + 1)?
    {
        out.row(before, Rule::SIGNAL_FRAME);
        out.close()?;
    }
    Ok(())
}

fn trampolines(elf: &Elf<'_>, gaps: &[(u64, u64)], out: &mut Collector<'_>) -> Result<(), Error> {
    let mut budget = MAX_TRAMPOLINE_SEARCH;
    for &(start, end) in gaps {
        let length = usize::try_from(end - start).unwrap_or(usize::MAX).min(budget);
        if length < TRAMPOLINE.len() {
            continue;
        }
        budget -= length;
        let Some(code) = elf.bytes_at(start).and_then(|code| code.get(..length)) else { continue };
        for at in places(code, &TRAMPOLINE) {
            trampoline(start + at, out)?;
        }
        for at in places(code, &NEW_THREAD) {
            root(start + at, NEW_THREAD.len() as u64, out)?;
        }
    }
    Ok(())
}

/// Where a context begins, in files that have `makecontext` or do not say what they have. What returns to its first byte is looked up one
/// byte before.
fn contexts(elf: &Elf<'_>, out: &mut Collector<'_>) -> Result<(), Error> {
    if !elf.sections.is_empty() && !elf.symbols().any(|symbol| symbol.function && symbol.is("makecontext")) {
        return Ok(());
    }
    for segment in elf.code() {
        let code = &segment.data[..segment.data.len().min(MAX_TRAMPOLINE_SEARCH)];
        for at in places(code, &START_CONTEXT) {
            root((segment.address + at).saturating_sub(1), START_CONTEXT.len() as u64 + 1, out)?;
        }
    }
    Ok(())
}

/// Code that nothing returns from: a stack ends there.
fn root(start: u64, length: u64, out: &mut Collector<'_>) -> Result<(), Error> {
    if out.open(Source::Known, start, length)? {
        out.row(start, Rule::END);
        out.close()?;
    }
    Ok(())
}

/// Where in the code the pattern stands.
fn places(code: &[u8], pattern: &[u8]) -> Vec<u64> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(next) = code[at..].windows(pattern.len()).position(|w| w == pattern) {
        found.push((at + next) as u64);
        at += next + pattern.len();
    }
    found
}

/// The entry point calls and is not called: it is a root.
fn entry(elf: &Elf<'_>, gaps: &[(u64, u64)], out: &mut Collector<'_>) -> Result<(), Error> {
    let at = elf.entry;
    let gap = gaps.iter().find(|(start, end)| *start <= at && at < *end);
    let (Some(&(_, gap_end)), Some(code)) = (gap, elf.bytes_at(at)) else { return Ok(()) };
    // Libraries may name any code as their entry. The ABI asks a real one to clear rbp first; glibc's loader
    // hands its stack to a function, which comes back to be told where the program begins.
    let code = code.strip_prefix(&[0xf3, 0x0f, 0x1e, 0xfa]).unwrap_or(code);
    let loader = code.starts_with(&[0x48, 0x89, 0xe7, 0xe8]);
    let clears_rbp = code.starts_with(&[0x31, 0xed]) || code.starts_with(&[0x48, 0x31, 0xed]);
    if !elf.program && !clears_rbp && !loader {
        return Ok(());
    }
    let mut length = (gap_end - at).min(MAX_ENTRY_BYTES).min(ends(elf, at, loader));
    for symbol in elf.symbols() {
        if symbol.address == at && symbol.size > 0 {
            length = symbol.size.min(gap_end - at);
            break;
        }
        if symbol.address > at {
            length = length.min(symbol.address - at);
        }
    }
    root(at, length, out)
}

/// Bytes up to the end of the first jump, or call where nothing comes back: an entry point prepares one.
fn ends(elf: &Elf<'_>, entry: u64, calls_return: bool) -> u64 {
    let mut length = 0;
    while length < MAX_ENTRY_BYTES {
        let Some(instruction) = elf.bytes_at(entry.saturating_add(length)).and_then(decode) else { break };
        length += u64::from(instruction.length);
        match instruction.effect {
            Effect::Call(_) if calls_return => {}
            Effect::Call(_) | Effect::Jump(_) | Effect::Stop => return length,
            _ => {}
        }
    }
    MAX_ENTRY_BYTES
}

/// Some linkers write no unwind data for the procedure linkage table.
fn plt(elf: &Elf<'_>, out: &mut Collector<'_>) -> Result<(), Error> {
    let rules = [
        (".plt", Rule::of(cfa::PLT, PLT_PUSHED)),
        (".plt.sec", Rule::of(cfa::SP, 8)),
        (".plt.got", Rule::of(cfa::SP, 8)),
        (".iplt", Rule::of(cfa::SP, 8)),
    ];
    for (name, rule) in rules {
        let Some(section) = elf.section(name) else { continue };
        if out.open(Source::Plt, section.address, section.data.len() as u64)? {
            let mut at = section.address;
            if name == ".plt" {
                // The first entry is common to all: a number is pushed already, and the module next.
                out.row(at, Rule::of(cfa::SP, 16));
                out.row(at.saturating_add(6), Rule::of(cfa::SP, 24));
                at = at.saturating_add(16);
            }
            out.row(at, rule);
            out.close()?;
        }
    }
    Ok(())
}
