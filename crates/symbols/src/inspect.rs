//! What an executable is, from the parts of its file that decide it. The agent asks this of
//! every file it meets, so data and debug information, often the most of a file, are not read.

use everflame_profile::ContentId;
use sha2::{Digest, Sha256};

use crate::{
    Error,
    elf::{ELF_HEADER_SIZE, Elf, PT_LOAD, slice},
};

/// Facts about an ELF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElfFacts {
    /// Over headers, code, unwind data and symbols; see [`inspect`].
    pub content_id: ContentId,
    /// GNU build id in lower-case hexadecimal, empty where there is none. A claim of
    /// the file's: any file can carry any build id.
    pub build_id: String,
    /// The parts that are loaded into memory.
    pub segments: Vec<Segment>,
    /// Whether it is a Go program (it has a function table of Go's runtime).
    pub is_go: bool,
    /// Virtual address of the entry point, 0 where there is none.
    pub entry: u64,
}

/// A loadable segment, as its program header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Virtual address in the file's own terms.
    pub vaddr: u64,
    /// Where it starts in the file, in bytes.
    pub offset: u64,
    /// How many bytes of it are in the file.
    pub file_size: u64,
    /// How many bytes it takes in memory.
    pub mem_size: u64,
    /// Whether code in it may run.
    pub executable: bool,
}

/// Reads the facts. A file without a section table is hashed from its unwind header
/// to the end of that segment.
///
/// The content id is over all that names, their places and unwind tables are read from: headers,
/// code, unwind data, symbols, relocations, stubs, Go's tables. It is the first half of a
/// SHA-256 and not a fast checksum: what is kept under it names the frames of every
/// process with the same id, and to make a file with a given xxh3 takes no more than
/// two chosen blocks in its string table.
pub fn inspect(elf: &[u8]) -> Result<ElfFacts, Error> {
    let elf = Elf::parse(elf)?;
    Ok(facts(&elf))
}

pub(crate) fn facts(elf: &Elf<'_>) -> ElfFacts {
    let segments = elf
        .program_headers
        .iter()
        .filter(|p| p.kind == PT_LOAD)
        .map(|p| Segment {
            vaddr: p.vaddr,
            offset: p.offset,
            file_size: p.file_size,
            mem_size: p.mem_size,
            executable: p.executable(),
        })
        .collect();
    ElfFacts {
        content_id: content_id(elf),
        build_id: elf.build_id().map(hex).unwrap_or_default(),
        segments,
        is_go: elf.pclntab().is_some() || elf.section(".go.buildinfo").is_some(),
        entry: elf.entry,
    }
}

fn content_id(elf: &Elf<'_>) -> ContentId {
    let mut hash = Sha256::new_with_prefix(b"everflame content id 2");
    // Each part under its name and length, so that bytes cannot move between parts.
    let mut add = |name: &str, bytes: &[u8]| {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    // The headers say where everything else stands and what it is.
    add("header", elf.data.get(..ELF_HEADER_SIZE).unwrap_or_default());
    add("program headers", elf.program_header_bytes);
    add("section headers", elf.section_header_bytes[0]);
    add("section names", elf.section_header_bytes[1]);
    add("build id", elf.build_id().unwrap_or_default());
    let code = || {
        let executable = elf.program_headers.iter().filter(|p| p.kind == PT_LOAD && p.executable());
        executable.filter_map(|p| slice(elf.data, p.offset, p.file_size))
    };
    if code().map(<[u8]>::len).fold(0, usize::saturating_add) <= elf.data.len() {
        code().for_each(|bytes| add("code", bytes));
    } else {
        add("file", elf.data);
    }
    let sections = elf.naming_sections().filter_map(|number| elf.section_bytes(elf.sections.get(number)?));
    if sections.clone().map(<[u8]>::len).fold(0, usize::saturating_add) <= elf.data.len() {
        sections.for_each(|bytes| add("section", bytes));
    } else {
        // Sections that lie over each other many times: not to be hashed one by one.
        add("file", elf.data);
    }
    if elf.sections.is_empty() {
        add("unwind segment", unwind_segment(elf).unwrap_or_default());
    }
    let digest = hash.finalize();
    let half = digest.first_chunk().expect("a SHA-256 has 32 bytes");
    ContentId(u128::from_be_bytes(*half))
}

/// From the unwind header to the end of the segment it lies in.
fn unwind_segment<'a>(elf: &Elf<'a>) -> Option<&'a [u8]> {
    const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
    let header = elf.program_headers.iter().find(|p| p.kind == PT_GNU_EH_FRAME)?;
    let holds = |p: &&crate::elf::ProgramHeader| {
        p.kind == PT_LOAD && header.offset.checked_sub(p.offset).is_some_and(|into| into < p.file_size)
    };
    let segment = elf.program_headers.iter().find(holds)?;
    slice(elf.data, header.offset, segment.offset.checked_add(segment.file_size)?.checked_sub(header.offset)?)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
