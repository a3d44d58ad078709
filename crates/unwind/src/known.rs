//! Code that has no unwind data but is known by what it is: signal trampolines, beginnings of programs, threads and
//! contexts, procedure linkage tables.
use crate::elf::Elf;
use crate::error::Error;
use crate::functions::{Collector, Source};
use crate::instruction::{Effect, decode};
use crate::layout::{Rule, cfa};
use crate::limits::{MAX_ENTRY_BYTES, MAX_TRAMPOLINE_SEARCH};
use crate::machine::Machine;

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
        && out.open(Source::Known, before, out.machine.trampoline().len() as u64 + 1)?
    {
        out.row(before, out.machine.signal_frame());
        out.close()?;
    }
    Ok(())
}

fn trampolines(elf: &Elf<'_>, gaps: &[(u64, u64)], out: &mut Collector<'_>) -> Result<(), Error> {
    let mut budget = MAX_TRAMPOLINE_SEARCH;
    let (sigreturn, new_thread) = (elf.machine.trampoline(), elf.machine.new_thread());
    for &(start, end) in gaps {
        let length = usize::try_from(end - start).unwrap_or(usize::MAX).min(budget);
        if length < sigreturn.len() {
            continue;
        }
        budget -= length;
        let Some(code) = elf.bytes_at(start).and_then(|code| code.get(..length)) else { continue };
        for at in places(code, sigreturn) {
            trampoline(start + at, out)?;
        }
        for at in places(code, new_thread) {
            root(start + at, new_thread.len() as u64, out)?;
        }
    }
    Ok(())
}

/// Where a context begins, in files that have `makecontext` or do not say what they have. What returns to its first byte is looked up one
/// byte before.
fn contexts(elf: &Elf<'_>, out: &mut Collector<'_>) -> Result<(), Error> {
    let pattern = elf.machine.start_context();
    if pattern.is_empty()
        || !elf.sections.is_empty() && !elf.symbols().any(|symbol| symbol.function && symbol.is("makecontext"))
    {
        return Ok(());
    }
    for segment in elf.code() {
        let code = &segment.data[..segment.data.len().min(MAX_TRAMPOLINE_SEARCH)];
        for at in places(code, pattern) {
            root((segment.address + at).saturating_sub(1), pattern.len() as u64 + 1, out)?;
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
    // Libraries may name any code as their entry. The ABI asks a real one to clear the frame pointer first; glibc's
    // loader hands its stack to a function, which comes back to be told where the program begins.
    let (loader, clears_fp) = match elf.machine {
        Machine::X86_64 => {
            let code = code.strip_prefix(&[0xf3, 0x0f, 0x1e, 0xfa]).unwrap_or(code);
            let clears_rbp = code.starts_with(&[0x31, 0xed]) || code.starts_with(&[0x48, 0x31, 0xed]);
            (code.starts_with(&[0x48, 0x89, 0xe7, 0xe8]), clears_rbp)
        }
        // mov x29, #0, perhaps after a landing pad (bti). The loader has unwind data here.
        Machine::Arm64 => (false, code.chunks_exact(4).take(2).any(|word| word == [0x1d, 0, 0x80, 0xd2])),
    };
    if !elf.program && !clears_fp && !loader {
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
    if elf.machine == Machine::Arm64 {
        let words = elf.bytes_at(entry).unwrap_or_default().chunks_exact(4).take(MAX_ENTRY_BYTES as usize / 4);
        // b, bl
        let jump = words.zip(1u64..).find(|(word, _)| word.last().is_some_and(|byte| byte & 0x7c == 0x14));
        return jump.map_or(MAX_ENTRY_BYTES, |(_, count)| 4 * count);
    }
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
    if elf.machine == Machine::Arm64 {
        return plt_arm64(elf, out);
    }
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

/// On arm64 no linker does. The first entry pushes x16 and x30, which stays as it is.
fn plt_arm64(elf: &Elf<'_>, out: &mut Collector<'_>) -> Result<(), Error> {
    const PUSH: [u8; 4] = [0xf0, 0x7b, 0xbf, 0xa9]; // stp x16, x30, [sp, #-16]!
    const FIRST: u64 = 32;
    let entry = elf.machine.entry();
    for name in [".plt", ".plt.got", ".iplt"] {
        let Some(section) = elf.section(name) else { continue };
        if out.open(Source::Plt, section.address, section.data.len() as u64)? {
            out.row(section.address, entry);
            let push =
                section.data.chunks_exact(4).take(FIRST as usize / 4).zip(1u64..).find(|(word, _)| *word == PUSH);
            if let Some((_, behind)) = push {
                out.row(section.address.saturating_add(4 * behind), Rule { cfa_offset: 16, ..entry });
                out.row(section.address.saturating_add(FIRST), entry);
            }
            out.close()?;
        }
    }
    Ok(())
}
