//! From the bytes of an executable to the bytes of its symbol index.

use crate::{
    Error,
    elf::Elf,
    functions,
    index_write::{Identity, write},
    inspect::facts,
    plt,
};

/// How much an index, and the making of it, may take. A name beyond a limit is left
/// out and counted in [`Index::refused`](crate::Index::refused); functions and bytes
/// beyond a limit are an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexLimits {
    /// Symbols that are read (48 bytes of memory each while the index is made).
    pub symbols: usize,
    /// Functions in the index.
    pub functions: usize,
    /// Longest name, in bytes; 65,535 at most.
    pub longest_name: usize,
    /// All names together, in bytes.
    pub name_bytes: usize,
    /// The index, in bytes.
    pub index_bytes: usize,
}

impl Default for IndexLimits {
    /// Enough for the largest browsers and compilers.
    fn default() -> Self {
        Self {
            symbols: 3_000_000,
            functions: 4_000_000,
            longest_name: 32 << 10,
            name_bytes: 192 << 20,
            index_bytes: 256 << 20,
        }
    }
}

/// Makes the symbol index of an executable; `name` is the file's base name, which the
/// index carries.
///
/// Functions come from the unwind data, from `.symtab` and `.dynsym`, from Go's function
/// table, and from the stubs of calls to other files (`malloc@plt`). A file without any of them gives an index without functions.
/// Names in compressed `.gnu_debugdata` and in DWARF are not read.
pub fn build_index(elf: &[u8], name: &str, limits: &IndexLimits) -> Result<Vec<u8>, Error> {
    let parsed = Elf::parse(elf)?;
    let facts = facts(&parsed);
    // A file whose unwind data is missing or broken still has its symbols.
    let mut ranges = everflame_unwind::function_ranges(elf).unwrap_or_default();
    let stubs = plt::stubs(&parsed, limits);
    let mut symbols = functions::symbols(&parsed, &stubs, limits);
    ranges.append(&mut symbols.ranges);
    let begins = everflame_unwind::function_begins(elf).unwrap_or_default();
    ranges.extend(functions::nameless(&symbols.sorted, &begins));
    let pieces = functions::cut(&parsed, ranges, &symbols.sorted);
    let identity = Identity { content_id: facts.content_id, build_id: &facts.build_id, name: base_name(name) };
    write(&identity, &pieces, symbols.refused, limits)
}

/// The last part of a path, at most 255 bytes of it.
fn base_name(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    let end = (0..=name.len().min(255)).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
    name.get(..end).unwrap_or_default()
}
