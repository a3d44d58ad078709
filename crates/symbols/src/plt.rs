//! Names for the stubs through which calls to other files go. No symbol names them,
//! and one entry of unwind data covers all of them, so that without this every call
//! would seem to pass one nameless function.

use rustc_hash::FxHashMap;

use crate::{
    IndexLimits,
    elf::{Elf, Section, u32_at, u64_at},
};

/// A stub and what it is called: `malloc@plt`.
#[derive(Debug)]
pub(crate) struct Stub {
    pub address: u64,
    pub size: u64,
    pub name: String,
}

const EM_X86_64: u16 = 62;

/// The stubs of an x86-64 file: code in `.plt*` that jumps through a slot which a
/// relocation fills with the address of a named function.
pub(crate) fn stubs(elf: &Elf<'_>, limits: &IndexLimits) -> Vec<Stub> {
    let mut stubs = Vec::new();
    if elf.machine != EM_X86_64 {
        return stubs;
    }
    let sections: Vec<&Section<'_>> = elf.sections.iter().filter(|s| s.name.starts_with(b".plt")).collect();
    if sections.is_empty() {
        return stubs;
    }
    let slots = slots(elf, limits);
    let mut budget = limits.name_bytes;
    for section in sections.into_iter().take(MOST_SECTIONS) {
        let size = if section.entry_size == 8 { 8 } else { 16 };
        for (number, stub) in elf.section_bytes(section).unwrap_or_default().chunks_exact(size).enumerate() {
            let Some(address) = section.address.checked_add((number * size) as u64) else { break };
            let Some(name) = target(stub, address).and_then(|slot| slots.get(&slot)) else { continue };
            let Some(left) = budget.checked_sub(name.len() + 4).filter(|_| stubs.len() < limits.symbols) else { break };
            budget = left;
            stubs.push(Stub { address, size: size as u64, name: format!("{name}@plt") });
        }
    }
    stubs
}

/// `.plt`, `.plt.got`, `.plt.sec`, `.plt.bnd`.
const MOST_SECTIONS: usize = 8;

/// The slot that `jmp *slot(%rip)` in the stub reads.
fn target(stub: &[u8], address: u64) -> Option<u64> {
    let at = stub.windows(2).position(|code| code == [0xff, 0x25])?;
    let distance = u32_at(stub, at + 2)? as i32;
    address.checked_add(at as u64 + 6)?.checked_add_signed(i64::from(distance))
}

/// What relocations put into slots, by address of the slot.
fn slots<'a>(elf: &Elf<'a>, limits: &IndexLimits) -> FxHashMap<u64, &'a str> {
    const R_X86_64_GLOB_DAT: u64 = 6;
    const R_X86_64_JUMP_SLOT: u64 = 7;
    let mut slots = FxHashMap::default();
    let Some(table) = elf.dynamic_symbols() else { return slots };
    for row in elf.relocations() {
        let (Some(slot), Some(info)) = (u64_at(row, 0), u64_at(row, 8)) else { continue };
        if !matches!(info & 0xffff_ffff, R_X86_64_GLOB_DAT | R_X86_64_JUMP_SLOT) || slots.len() >= limits.symbols {
            continue;
        }
        let name = table.name_of((info >> 32) as usize).and_then(|name| table.string(name, limits.longest_name));
        if let Some(name) = name.and_then(|name| str::from_utf8(name).ok()).filter(|name| !name.is_empty()) {
            slots.insert(slot, name);
        }
    }
    slots
}
