//! The little of ELF that symbols need, read from bytes that nobody vouches for:
//! every read is bounded by the file, and no structure has to be aligned.

use crate::Error;

/// Little-endian integers at any offset; `None` past the end.
pub(crate) fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*data.get(at..)?.first_chunk()?))
}
pub(crate) fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*data.get(at..)?.first_chunk()?))
}
pub(crate) fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*data.get(at..)?.first_chunk()?))
}

pub(crate) const ELF_HEADER_SIZE: usize = 64;
const PROGRAM_HEADER_SIZE: usize = 56;
const SECTION_HEADER_SIZE: usize = 64;
const SYMBOL_SIZE: usize = 24;
const RELOCATION_SIZE: usize = 24;

/// Real files have one of each kind.
const MOST_SYMBOL_TABLES: usize = 4;

pub(crate) const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PF_X: u32 = 1;
const SHT_PROGBITS: u32 = 1;
const SHT_SYMTAB: u32 = 2;
const SHT_RELA: u32 = 4;
const SHT_NOTE: u32 = 7;
const SHT_NOBITS: u32 = 8;
const SHT_DYNSYM: u32 = 11;
const SHF_COMPRESSED: u64 = 0x800;
const NT_GNU_BUILD_ID: u32 = 3;

/// A 64-bit little-endian ELF file.
#[derive(Debug)]
pub(crate) struct Elf<'a> {
    pub data: &'a [u8],
    pub machine: u16,
    pub entry: u64,
    /// The program headers as they stand in the file.
    pub program_header_bytes: &'a [u8],
    pub program_headers: Vec<ProgramHeader>,
    /// Empty where the file has no section table, or one that cannot be read.
    pub sections: Vec<Section<'a>>,
    /// The section table as it stands in the file, and the names of the sections.
    pub section_header_bytes: [&'a [u8]; 2],
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct ProgramHeader {
    pub kind: u32,
    pub flags: u32,
    pub offset: u64,
    pub vaddr: u64,
    pub file_size: u64,
    pub mem_size: u64,
}

impl ProgramHeader {
    pub fn executable(&self) -> bool {
        self.kind == PT_LOAD && self.flags & PF_X != 0
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Section<'a> {
    pub name: &'a [u8],
    pub kind: u32,
    pub flags: u64,
    pub address: u64,
    pub offset: u64,
    pub size: u64,
    pub link: u32,
    pub entry_size: u64,
}

/// One row of a symbol table that has a place in this file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ElfSymbol {
    pub name: u32,
    pub kind: u8,
    pub bind: u8,
    pub value: u64,
    pub size: u64,
}

impl<'a> Elf<'a> {
    pub fn parse(data: &'a [u8]) -> Result<Self, Error> {
        if data.get(..4) != Some(b"\x7fELF") {
            return Err(Error::NotElf);
        }
        if data.get(4..6) != Some(&[2, 1]) {
            return Err(Error::Unsupported);
        }
        Self::parse_headers(data).ok_or(Error::Truncated)
    }

    fn parse_headers(data: &'a [u8]) -> Option<Self> {
        data.get(..ELF_HEADER_SIZE)?;
        let (machine, entry) = (u16_at(data, 18)?, u64_at(data, 24)?);
        let (sections, section_header_bytes) = parse_sections(data).unwrap_or_default();
        let count = usize::from(u16_at(data, 56)?);
        let program_header_bytes = match count {
            0 => &[],
            _ if usize::from(u16_at(data, 54)?) != PROGRAM_HEADER_SIZE => return None,
            _ => slice(data, u64_at(data, 32)?, (count * PROGRAM_HEADER_SIZE) as u64)?,
        };
        let program_headers = program_header_bytes
            .chunks_exact(PROGRAM_HEADER_SIZE)
            .map(|row| {
                Some(ProgramHeader {
                    kind: u32_at(row, 0)?,
                    flags: u32_at(row, 4)?,
                    offset: u64_at(row, 8)?,
                    vaddr: u64_at(row, 16)?,
                    file_size: u64_at(row, 32)?,
                    mem_size: u64_at(row, 40)?,
                })
            })
            .collect::<Option<_>>()?;
        Some(Self { data, machine, entry, program_header_bytes, program_headers, sections, section_header_bytes })
    }

    /// Whether the address is in a segment that may run.
    pub fn in_code(&self, address: u64) -> bool {
        self.code_end(address).is_some()
    }

    /// Where the executable segment that holds the address ends.
    pub fn code_end(&self, address: u64) -> Option<u64> {
        let holds =
            |p: &&ProgramHeader| p.executable() && address.checked_sub(p.vaddr).is_some_and(|into| into < p.mem_size);
        self.program_headers.iter().find(holds).map(|p| p.vaddr.saturating_add(p.mem_size))
    }

    /// The first section of that name.
    pub fn section(&self, name: &str) -> Option<&Section<'a>> {
        self.sections.iter().find(|s| s.name == name.as_bytes())
    }

    /// Its bytes, if they are in the file and not compressed.
    pub fn section_bytes(&self, section: &Section<'a>) -> Option<&'a [u8]> {
        if section.kind == SHT_NOBITS || section.flags & SHF_COMPRESSED != 0 {
            return None;
        }
        slice(self.data, section.offset, section.size)
    }

    /// `.gopclntab`, which position-independent Go programs keep under another name.
    pub fn pclntab(&self) -> Option<&Section<'a>> {
        self.sections.iter().find(|s| s.kind == SHT_PROGBITS && s.name.ends_with(b".gopclntab"))
    }

    /// The symbol tables with their strings: `.symtab` and `.dynsym`.
    pub fn symbol_tables(&self) -> impl Iterator<Item = SymbolTable<'a>> {
        let tables = self.sections.iter().filter(|s| matches!(s.kind, SHT_SYMTAB | SHT_DYNSYM));
        tables.take(MOST_SYMBOL_TABLES).filter_map(|table| self.symbol_table(table))
    }

    /// Numbers of the sections from which names and their places are read.
    pub fn naming_sections(&self) -> impl Iterator<Item = usize> + Clone {
        let tables = self.sections.iter().filter(|s| matches!(s.kind, SHT_SYMTAB | SHT_DYNSYM));
        let strings: Vec<u32> = tables.take(MOST_SYMBOL_TABLES).map(|table| table.link).collect();
        let read = move |number: usize, s: &Section<'_>| {
            matches!(s.kind, SHT_SYMTAB | SHT_DYNSYM | SHT_RELA)
                || s.name.starts_with(b".plt")
                || s.name.ends_with(b".gopclntab")
                || matches!(s.name, b".eh_frame" | b".eh_frame_hdr" | b".debug_frame" | b".go.module")
                || strings.iter().any(|&link| link as usize == number)
        };
        self.sections.iter().enumerate().filter(move |(number, s)| read(*number, s)).map(|(number, _)| number)
    }

    /// `.dynsym` with its strings.
    pub fn dynamic_symbols(&self) -> Option<SymbolTable<'a>> {
        let mut tables = self.sections.iter().filter(|s| matches!(s.kind, SHT_SYMTAB | SHT_DYNSYM));
        self.symbol_table(tables.by_ref().take(MOST_SYMBOL_TABLES).find(|s| s.kind == SHT_DYNSYM)?)
    }

    fn symbol_table(&self, table: &Section<'a>) -> Option<SymbolTable<'a>> {
        let strings = self.sections.get(table.link as usize)?;
        Some(SymbolTable { rows: self.section_bytes(table)?, strings: self.section_bytes(strings)? })
    }

    /// Rows of relocations with addend: address, type and symbol, addend.
    pub fn relocations(&self) -> impl Iterator<Item = &'a [u8]> {
        let tables = self.sections.iter().filter(|s| s.kind == SHT_RELA);
        // Sections may lie over each other: the file's size bounds them together.
        let most = self.data.len() / RELOCATION_SIZE;
        let rows = tables.filter_map(|s| self.section_bytes(s)).flat_map(|rows| rows.chunks_exact(RELOCATION_SIZE));
        rows.take(most)
    }

    /// The addend of a relocation that fills the 8 bytes at `address`, which in a
    /// position-independent file is where the value stands.
    pub fn relocated(&self, address: u64) -> Option<u64> {
        u64_at(self.relocations().find(|row| u64_at(row, 0) == Some(address))?, 16)
    }

    /// The GNU build id, from the notes that are loaded or, without program headers,
    /// from the sections.
    pub fn build_id(&self) -> Option<&'a [u8]> {
        let segments = self.program_headers.iter().filter(|p| p.kind == PT_NOTE).map(|p| (p.offset, p.file_size));
        let sections = self.sections.iter().filter(|s| s.kind == SHT_NOTE).map(|s| (s.offset, s.size));
        segments.chain(sections).find_map(|(offset, size)| build_id_note(slice(self.data, offset, size)?))
    }
}

/// Rows and strings of one symbol table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SymbolTable<'a> {
    pub rows: &'a [u8],
    pub strings: &'a [u8],
}

impl<'a> SymbolTable<'a> {
    /// The symbols that are defined at an address.
    pub fn symbols(&self) -> impl Iterator<Item = ElfSymbol> {
        const SHN_UNDEF: u16 = 0;
        const SHN_ABS: u16 = 0xfff1;
        self.rows.chunks_exact(SYMBOL_SIZE).filter_map(|row| {
            let section = u16_at(row, 6)?;
            if section == SHN_UNDEF || section == SHN_ABS {
                return None;
            }
            let info = *row.get(4)?;
            Some(ElfSymbol {
                name: u32_at(row, 0)?,
                kind: info & 15,
                bind: info >> 4,
                value: u64_at(row, 8)?,
                size: u64_at(row, 16)?,
            })
        })
    }

    /// Where the name of a symbol stands.
    pub fn name_of(&self, symbol: usize) -> Option<u32> {
        u32_at(self.rows, symbol.checked_mul(SYMBOL_SIZE)?)
    }

    /// The string at `at`, `None` where it does not end within `longest` bytes.
    pub fn string(&self, at: u32, longest: usize) -> Option<&'a [u8]> {
        string_at(self.strings, at as usize, longest)
    }
}

/// A zero-terminated string of at most `longest` bytes.
pub(crate) fn string_at(data: &[u8], at: usize, longest: usize) -> Option<&[u8]> {
    let tail = data.get(at..)?;
    let window = tail.get(..=longest).unwrap_or(tail);
    let end = window.iter().position(|&b| b == 0)?;
    window.get(..end)
}

fn parse_sections(data: &[u8]) -> Option<(Vec<Section<'_>>, [&[u8]; 2])> {
    let offset = u64_at(data, 40)?;
    if offset == 0 || usize::from(u16_at(data, 58)?) != SECTION_HEADER_SIZE {
        return None;
    }
    // With 65,280 sections and more, both numbers stand in the first section header.
    let first = slice(data, offset, SECTION_HEADER_SIZE as u64)?;
    let count = match u16_at(data, 60)? {
        0 => u64_at(first, 32)?,
        count => u64::from(count),
    };
    let names_index = match u16_at(data, 62)? {
        0xffff => u32_at(first, 40)?,
        index => u32::from(index),
    };
    let rows = slice(data, offset, count.checked_mul(SECTION_HEADER_SIZE as u64)?)?;
    let names_row = rows.chunks_exact(SECTION_HEADER_SIZE).nth(names_index as usize)?;
    let names = slice(data, u64_at(names_row, 24)?, u64_at(names_row, 32)?)?;
    const LONGEST_SECTION_NAME: usize = 64;
    let sections = rows
        .chunks_exact(SECTION_HEADER_SIZE)
        .map(|row| {
            Some(Section {
                name: string_at(names, u32_at(row, 0)? as usize, LONGEST_SECTION_NAME).unwrap_or_default(),
                kind: u32_at(row, 4)?,
                flags: u64_at(row, 8)?,
                address: u64_at(row, 16)?,
                offset: u64_at(row, 24)?,
                size: u64_at(row, 32)?,
                link: u32_at(row, 40)?,
                entry_size: u64_at(row, 56)?,
            })
        })
        .collect::<Option<_>>()?;
    Some((sections, [rows, names]))
}

fn build_id_note(mut notes: &[u8]) -> Option<&[u8]> {
    const LONGEST_BUILD_ID: usize = 64;
    while notes.len() >= 12 {
        let name_size = u32_at(notes, 0)? as usize;
        let value_size = u32_at(notes, 4)? as usize;
        let kind = u32_at(notes, 8)?;
        let value_at = 12usize.checked_add(name_size.checked_next_multiple_of(4)?)?;
        let value_end = value_at.checked_add(value_size)?;
        let value = notes.get(value_at..value_end)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..16) == Some(b"GNU\0") && name_size == 4 {
            return (1..=LONGEST_BUILD_ID).contains(&value.len()).then_some(value);
        }
        notes = notes.get(value_end.checked_next_multiple_of(4)?..).unwrap_or_default();
    }
    None
}

pub(crate) fn slice(data: &[u8], offset: u64, size: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    let end = usize::try_from(offset.checked_add(size)?).ok()?;
    data.get(start..end)
}
