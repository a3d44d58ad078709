//! The little of ELF that unwinding needs: segments, sections, symbols; any of them may be missing or lie.
//!
//! Sections are a convenience that stripped or hostile files do without; segments are
//! what the kernel maps, so code is only where an executable segment has bytes in the file.
use crate::error::Error;
use crate::limits::MAX_CODE_SEGMENTS;
use crate::machine::Machine;
use crate::reader::Reader;

const ET_EXEC: u16 = 2;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const PF_X: u32 = 1;
const SHT_SYMTAB: u32 = 2;
const SHT_NOBITS: u32 = 8;
const SHT_DYNSYM: u32 = 11;
const STT_FUNC: u8 = 2;
const SHF_COMPRESSED: u64 = 1 << 11;

/// A loadable segment, with those of its bytes that the file has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment<'a> {
    pub address: u64,
    pub data: &'a [u8],
    pub executable: bool,
}

impl<'a> Segment<'a> {
    pub fn end(&self) -> u64 {
        self.address.saturating_add(self.data.len() as u64)
    }

    /// The bytes from `address` to the end of the segment.
    fn from(&self, address: u64) -> Option<&'a [u8]> {
        let offset = usize::try_from(address.checked_sub(self.address)?).ok()?;
        self.data.get(offset..).filter(|rest| !rest.is_empty())
    }
}

/// A section with its bytes (empty for `SHT_NOBITS`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Section<'a> {
    pub name: &'a [u8],
    pub kind: u32,
    pub compressed: bool,
    pub address: u64,
    pub data: &'a [u8],
    link: u32,
}

/// A symbol of `.symtab` or `.dynsym`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Symbol<'a> {
    pub address: u64,
    pub size: u64,
    /// It is code.
    pub function: bool,
    /// The names from this symbol's on.
    names: &'a [u8],
}

impl Symbol<'_> {
    pub fn is(&self, name: &str) -> bool {
        self.names.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }
}

/// What was read of a file.
#[derive(Debug)]
pub(crate) struct Elf<'a> {
    pub machine: Machine,
    pub entry: u64,
    /// It is a program for sure: linked to a fixed address, or with an interpreter.
    pub program: bool,
    pub segments: Vec<Segment<'a>>,
    pub sections: Vec<Section<'a>>,
    /// Address of `.eh_frame_hdr`, by program header.
    pub eh_frame_hdr: Option<u64>,
}

impl<'a> Elf<'a> {
    pub fn parse(data: &'a [u8]) -> Result<Self, Error> {
        let header = Header::parse(data)?;
        let mut elf = Self {
            machine: header.machine,
            entry: header.entry,
            program: header.fixed,
            segments: Vec::new(),
            sections: Vec::new(),
            eh_frame_hdr: None,
        };
        elf.read_segments(data, &header);
        if elf.read_sections(data, &header).is_none() {
            elf.sections.clear();
        }
        match elf.code().count() {
            0 => Err(Error::NoCode),
            n if n > MAX_CODE_SEGMENTS => {
                Err(Error::Limit { what: "executable segments", found: n as u64, limit: MAX_CODE_SEGMENTS as u64 })
            }
            _ => Ok(elf),
        }
    }

    fn read_segments(&mut self, data: &'a [u8], header: &Header) {
        let Some(mut table) = Reader::at(data, header.segments) else { return };
        for _ in 0..header.segment_count {
            let Some(entry) = table.take(56) else { return };
            let mut entry = Reader::new(entry);
            let mut read = || -> Option<[u64; 5]> {
                let (kind, flags) = (entry.u32()?, entry.u32()?);
                let (offset, address) = (entry.u64()?, entry.u64()?);
                entry.skip(8)?;
                Some([u64::from(kind), u64::from(flags), offset, address, entry.u64()?])
            };
            let Some([kind, flags, offset, address, size]) = read() else { return };
            if kind == u64::from(PT_GNU_EH_FRAME) {
                self.eh_frame_hdr = Some(address);
            } else if kind == u64::from(PT_INTERP) {
                self.program = true;
            } else if kind == u64::from(PT_LOAD) {
                let bytes = clamp(data, offset, size);
                // A segment that ends past the address space is a lie; what would wrap is cut off.
                let room = usize::try_from(u64::MAX - address).unwrap_or(usize::MAX);
                let bytes = &bytes[..bytes.len().min(room)];
                if !bytes.is_empty() {
                    let executable = flags & u64::from(PF_X) != 0;
                    self.segments.push(Segment { address, data: bytes, executable });
                }
            }
        }
    }

    fn read_sections(&mut self, data: &'a [u8], header: &Header) -> Option<()> {
        if header.sections == 0 {
            return Some(());
        }
        let mut table = Reader::at(data, header.sections)?;
        let mut names = Vec::new();
        let (mut count, mut names_at) = (u64::from(header.section_count), u64::from(header.section_names));
        let mut index = 0;
        loop {
            let mut entry = Reader::new(table.take(64)?);
            let (name, kind, flags) = (entry.u32()?, entry.u32()?, entry.u64()?);
            let (address, offset, size) = (entry.u64()?, entry.u64()?, entry.u64()?);
            let link = entry.u32()?;
            if index == 0 {
                // More sections than 16 bits can count: the numbers are in the first section.
                if count == 0 {
                    count = size;
                }
                if names_at == 0xffff {
                    names_at = u64::from(link);
                }
            }
            let bytes = if kind == SHT_NOBITS { &[][..] } else { clamp(data, offset, size) };
            let compressed = flags & SHF_COMPRESSED != 0;
            self.sections.push(Section { name: &[], kind, compressed, address, data: bytes, link });
            names.push(name);
            index += 1;
            if index >= count {
                break;
            }
        }
        let strings = self.sections.get(usize::try_from(names_at).ok()?)?.data;
        for (section, name) in self.sections.iter_mut().zip(names) {
            section.name = Reader::at(strings, u64::from(name)).and_then(|mut r| r.text()).unwrap_or_default();
        }
        Some(())
    }

    /// Segments that hold code.
    pub fn code(&self) -> impl Iterator<Item = &Segment<'a>> {
        self.segments.iter().filter(|s| s.executable)
    }

    pub fn section(&self, name: &str) -> Option<&Section<'a>> {
        self.sections.iter().find(|s| s.name == name.as_bytes() && !s.data.is_empty())
    }

    /// The bytes that are mapped at `address`, to the end of its segment.
    pub fn bytes_at(&self, address: u64) -> Option<&'a [u8]> {
        self.segments.iter().find_map(|s| s.from(address))
    }

    /// The end of the code that `address` lies in.
    pub fn code_end(&self, address: u64) -> Option<u64> {
        self.code().find(|s| s.address <= address && address < s.end()).map(Segment::end)
    }

    /// All symbols that have an address, from `.symtab` and `.dynsym`.
    pub fn symbols(&self) -> impl Iterator<Item = Symbol<'a>> {
        self.sections.iter().filter(|s| s.kind == SHT_SYMTAB || s.kind == SHT_DYNSYM).flat_map(|table| {
            let strings = self.sections.get(table.link as usize).map(|s| s.data).unwrap_or_default();
            table.data.chunks_exact(24).filter_map(move |entry| {
                let mut entry = Reader::new(entry);
                let name = entry.u32()?;
                let info = entry.u8()?;
                entry.skip(3)?;
                let (address, size) = (entry.u64()?, entry.u64()?);
                let names = strings.get(name as usize..).unwrap_or_default();
                (address != 0).then_some(Symbol { address, size, function: info & 0xf == STT_FUNC, names })
            })
        })
    }
}

/// Those of the bytes `offset .. offset + size` that the file really has.
fn clamp(data: &[u8], offset: u64, size: u64) -> &[u8] {
    let length = data.len() as u64;
    let start = offset.min(length);
    let end = offset.saturating_add(size).min(length);
    usize::try_from(start)
        .ok()
        .zip(usize::try_from(end).ok())
        .and_then(|(start, end)| data.get(start..end))
        .unwrap_or_default()
}

struct Header {
    machine: Machine,
    fixed: bool,
    entry: u64,
    segments: u64,
    sections: u64,
    segment_count: u16,
    section_count: u16,
    section_names: u16,
}

impl Header {
    fn parse(data: &[u8]) -> Result<Self, Error> {
        if !data.starts_with(b"\x7fELF") {
            return Err(Error::NotElf);
        }
        let (class, order) = (data.get(4).copied(), data.get(5).copied());
        if class != Some(2) || order != Some(1) {
            return Err(Error::Unsupported(format!("class {class:?}, byte order {order:?}")));
        }
        let mut reader = Reader::at(data, 16).ok_or(Error::NotElf)?;
        let mut read = || -> Option<Result<Self, u16>> {
            let fixed = reader.u16()? == ET_EXEC;
            let number = reader.u16()?;
            let Some(machine) = Machine::of(number) else { return Some(Err(number)) };
            reader.skip(4)?;
            let (entry, segments, sections) = (reader.u64()?, reader.u64()?, reader.u64()?);
            reader.skip(6)?;
            let segment_size = reader.u16()?;
            let segment_count = if segment_size == 56 { reader.u16()? } else { reader.u16().map(|_| 0)? };
            let section_size = reader.u16()?;
            let (section_count, section_names) = (reader.u16()?, reader.u16()?);
            let sections = if section_size == 64 { sections } else { 0 };
            Some(Ok(Self { machine, fixed, entry, segments, sections, segment_count, section_count, section_names }))
        };
        read().ok_or(Error::NotElf)?.map_err(|number| Error::Unsupported(format!("machine {number}")))
    }
}
