//! The entries of `.eh_frame` and `.debug_frame`: CIEs, FDEs and where they point.
use crate::cfa::{Program, Remembered, State, Tracked};
use crate::error::Error;
use crate::functions::{Aim, Collector, Source};
use crate::machine::Machine;
use crate::reader::Reader;
use rustc_hash::FxHashMap;

const EH_PE_OMIT: u8 = 0xff;
const EH_PE_INDIRECT: u8 = 0x80;

/// One section of call frame information.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Section<'a> {
    pub data: &'a [u8],
    /// Virtual address of its first byte.
    pub address: u64,
    /// `.eh_frame` or `.debug_frame`, which differ in little.
    pub debug: bool,
    /// The bytes run on behind the section's end: a terminator ends it.
    pub unbounded: bool,
}

/// What FDEs share.
#[derive(Debug, Clone, Copy)]
struct Cie<'a> {
    program: Program<'a>,
    fde_encoding: u8,
    augmented: bool,
    signal: bool,
    address_size: u8,
    segment_size: u8,
}

/// Reads all FDEs of a section into `out`. Malformed entries are counted and passed over.
pub(crate) fn read<'a>(section: &Section<'a>, out: &mut Collector<'_>) -> Result<(), Error> {
    let mut frames = Frames {
        machine: out.machine,
        section: *section,
        cies: FxHashMap::default(),
        last: None,
        // Each CIE is read once; together they cannot be longer than the section, unless they overlap.
        budget: section.data.len() as u64,
        remembered: Remembered::new(),
    };
    let mut reader = Reader::new(section.data);
    while !reader.is_empty() {
        let Some(entry) = Entry::next(section, &mut reader) else {
            out.stats.malformed += u64::from(!section.unbounded);
            break;
        };
        match entry {
            Entry::Terminator if section.unbounded => break,
            Entry::Terminator | Entry::Cie => {}
            Entry::Fde { cie, body } => {
                if frames.fde(cie, body, out)?.is_none() {
                    out.stats.malformed += 1;
                }
            }
        }
    }
    Ok(())
}

enum Entry<'a> {
    Terminator,
    Cie,
    Fde { cie: usize, body: Reader<'a> },
}

impl<'a> Entry<'a> {
    /// The next entry; `None` if its length is a lie, after which nothing can be found any more.
    fn next(section: &Section<'a>, reader: &mut Reader<'a>) -> Option<Self> {
        let (id, id_at, body) = raw(reader)?;
        let Some(id) = id else { return Some(Self::Terminator) };
        if is_cie(section, id) {
            return Some(Self::Cie);
        }
        let cie = if section.debug { Some(id) } else { (id_at as u64).checked_sub(id) };
        // An offset that points nowhere finds no CIE later; the entry's own length is still good.
        let cie = cie.and_then(|c| usize::try_from(c).ok()).unwrap_or(usize::MAX);
        Some(Self::Fde { cie, body })
    }
}

/// (id, where the id stands, what follows it); no id where the length is 0.
fn raw<'a>(reader: &mut Reader<'a>) -> Option<(Option<u64>, usize, Reader<'a>)> {
    let short = reader.u32()?;
    let wide = short == u32::MAX;
    let length = if wide { reader.u64()? } else { u64::from(short) };
    if length == 0 {
        return Some((None, 0, *reader));
    }
    let id_at = reader.position();
    let mut body = reader.split(length)?;
    let id = if wide {
        body.u64()
    } else {
        // The 32-bit marker of a CIE in .debug_frame stands for the 64-bit one.
        body.u32().map(|id| if id == u32::MAX { u64::MAX } else { u64::from(id) })
    };
    // An entry too short for its id is passed over like a terminator.
    let Some(id) = id else { return Some((None, 0, *reader)) };
    Some((Some(id), id_at, body))
}

fn is_cie(section: &Section<'_>, id: u64) -> bool {
    if section.debug { id == u64::MAX } else { id == 0 }
}

struct Frames<'a> {
    machine: Machine,
    section: Section<'a>,
    cies: FxHashMap<usize, Option<Cie<'a>>>,
    last: Option<(usize, Cie<'a>)>,
    budget: u64,
    remembered: Remembered<'a>,
}

impl<'a> Frames<'a> {
    fn fde(&mut self, cie: usize, mut body: Reader<'a>, out: &mut Collector<'_>) -> Result<Option<()>, Error> {
        let Some(cie) = self.cie(cie) else { return Ok(None) };
        let Some((start, length)) = self.range(&cie, &mut body) else { return Ok(None) };
        let source = if self.section.debug { Source::DebugFrame } else { Source::EhFrame };
        if !out.open(source, start, length)? {
            return Ok(Some(()));
        }
        if out.aim == Aim::Ranges {
            out.close()?;
            return Ok(Some(()));
        }
        let mut remembered = std::mem::take(&mut self.remembered);
        let mut last = None;
        let (this, follow_rbx) = (&*self, out.aim == Aim::RowsWithRbx);
        let result = cie.program.run(
            body,
            start,
            &mut remembered,
            |reader| this.pointer(reader, &cie, cie.fde_encoding, start),
            |pc, state| {
                let rule = state.rule(this.machine, cie.signal, follow_rbx);
                if last != Some(rule) {
                    out.row(pc, rule);
                    last = Some(rule);
                }
            },
        );
        self.remembered = remembered;
        out.stats.malformed += u64::from(result.is_err());
        out.close()?;
        Ok(Some(()))
    }

    /// Start and length of an FDE; leaves `body` at its instructions.
    fn range(&self, cie: &Cie<'a>, body: &mut Reader<'a>) -> Option<(u64, u64)> {
        body.skip(u64::from(cie.segment_size))?;
        let start = self.pointer(body, cie, cie.fde_encoding, 0)?;
        // The length has the format of the pointer, but is no address.
        let length = self.pointer(body, cie, cie.fde_encoding & 0x0f, 0)?;
        if cie.augmented {
            let skip = body.uleb()?;
            body.skip(skip)?;
        }
        Some((start, length))
    }

    fn pointer(&self, reader: &mut Reader<'a>, cie: &Cie<'a>, encoding: u8, function: u64) -> Option<u64> {
        let here = self.section.address.wrapping_add(reader.position() as u64);
        let value = match encoding & 0x0f {
            0x00 if cie.address_size == 4 => u64::from(reader.u32()?),
            0x00 | 0x04 | 0x0c => reader.u64()?,
            0x01 => reader.uleb()?,
            0x02 => u64::from(reader.u16()?),
            0x03 => u64::from(reader.u32()?),
            0x09 => reader.sleb()?.cast_unsigned(),
            0x0a => i64::from(reader.u16()?.cast_signed()).cast_unsigned(),
            0x0b => i64::from(reader.u32()?.cast_signed()).cast_unsigned(),
            _ => return None,
        };
        match encoding & 0xf0 {
            0x00 => Some(value),
            0x10 => Some(value.wrapping_add(here)),
            0x40 => Some(value.wrapping_add(function)),
            _ => None,
        }
    }

    fn cie(&mut self, offset: usize) -> Option<Cie<'a>> {
        if let Some((at, cie)) = self.last
            && at == offset
        {
            return Some(cie);
        }
        let cie = match self.cies.get(&offset) {
            Some(known) => *known,
            None => {
                let parsed = self.parse_cie(offset);
                self.cies.insert(offset, parsed);
                parsed
            }
        }?;
        self.last = Some((offset, cie));
        Some(cie)
    }

    fn parse_cie(&mut self, offset: usize) -> Option<Cie<'a>> {
        let mut reader = Reader::at(self.section.data, offset as u64)?;
        let (id, _, mut body) = raw(&mut reader)?;
        if !is_cie(&self.section, id?) {
            return None;
        }
        self.budget = self.budget.checked_sub(body.rest().len() as u64)?;
        let version = body.u8()?;
        if !matches!(version, 1 | 3 | 4) {
            return None;
        }
        let augmentation = body.text()?;
        let (mut address_size, mut segment_size) = (8, 0);
        if version == 4 {
            (address_size, segment_size) = (body.u8()?, body.u8()?);
        }
        let code_align = body.uleb()?;
        let data_align = body.sleb()?;
        let ra = if version == 1 { u64::from(body.u8()?) } else { body.uleb()? };
        let mut cie = Cie {
            program: Program { code_align, data_align, tracked: Tracked::new(self.machine, ra), initial: State::EMPTY },
            fde_encoding: 0,
            augmented: false,
            signal: false,
            address_size,
            segment_size,
        };
        if let Some((b'z', letters)) = augmentation.split_first() {
            cie.augmented = true;
            let length = body.uleb()?;
            let mut data = body.split(length)?;
            for letter in letters {
                match letter {
                    b'R' => cie.fde_encoding = data.u8()?,
                    b'L' => drop(data.u8()?),
                    b'P' => {
                        let encoding = data.u8()?;
                        if encoding != EH_PE_OMIT {
                            // Only its length matters here.
                            self.pointer(&mut data, &cie, encoding & 0x0f, 0)?;
                        }
                    }
                    b'S' => cie.signal = true,
                    // arm64: the key that return addresses are signed with, tagged memory
                    b'B' | b'G' => {}
                    // What follows an unknown letter cannot be understood, but its length is known.
                    _ => break,
                }
            }
        } else if !augmentation.is_empty() {
            return None;
        }
        if cie.fde_encoding & EH_PE_INDIRECT != 0 {
            return None;
        }
        let mut remembered = Remembered::new();
        let no_set_loc = |_: &mut Reader<'a>| None;
        cie.program.initial = cie.program.run(body, 0, &mut remembered, no_set_loc, |_, _| {}).ok()?;
        Some(cie)
    }
}
