//! Where a file keeps its call frame information: by section name, or by program header when sections are gone.
use crate::elf::{self, Elf};
use crate::frame::Section;
use crate::limits::MAX_UNPACKED;
use crate::reader::Reader;
use std::borrow::Cow;
use std::io::Read;

/// `.eh_frame`, if it is there.
pub(crate) fn eh_frame<'a>(elf: &Elf<'a>) -> Option<Section<'a>> {
    let section = elf.section(".eh_frame").filter(|s| !s.compressed);
    let named = section.map(|s| Section { data: s.data, address: s.address, debug: false, unbounded: false });
    named.or_else(|| by_program_header(elf))
}

/// The bytes of `.debug_frame`, if it is there: those of the file, or, where that is wanted, unpacked ones.
pub(crate) fn debug_frame<'a>(elf: &Elf<'a>, packed: bool) -> Option<Cow<'a, [u8]>> {
    let section = elf.section(".debug_frame")?;
    if section.compressed {
        return packed.then(|| unpack(section)).flatten().map(Cow::Owned);
    }
    Some(Cow::Borrowed(section.data))
}

/// What a compressed section holds, if that is what its header says and not too much.
fn unpack(section: &elf::Section<'_>) -> Option<Vec<u8>> {
    const ZLIB: u32 = 1;
    const ZSTD: u32 = 2;
    let mut reader = Reader::new(section.data);
    let kind = reader.u32()?;
    reader.skip(4)?;
    let size = reader.u64()?;
    reader.skip(8)?;
    if size > MAX_UNPACKED {
        return None;
    }
    let packed = reader.rest();
    let mut plain = Vec::new();
    match kind {
        ZLIB => flate2::read::ZlibDecoder::new(packed).take(size).read_to_end(&mut plain).ok()?,
        ZSTD => zstd::Decoder::new(packed).ok()?.take(size).read_to_end(&mut plain).ok()?,
        _ => return None,
    };
    (plain.len() as u64 == size).then_some(plain)
}

/// `.eh_frame` by the pointer in `.eh_frame_hdr`; it ends with a terminator.
fn by_program_header<'a>(elf: &Elf<'a>) -> Option<Section<'a>> {
    let header = elf.eh_frame_hdr?;
    let mut reader = Reader::new(elf.bytes_at(header)?);
    let (version, encoding) = (reader.u8()?, reader.u8()?);
    reader.skip(2)?;
    if version != 1 {
        return None;
    }
    let here = header.checked_add(4)?;
    // pcrel or absolute; sdata4, udata4 or 8 bytes.
    let value = match encoding & 0x0f {
        0x0b => i64::from(reader.u32()?.cast_signed()).cast_unsigned(),
        0x03 => u64::from(reader.u32()?),
        0x00 | 0x04 | 0x0c => reader.u64()?,
        _ => return None,
    };
    let address = match encoding & 0xf0 {
        0x00 => value,
        0x10 => value.wrapping_add(here),
        0x30 => value.wrapping_add(header),
        _ => return None,
    };
    Some(Section { data: elf.bytes_at(address)?, address, debug: false, unbounded: true })
}
