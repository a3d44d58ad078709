//! An independent judge of stacks: where the functions of an ELF file begin, and which of
//! them are the ends of a stack, read from `.eh_frame` by gimli. It shares no code with the
//! product's own converter.

use std::collections::BTreeSet;
use std::path::Path;

use gimli::{BaseAddresses, CallFrameInstruction, CieOrFde, EhFrame, EndianSlice, LittleEndian, UnwindSection, X86_64};
use object::{Object, ObjectSection, ObjectSegment};

use crate::graph;

/// What a file's own unwind data says.
#[derive(Debug)]
pub struct Judge {
    /// Base name of the file.
    pub name: String,
    /// Start and end of every function, sorted.
    functions: Vec<(u64, u64)>,
    /// Starts of the functions whose return address is undefined somewhere: ends of stacks.
    roots: BTreeSet<u64>,
    /// Where glibc's contexts begin, which no symbol and no unwind data says.
    contexts: BTreeSet<u64>,
    /// The program's entry.
    entry: u64,
    /// File offset, length and ELF virtual address of every segment.
    segments: Vec<(u64, u64, u64)>,
}

/// Names that end a stack whatever file they are in: the contract's list.
const ROOT_NAMES: [&str; 10] = [
    "_start",
    "clone",
    "__clone",
    "clone3",
    "__clone3",
    "runtime.goexit",
    "runtime.goexit.abi0",
    "runtime.mstart",
    "_rt0_amd64",
    "_rt0_amd64_linux",
];

impl Judge {
    /// Reads a file. musl's have no unwind data at all: of them it knows only the entry.
    pub fn new(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = object::File::parse(&*bytes).unwrap();
        let section = file.section_by_name(".eh_frame");
        let data = section.as_ref().map_or(&[][..], |section| section.data().unwrap());
        let mut frames = EhFrame::new(data, LittleEndian);
        frames.set_address_size(8);
        let mut bases = BaseAddresses::default().set_eh_frame(section.map_or(0, |section| section.address()));
        if let Some(text) = file.section_by_name(".text") {
            bases = bases.set_text(text.address());
        }
        let (mut functions, mut roots) = (Vec::new(), BTreeSet::new());
        let mut entries = frames.entries(&bases);
        while let Ok(Some(entry)) = entries.next() {
            let CieOrFde::Fde(partial) = entry else { continue };
            let Ok(fde) = partial.parse(EhFrame::cie_from_offset) else { continue };
            functions.push((fde.initial_address(), fde.initial_address() + fde.len()));
            let ends = |mut instructions: gimli::CallFrameInstructionIter<'_, EndianSlice<'_, LittleEndian>>| {
                let mut found = false;
                while let Ok(Some(instruction)) = instructions.next() {
                    found |=
                        matches!(instruction, CallFrameInstruction::Undefined { register } if register == X86_64::RA);
                }
                found
            };
            if ends(fde.instructions(&frames, &bases)) || ends(fde.cie().instructions(&frames, &bases)) {
                roots.insert(fde.initial_address());
            }
        }
        functions.sort_unstable();
        let name = path.canonicalize().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        let segments = file.segments().map(|segment| {
            let (offset, length) = segment.file_range();
            (offset, length, segment.address())
        });
        let mut contexts = BTreeSet::new();
        if let Some(text) = file.section_by_name(".text").filter(|_| name.starts_with("libc.so")) {
            // mov rsp, rbx; mov rdi, [rsp]; test rdi, rdi
            let pattern = [0x48, 0x89, 0xdc, 0x48, 0x8b, 0x3c, 0x24, 0x48, 0x85, 0xff];
            let code = text.data().unwrap();
            let found = code.windows(pattern.len()).enumerate().filter(|(_, bytes)| *bytes == pattern);
            contexts.extend(found.map(|(at, _)| text.address() + at as u64));
        }
        Self { name, functions, roots, contexts, entry: file.entry(), segments: segments.collect() }
    }

    /// ELF virtual address of a byte of the file.
    pub fn address(&self, offset: u64) -> Option<u64> {
        self.segments
            .iter()
            .find(|&&(start, length, _)| (start..start + length).contains(&offset))
            .map(|&(start, _, address)| address + (offset - start))
    }

    /// Start of the function that an ELF virtual address is in.
    pub fn function(&self, address: u64) -> Option<u64> {
        let at = self.functions.partition_point(|&(start, _)| start <= address).checked_sub(1)?;
        self.functions.get(at).filter(|&&(_, end)| address < end).map(|&(start, _)| start)
    }

    /// Whether the function at this address ends a stack.
    pub fn is_root(&self, address: u64) -> bool {
        let Some(start) = self.function(address) else {
            // Beginnings without unwind data: of a program, of a context (the byte before it).
            return (self.entry..self.entry + 64).contains(&address) || self.contexts.contains(&(address + 1));
        };
        self.roots.contains(&start) || self.function(self.entry) == Some(start)
    }
}

/// `MODULE+0xADDR` taken apart.
pub fn address_of(name: &str) -> Option<(&str, u64)> {
    let (module, address) = name.rsplit_once("+0x")?;
    Some((module, u64::from_str_radix(address, 16).ok()?))
}

/// Whether a stack ends where stacks end: judged by the outermost frame's name, or by the
/// unwind data of the file at its address. The product's own flag is not looked at.
pub fn reaches_root(path: &graph::Path, judges: &[Judge]) -> bool {
    let Some(outermost) = path.outermost() else { return false };
    // A process that ends has no memory of its own any more: its stack begins in the kernel.
    if outermost.kind == "kernel" {
        return ["entry_", "asm_", "ret_from_fork"].iter().any(|entry| outermost.name.starts_with(entry))
            && path.has("do_exit");
    }
    let base = outermost.name.split('@').next().unwrap_or_default();
    if ROOT_NAMES.contains(&base) {
        return true;
    }
    address_of(&outermost.name).is_some_and(|(module, address)| {
        judges.iter().filter(|judge| judge.name == module).any(|judge| judge.is_root(address))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_has_few_ends_of_stacks_and_clone_is_one() {
        let path = Path::new("/lib/x86_64-linux-gnu/libc.so.6");
        if !path.is_file() {
            return;
        }
        let judge = Judge::new(path);
        let bytes = std::fs::read(path).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let symbol = |name: &str| {
            let found = file.dynamic_symbols().find(|symbol| object::ObjectSymbol::name(symbol) == Ok(name));
            object::ObjectSymbol::address(&found.unwrap())
        };
        // The new thread's part of clone has unwind data of its own, a little behind its start.
        let clone = symbol("clone");
        assert!(judge.roots.range(clone..clone + 128).count() == 1, "{:x?}", judge.roots);
        assert!(!judge.is_root(symbol("printf")));
        assert!(judge.roots.len() < 20, "{} roots", judge.roots.len());
        assert_eq!(address_of("libc.so.6+0x1a2b"), Some(("libc.so.6", 0x1a2b)));
    }
}
