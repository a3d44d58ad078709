//! Where Go's text begins: pcs of its function table are relative to that, and newer tables do not say it.
use crate::elf::Elf;
use crate::machine::Machine;
use crate::pclntab::PclnTab;
use crate::reader::Reader;

const SHT_RELA: u32 = 4;
const R_X86_64_RELATIVE: u64 = 8;
const R_AARCH64_RELATIVE: u64 = 1027;
/// Offset of the word `text` in `runtime.moduledata`, Go 1.16 and later.
const TEXT_IN_MODULE: u64 = 176;

/// The address, from whatever says it: the table itself, the module data, its relocations, a symbol.
pub(crate) fn find(elf: &Elf<'_>, table_address: u64, table: &PclnTab<'_>) -> Option<u64> {
    let in_code = |text: &u64| elf.code_end(*text).is_some();
    table
        .text
        .filter(in_code)
        .or_else(|| by_module(elf, table_address, table).filter(in_code))
        .or_else(|| by_relocation(elf, table_address).filter(in_code))
        .or_else(|| elf.symbols().find(|s| s.is("runtime.text")).map(|s| s.address).filter(in_code))
        .or_else(|| by_entry(elf, table).filter(in_code))
}

/// The module data is where a pointer to the table is followed by one to its names.
fn by_module(elf: &Elf<'_>, table_address: u64, table: &PclnTab<'_>) -> Option<u64> {
    let names = table_address.wrapping_add(table.names_offset);
    let mut pattern = [0; 16];
    pattern[..8].copy_from_slice(&table_address.to_le_bytes());
    pattern[8..].copy_from_slice(&names.to_le_bytes());
    elf.segments.iter().filter(|s| !s.executable).find_map(|segment| {
        let words = segment.data.chunks_exact(8).zip((0u64..).step_by(8));
        words.filter(|(word, _)| *word == &pattern[..8]).find_map(|(_, at)| {
            let mut module = Reader::at(segment.data, at)?;
            if module.take(16)? != pattern {
                return None;
            }
            module.skip(TEXT_IN_MODULE - 16)?;
            module.u64()
        })
    })
}

/// In a position-independent executable the module data may be filled in only when it is loaded.
fn by_relocation(elf: &Elf<'_>, table_address: u64) -> Option<u64> {
    let wanted = match elf.machine {
        Machine::X86_64 => R_X86_64_RELATIVE,
        Machine::Arm64 => R_AARCH64_RELATIVE,
    };
    let relative = || {
        elf.sections.iter().filter(|s| s.kind == SHT_RELA).flat_map(|s| s.data.chunks_exact(24)).filter_map(|entry| {
            let mut entry = Reader::new(entry);
            let (offset, kind, addend) = (entry.u64()?, entry.u64()?, entry.u64()?);
            (kind & 0xffff_ffff == wanted).then_some((offset, addend))
        })
    };
    // The table's address is the first word of the module data (and may be used elsewhere too).
    let modules: Vec<u64> =
        relative().filter(|(_, addend)| *addend == table_address).map(|(offset, _)| offset).take(16).collect();
    relative()
        .find(|(offset, addend)| {
            modules.iter().any(|m| m.wrapping_add(TEXT_IN_MODULE) == *offset) && elf.code_end(*addend).is_some()
        })
        .map(|(_, addend)| addend)
}

/// A program that Go linked by itself enters at a function with a well-known name.
fn by_entry(elf: &Elf<'_>, table: &PclnTab<'_>) -> Option<u64> {
    let entry = table.functions().find(|f| matches!(f.name, b"_rt0_amd64_linux" | b"_rt0_arm64_linux"))?;
    elf.entry.checked_sub(entry.start)
}
