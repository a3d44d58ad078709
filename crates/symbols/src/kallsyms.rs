//! The kernel's own symbols, from the text of `/proc/kallsyms` and `/proc/modules`.
//!
//! Only functions are kept, one name an address: names in one blob, addresses as
//! 32-bit offsets, 4 + 4 bytes and the name each.

use crate::Error;

/// Name of the kernel's own image.
pub const VMLINUX: &str = "vmlinux";

/// Most functions that are kept; the largest distribution kernels have 150,000 with
/// all their modules loaded.
pub const MOST_FUNCTIONS: usize = 1 << 20;

/// An address this far behind the last symbol before it belongs to no function.
const LONGEST_FUNCTION: u64 = 1 << 20;

/// Where the x86-64 kernel is linked; what a running one adds to it is random.
const X86_64_TEXT: u64 = 0xffff_ffff_8100_0000;

/// The kernel's functions, compact in memory.
#[derive(Debug)]
pub struct KernelSymbols {
    names: Box<str>,
    /// Offset from the base of its part, growing within a part.
    offsets: Box<[u32]>,
    /// Where its name starts, with one more for the end of the last one.
    name_starts: Box<[u32]>,
    parts: Box<[Part]>,
}

/// Functions of one module that lie within 4 GiB.
#[derive(Debug)]
struct Part {
    base: u64,
    first: u32,
    end: u32,
    /// What is subtracted from a running address to get the one in the file.
    bias: u64,
    module: Box<str>,
    /// End of the module's code in memory, where that is known.
    limit: u64,
}

/// The function at a kernel address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelSymbol<'a> {
    /// The function.
    pub name: &'a str,
    /// `vmlinux`, or the module's name.
    pub module: &'a str,
    /// Bytes into the function.
    pub offset: u64,
    /// The same address without this boot's randomness: for `vmlinux` the ELF virtual
    /// address, for modules the distance from where the module starts.
    pub address: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Line<'a> {
    address: u64,
    /// Global before weak before local.
    rank: u8,
    length: usize,
    name: &'a str,
    module: &'a str,
}

impl KernelSymbols {
    /// Reads the texts of `/proc/kallsyms` and, for where modules start, `/proc/modules`.
    pub fn parse(kallsyms: &str, modules: Option<&str>) -> Result<Self, Error> {
        let mut hidden = false;
        let mut text = None;
        let mut lines = Vec::new();
        for line in kallsyms.lines().filter_map(Line::parse) {
            if line.address == 0 {
                hidden = true;
                continue;
            }
            if line.module == VMLINUX && (line.name == "_text" || (line.name == "_stext" && text.is_none())) {
                text = Some(line.address);
            }
            // Padding before functions, for the compilers' control-flow checks: no code runs there.
            let padding = line.name.starts_with("__pfx_") || line.name.starts_with("__cfi_");
            if !padding && lines.len() < MOST_FUNCTIONS {
                lines.push(line);
            }
        }
        if lines.is_empty() {
            return Err(if hidden { Error::AddressesHidden } else { Error::NoKernelSymbols });
        }
        lines.sort_unstable();
        lines.dedup_by_key(|line| line.address);
        Ok(Self::pack(&lines, text, modules.unwrap_or_default()))
    }

    fn pack(lines: &[Line<'_>], text: Option<u64>, modules: &str) -> Self {
        let mut names = String::new();
        let mut offsets = Vec::with_capacity(lines.len());
        let mut name_starts = Vec::with_capacity(lines.len() + 1);
        let mut parts: Vec<Part> = Vec::new();
        for line in lines {
            let number = offsets.len() as u32;
            let within = |part: &Part| {
                (*part.module == *line.module).then(|| u32::try_from(line.address - part.base).ok()).flatten()
            };
            let offset = parts.last().and_then(within).unwrap_or_else(|| {
                parts.push(Part::new(line, number, text, modules));
                0
            });
            if let Some(part) = parts.last_mut() {
                part.end = number + 1;
            }
            offsets.push(offset);
            name_starts.push(names.len() as u32);
            names.push_str(line.name);
        }
        name_starts.push(names.len() as u32);
        Self { names: names.into(), offsets: offsets.into(), name_starts: name_starts.into(), parts: parts.into() }
    }

    /// The function that holds a kernel address.
    pub fn resolve(&self, address: u64) -> Option<KernelSymbol<'_>> {
        let part = self.parts.get(self.parts.partition_point(|part| part.base <= address).checked_sub(1)?)?;
        let offsets = self.offsets.get(part.first as usize..part.end as usize)?;
        let relative = address - part.base;
        let number = offsets.partition_point(|&offset| u64::from(offset) <= relative).checked_sub(1)?;
        let offset = relative - u64::from(*offsets.get(number)?);
        if address >= part.limit || offset >= LONGEST_FUNCTION {
            return None;
        }
        let number = part.first as usize + number;
        let (start, end) = (*self.name_starts.get(number)? as usize, *self.name_starts.get(number + 1)? as usize);
        Some(KernelSymbol {
            name: self.names.get(start..end)?,
            module: &part.module,
            offset,
            address: address.wrapping_sub(part.bias),
        })
    }

    /// How many functions there are.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is none; never so after [`KernelSymbols::parse`].
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Memory that the table takes, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let parts = self.parts.iter().map(|part| size_of::<Part>() + part.module.len()).sum::<usize>();
        self.names.len() + size_of_val(&*self.offsets) + size_of_val(&*self.name_starts) + parts
    }
}

impl<'a> Line<'a> {
    /// `ffffffff81000000 T _text` or `ffffffffc0000000 t init_once\t[fuse]`; `None` for
    /// what is not a function.
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        let rank = match words.next()? {
            "T" => 0,
            "W" | "w" => 1,
            "t" | "i" => 2,
            _ => return None,
        };
        let name = words.next()?;
        let module = words.next().map_or(VMLINUX, |module| module.trim_matches(['[', ']']));
        Some(Self { address, rank, length: name.len(), name, module })
    }
}

impl Part {
    fn new(line: &Line<'_>, first: u32, text: Option<u64>, modules: &str) -> Self {
        let loaded = module_place(modules, line.module);
        let bias = match (line.module, text) {
            (VMLINUX, Some(text)) if text >= 0xffff_ffff_8000_0000 => text.wrapping_sub(X86_64_TEXT),
            (VMLINUX, Some(text)) => text,
            _ => loaded.map_or(line.address, |(base, _)| base),
        };
        let limit = loaded.map_or(u64::MAX, |(base, size)| base.saturating_add(size));
        // Code may lie apart from the rest of its module, which is what the base names.
        let limit = if line.address < limit { limit } else { u64::MAX };
        Self { base: line.address, first, end: first, bias, module: line.module.into(), limit }
    }
}

/// Base and size of a module: `fuse 180224 1 - Live 0xffffffffc0000000`.
fn module_place(modules: &str, name: &str) -> Option<(u64, u64)> {
    modules.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        if words.next()? != name {
            return None;
        }
        let size = words.next()?.parse().ok()?;
        let base = u64::from_str_radix(words.find(|word| word.starts_with("0x"))?.trim_start_matches("0x"), 16).ok()?;
        (base != 0).then_some((base, size))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KALLSYMS: &str = "\
ffffffff9e000000 T _text
ffffffff9e000000 T _stext
ffffffff9e0000f0 t __pfx_do_one_initcall
ffffffff9e000100 T do_one_initcall
ffffffff9e000100 t __do_one_initcall
ffffffff9e000200 W weak_one
ffffffff9e000300 D some_data
ffffffff9e000400 t last_one
ffffffffc0201000 t fuse_read\t[fuse]
ffffffffc0201080 t fuse_write\t[fuse]
ffffffffc0300000 t bpf_prog_6deef7357e7b4530_f\t[bpf]
not a line
";
    const MODULES: &str = "fuse 8192 1 - Live 0xffffffffc0200000\nother 1 0 - Live 0x0000000000000000\n";

    fn symbols() -> KernelSymbols {
        KernelSymbols::parse(KALLSYMS, Some(MODULES)).unwrap()
    }

    fn at(symbols: &KernelSymbols, address: u64) -> Option<(&str, &str, u64, u64)> {
        symbols.resolve(address).map(|s| (s.name, s.module, s.offset, s.address))
    }

    #[test]
    fn functions_of_the_image_and_of_modules() {
        let symbols = symbols();
        let text = "_text";
        assert_eq!(at(&symbols, 0xffff_ffff_9e00_0010), Some((text, VMLINUX, 0x10, 0xffff_ffff_8100_0010)));
        let initcall = ("do_one_initcall", VMLINUX, 0x12, 0xffff_ffff_8100_0112);
        assert_eq!(at(&symbols, 0xffff_ffff_9e00_0112), Some(initcall));
        assert_eq!(at(&symbols, 0xffff_ffff_9e00_03ff).map(|s| s.0), Some("weak_one"));
        assert_eq!(at(&symbols, 0xffff_ffff_c020_1084), Some(("fuse_write", "fuse", 4, 0x1084)));
        assert_eq!(
            at(&symbols, 0xffff_ffff_c030_0008).map(|s| (s.0, s.1, s.2)),
            Some(("bpf_prog_6deef7357e7b4530_f", "bpf", 8))
        );
    }

    #[test]
    fn between_and_beyond_is_nothing() {
        let symbols = symbols();
        for address in [0, 0xffff_ffff_8000_0000, 0xffff_ffff_9e80_0000, 0xffff_ffff_c020_2000, u64::MAX] {
            assert_eq!(at(&symbols, address), None, "{address:#x}");
        }
    }

    #[test]
    fn hidden_addresses_say_what_to_do() {
        let hidden = "0000000000000000 T _text\n0000000000000000 t foo\n";
        let error = KernelSymbols::parse(hidden, None).unwrap_err();
        assert_eq!(error, Error::AddressesHidden);
        assert!(error.to_string().contains("kptr_restrict"));
        assert_eq!(KernelSymbols::parse("", None).unwrap_err(), Error::NoKernelSymbols);
    }

    #[test]
    fn far_apart_addresses_are_kept() {
        let text = "0000000000001000 T low\n0000700000000000 T middle\nffffffff81000000 T high\n";
        let symbols = KernelSymbols::parse(text, None).unwrap();
        for (address, name) in [(0x1001, "low"), (0x7000_0000_0001, "middle"), (0xffff_ffff_8100_0001, "high")] {
            assert_eq!(at(&symbols, address).map(|s| (s.0, s.2)), Some((name, 1)));
        }
    }
}
