//! Where a file keeps its call frame information: by section name, or by program header when sections are gone.
use crate::elf::Elf;
use crate::frame::Section;
use crate::reader::Reader;

/// `.eh_frame` first, then `.debug_frame`, each if it is there.
pub(crate) fn call_frame_information<'a>(elf: &Elf<'a>) -> Vec<Section<'a>> {
    let named = |name: &str, debug: bool| {
        let section = elf.section(name).filter(|s| !s.compressed)?;
        Some(Section { data: section.data, address: section.address, debug, unbounded: false })
    };
    let eh_frame = named(".eh_frame", false).or_else(|| by_program_header(elf));
    eh_frame.into_iter().chain(named(".debug_frame", true)).collect()
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
