//! The unwind data of one file, ready to be asked: in the worker only.

use std::{
    io::Read,
    ops::{Deref, Range},
    sync::Arc,
};

use framehop::{
    ExplicitModuleSectionInfo, FrameAddress, MayAllocateDuringUnwind, Module, Unwinder,
    x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64},
};
use gimli::{BaseAddresses, DebugFrame, EhFrame, EndianSlice, LittleEndian};
use object::{CompressionFormat, Object, ObjectSection, ObjectSegment, ObjectSymbol};

use super::row::{Finder, Row};
use crate::worker::mapping::Mapped;

/// Largest `.debug_frame` after decompression.
const MAX_DECOMPRESSED: u64 = 64 << 20;

pub(super) type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// Some bytes of a file, or made of them.
#[derive(Debug, Clone)]
pub(super) enum Part {
    File(Arc<Mapped>, Range<usize>),
    Own(Arc<[u8]>),
}

impl Default for Part {
    fn default() -> Self {
        Self::Own(Arc::from([]))
    }
}

impl Deref for Part {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Part::File(file, range) => file.bytes().get(range.clone()).unwrap_or_default(),
            Part::Own(bytes) => bytes,
        }
    }
}

/// One section of call frame information with framehop's reader of it and gimli's.
struct Section {
    debug: bool,
    data: Part,
    bases: BaseAddresses,
    finder: Finder,
    unwinder: UnwinderX86_64<Part>,
    cache: CacheX86_64<MayAllocateDuringUnwind>,
}

/// Functions of Go's runtime that call on another stack than they were called on, which
/// call frame information cannot say.
const SWITCHES: [&str; 7] =
    ["mcall", "morestack", "systemstack", "systemstack_switch", "asmcgocall", "cgocallback", "gogo"];
/// Functions of Go's runtime that nothing of the program has called.
const ROOTS: [&str; 4] = ["mstart", "goexit", "rt0_go", "clone"];

/// A file's unwind data.
pub(super) struct Image {
    sections: Vec<Section>,
    /// Ranges of functions of which more is known than the sections say.
    known: Vec<(Range<u64>, Row)>,
    file: Arc<Mapped>,
    /// Bytes of address space.
    pub size: u64,
}

impl Image {
    /// Reads what is needed of an ELF file, which is never trusted.
    pub fn new(file: Mapped) -> Result<Self, String> {
        let file = Arc::new(file);
        let size = file.bytes().len() as u64;
        let elf = object::File::parse(file.bytes()).map_err(|e| e.to_string())?;
        let base = elf.segments().map(|s| s.address()).min().unwrap_or_default();
        let address = |name: &str| elf.section_by_name(name).map_or(0, |s| s.address());
        let header = part(&file, &elf, ".eh_frame_hdr");
        let bases = BaseAddresses::default()
            .set_eh_frame_hdr(address(".eh_frame_hdr"))
            .set_eh_frame(address(".eh_frame"))
            .set_text(address(".text"))
            .set_got(address(".got"));
        let mut sections = Vec::new();
        for (name, debug) in [(".eh_frame", false), (".debug_frame", true)] {
            let Some(data) = part(&file, &elf, name) else { continue };
            let header = header.clone().filter(|_| !debug);
            let finder = match &header {
                Some(header) => Finder::Header(header.clone()),
                None if debug => Finder::index(&debug_frame(&data), &bases),
                None => Finder::index(&eh_frame(&data), &bases),
            };
            let range = |name: &str| elf.section_by_name(name).map(|s| s.address()..s.address() + s.size());
            let info = ExplicitModuleSectionInfo {
                base_svma: base,
                text_svma: range(".text"),
                got_svma: range(".got"),
                eh_frame_svma: range(".eh_frame"),
                eh_frame_hdr_svma: range(".eh_frame_hdr"),
                eh_frame: (!debug).then(|| data.clone()),
                eh_frame_hdr: header,
                debug_frame: debug.then(|| data.clone()),
                ..ExplicitModuleSectionInfo::default()
            };
            let mut unwinder = UnwinderX86_64::new();
            // It lies where the file says, for every process alike: addresses are translated before.
            unwinder.add_module(Module::new(name.into(), 0..u64::MAX, base, info));
            sections.push(Section { debug, data, bases: bases.clone(), finder, unwinder, cache: CacheX86_64::new() });
        }
        if sections.is_empty() {
            return Err("it has no unwind data".into());
        }
        let known = go(&elf);
        let image = Self { sections, known, file, size };
        image.let_go();
        Ok(image)
    }

    /// Takes what was read of the file out of our memory.
    pub fn let_go(&self) {
        self.file.let_go();
    }

    /// What the unwind data says of an ELF virtual address, and of which section.
    pub fn row(&self, address: u64) -> Option<(usize, Row)> {
        if let Some((_, row)) = self.known.iter().find(|(range, _)| range.contains(&address)) {
            return Some((0, *row));
        }
        self.sections.iter().enumerate().find_map(|(at, s)| {
            let row = if s.debug {
                s.finder.row(&debug_frame(&s.data), &s.bases, address)
            } else {
                s.finder.row(&eh_frame(&s.data), &s.bases, address)
            };
            row.map(|row| (at, row))
        })
    }

    /// Framehop's step from a frame to its caller. `address` is an ELF virtual address.
    pub fn step(
        &mut self,
        section: usize,
        address: FrameAddress,
        registers: &mut UnwindRegsX86_64,
        read: &mut impl FnMut(u64) -> Result<u64, ()>,
    ) -> Result<Option<u64>, framehop::Error> {
        let Some(s) = self.sections.get_mut(section) else { return Ok(None) };
        s.unwinder.unwind_frame(address, registers, &mut s.cache, read)
    }
}

/// What is known of Go's runtime by name.
fn go(elf: &object::File<'_>) -> Vec<(Range<u64>, Row)> {
    if elf.section_by_name(".gopclntab").is_none() {
        return Vec::new();
    }
    let known = elf.symbols().filter_map(|symbol| {
        let name = symbol.name().ok()?.strip_prefix("runtime.")?;
        let name = name.strip_suffix(".abi0").unwrap_or(name);
        let row = if SWITCHES.contains(&name) {
            Row::Unsupported
        } else if ROOTS.contains(&name) {
            Row::End
        } else {
            return None;
        };
        let start = symbol.address();
        Some((start..start.saturating_add(symbol.size()), row))
    });
    known.take(2 * (SWITCHES.len() + ROOTS.len())).collect()
}

fn eh_frame(data: &[u8]) -> EhFrame<Bytes<'_>> {
    let mut section = EhFrame::new(data, LittleEndian);
    section.set_address_size(8);
    section
}

fn debug_frame(data: &[u8]) -> DebugFrame<Bytes<'_>> {
    let mut section = DebugFrame::new(data, LittleEndian);
    section.set_address_size(8);
    section
}

/// A section's bytes, unpacked where they are compressed.
fn part(file: &Arc<Mapped>, elf: &object::File<'_>, name: &str) -> Option<Part> {
    let section = elf.section_by_name(name)?;
    let packed = section.compressed_file_range().ok()?;
    let offset = usize::try_from(packed.offset).ok()?;
    let length = usize::try_from(packed.compressed_size).ok()?;
    let range = offset..offset.checked_add(length)?;
    let bytes = file.bytes().get(range.clone()).filter(|bytes| !bytes.is_empty())?;
    match packed.format {
        CompressionFormat::None => Some(Part::File(Arc::clone(file), range)),
        CompressionFormat::Zlib if packed.uncompressed_size <= MAX_DECOMPRESSED => {
            let mut plain = Vec::new();
            flate2::read::ZlibDecoder::new(bytes).take(MAX_DECOMPRESSED).read_to_end(&mut plain).ok()?;
            Some(Part::Own(plain.into()))
        }
        _ => None,
    }
}
