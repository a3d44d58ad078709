//! Go's own function table (`.gopclntab`), which its runtime needs for tracebacks and
//! so survives `strip`: where every function starts and what it is called.

use crate::elf::{Elf, string_at, u32_at, u64_at};

/// One function of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GoFunction<'a> {
    pub start: u64,
    /// Start of the next one.
    pub end: u64,
    /// Where the name is said to stand.
    name_at: usize,
    names: &'a [u8],
}

impl<'a> GoFunction<'a> {
    /// The name as the table has it, `None` where it does not end within `longest`.
    pub fn name(&self, longest: usize) -> Option<&'a [u8]> {
        string_at(self.names, self.name_at, longest)
    }
}

/// Width of the fields of the table's index, and what its addresses count from.
#[derive(Debug, Clone, Copy)]
enum Entries {
    /// Go 1.2 to 1.17: two words, the first an address.
    Absolute,
    /// Go 1.18 and later: two `u32`, the first an offset from the start of the code.
    From(u64),
}

#[derive(Debug)]
struct Table<'a> {
    count: usize,
    entries: Entries,
    names: &'a [u8],
    /// The records of the functions are found by offsets into these bytes.
    functions: &'a [u8],
    /// Where in them the index of functions starts.
    index: usize,
}

/// The functions of a Go program; none for other programs and for tables that cannot
/// be read.
pub(crate) fn functions<'a>(elf: &Elf<'a>) -> impl Iterator<Item = GoFunction<'a>> {
    let table = table(elf);
    let count = table.as_ref().map_or(0, |table| table.count);
    (0..count).filter_map(move |number| table.as_ref()?.function(number))
}

fn table<'a>(elf: &Elf<'a>) -> Option<Table<'a>> {
    let section = elf.pclntab()?;
    let data = elf.section_bytes(section)?;
    // Bytes 4 to 7: two zeros, the instruction quantum, the size of a pointer.
    if data.get(4..6)? != [0, 0] || *data.get(7)? != 8 {
        return None;
    }
    let word = |number: usize| u64_at(data, 8 + number * 8).and_then(|value| usize::try_from(value).ok());
    let part = |number: usize| data.get(word(number)?..);
    let count = word(0)?;
    let table = match u32_at(data, 0)? {
        0xffff_fffb => Table { count, entries: Entries::Absolute, names: data, functions: data, index: 16 },
        0xffff_fffa => Table { count, entries: Entries::Absolute, names: part(2)?, functions: part(6)?, index: 0 },
        0xffff_fff0 | 0xffff_fff1 => {
            let text = code_start(elf, section.address.checked_add(24)?, u64_at(data, 24)?)?;
            Table { count, entries: Entries::From(text), names: part(3)?, functions: part(7)?, index: 0 }
        }
        _ => return None,
    };
    // Each function takes 8 bytes at least, so the count is bounded by the file.
    (table.count <= data.len() / 8).then_some(table)
}

/// The header has the address of the code, unless that is for the loader to fill in
/// (position-independent programs) or left out (from Go 1.26 on, where the description
/// of the module has a section of its own).
fn code_start(elf: &Elf<'_>, field: u64, value: u64) -> Option<u64> {
    if value != 0 {
        return Some(value);
    }
    elf.relocated(field)
        .or_else(|| module_text(elf))
        .or_else(|| runtime_text(elf))
        .or_else(|| elf.section(".text").map(|text| text.address))
}

/// `text` of Go 1.26's `runtime.moduledata`, believed where it is the address of code.
fn module_text(elf: &Elf<'_>) -> Option<u64> {
    const TEXT_AT: u64 = 22 * 8;
    let section = elf.section(".go.module")?;
    let value = u64_at(elf.section_bytes(section)?, TEXT_AT as usize)?;
    let text = if value != 0 { value } else { elf.relocated(section.address.checked_add(TEXT_AT)?)? };
    elf.in_code(text).then_some(text)
}

/// The symbol that Go's linker puts at the start of its code, which is not the start
/// of `.text` where C code was linked in.
fn runtime_text(elf: &Elf<'_>) -> Option<u64> {
    elf.symbol_tables()
        .find_map(|table| table.symbols().find(|s| table.string(s.name, 16) == Some(b"runtime.text")).map(|s| s.value))
}

impl<'a> Table<'a> {
    fn function(&self, number: usize) -> Option<GoFunction<'a>> {
        let (start, record) = self.entry(number)?;
        // After the last one stands the end of the code where its entry would.
        let end = self.start(number + 1)?;
        let name_field = record.checked_add(match self.entries {
            Entries::Absolute => 8,
            Entries::From(_) => 4,
        })?;
        let name_at = u32_at(self.functions, name_field)? as usize;
        (start < end).then_some(GoFunction { start, end, name_at, names: self.names })
    }

    /// Address of a function, and the place of its record.
    fn entry(&self, number: usize) -> Option<(u64, usize)> {
        let record = match self.entries {
            Entries::Absolute => usize::try_from(u64_at(self.functions, self.index_at(number)? + 8)?).ok()?,
            Entries::From(_) => u32_at(self.functions, self.index_at(number)? + 4)? as usize,
        };
        Some((self.start(number)?, record))
    }

    fn start(&self, number: usize) -> Option<u64> {
        match self.entries {
            Entries::Absolute => u64_at(self.functions, self.index_at(number)?),
            Entries::From(text) => text.checked_add(u64::from(u32_at(self.functions, self.index_at(number)?)?)),
        }
    }

    fn index_at(&self, number: usize) -> Option<usize> {
        let size = match self.entries {
            Entries::Absolute => 16,
            Entries::From(_) => 8,
        };
        number.checked_mul(size)?.checked_add(self.index)
    }
}
