//! Go's function table, `.gopclntab`: for each function its name and how far sp is below its start, by pc.
//!
//! Layouts of Go 1.2 to 1.15 (`0xfffffffb`), 1.16 (`0xfffffffa`), 1.18 (`0xfffffff0`) and
//! 1.20 and later (`0xfffffff1`), on amd64 and arm64.
use crate::reader::Reader;

/// A function of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Function<'a> {
    /// Relative to the start of Go's text, or absolute where the table is of Go 1.16 or older.
    pub start: u64,
    pub end: u64,
    pub name: &'a [u8],
    /// Its table of sp deltas, which counts in units of so many bytes.
    deltas: &'a [u8],
    unit: u64,
}

/// `value` holds from `from` to `to`, both relative to the start of the function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpDelta {
    pub from: u64,
    pub to: u64,
    pub value: i64,
}

/// The table's header, understood.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PclnTab<'a> {
    /// Pcs in the table are absolute, not relative to Go's text.
    pub absolute: bool,
    /// Start of Go's text, if the header still carries it.
    pub text: Option<u64>,
    /// Offset of the first part behind the header, which the module data points to as well.
    pub names_offset: u64,
    functions: usize,
    /// Bytes of the shortest instruction, in which pcs are counted.
    unit: u64,
    /// Entries of the function table are pairs of this many bytes.
    entry_size: usize,
    table: &'a [u8],
    names: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> PclnTab<'a> {
    /// First 8 bytes of a table of the newest layouts.
    pub fn is_magic(bytes: &[u8]) -> bool {
        matches!(*bytes, [0xfb | 0xfa | 0xf0 | 0xf1, 0xff, 0xff, 0xff, 0, 0, 1 | 4, 8, ..])
    }

    pub fn parse(data: &'a [u8]) -> Option<Self> {
        if !Self::is_magic(data) {
            return None;
        }
        let mut reader = Reader::at(data, 8)?;
        let functions = usize::try_from(reader.u64()?).ok()?;
        let from = |offset: u64| data.get(usize::try_from(offset).ok()?..);
        let first = *data.first()?;
        let unit = u64::from(*data.get(6)?);
        if first == 0xfb {
            let table = reader.rest();
            return Some(Self {
                absolute: true,
                text: None,
                names_offset: 0,
                functions,
                unit,
                entry_size: 8,
                // Offsets of functions, names and deltas all count from the beginning here.
                table,
                names: data,
                deltas: data,
            });
        }
        reader.skip(8)?;
        let text = if first == 0xfa { None } else { Some(reader.u64()?).filter(|&text| text != 0) };
        let names_offset = reader.u64()?;
        reader.skip(16)?;
        let (deltas, table) = (from(reader.u64()?)?, from(reader.u64()?)?);
        let absolute = first == 0xfa;
        let entry_size = if absolute { 8 } else { 4 };
        let names = from(names_offset)?;
        Some(Self { absolute, text, names_offset, functions, unit, entry_size, table, names, deltas })
    }

    /// Functions in order; ends early where the table is cut off.
    pub fn functions(&self) -> impl Iterator<Item = Function<'a>> {
        let entry = |index: usize| -> Option<(u64, u64)> {
            let mut reader = Reader::at(self.table, (index as u64).checked_mul(2 * self.entry_size as u64)?)?;
            if self.entry_size == 8 {
                Some((reader.u64()?, reader.u64()?))
            } else {
                Some((u64::from(reader.u32()?), u64::from(reader.u32()?)))
            }
        };
        let end = move |index: usize| -> Option<u64> {
            // The last entry has only the pc at which the text ends.
            let mut reader = Reader::at(self.table, (index as u64).checked_mul(2 * self.entry_size as u64)?)?;
            if self.entry_size == 8 { reader.u64() } else { reader.u32().map(u64::from) }
        };
        // Functions stand in order; where they do not, the rest is not believed.
        let ordered = |((start, _), end): &((u64, u64), u64)| start <= end;
        (0..self.functions).map_while(move |i| entry(i).zip(end(i + 1))).take_while(ordered).filter_map(
            |((start, at), end)| {
                let (name, deltas) = self.describe(at)?;
                Some(Function { start, end, name, deltas, unit: self.unit })
            },
        )
    }

    fn describe(&self, at: u64) -> Option<(&'a [u8], &'a [u8])> {
        // Go 1.2 counts function records from the beginning of everything, which is where names are too.
        let records = if self.names_offset == 0 { self.names } else { self.table };
        let mut record = Reader::at(records, at)?;
        record.skip(self.entry_size as u64)?;
        let name = record.u32()?;
        record.skip(8)?;
        let deltas = record.u32()?;
        // Long names are cut: only short ones are asked for.
        let name = self.names.get(name as usize..)?;
        let name = name.get(..64).unwrap_or(name).split(|&byte| byte == 0).next()?;
        let deltas = if deltas == 0 { &[][..] } else { Reader::at(self.deltas, u64::from(deltas))?.rest() };
        Some((name, deltas))
    }
}

impl Function<'_> {
    /// How far sp is below its value at the function's first instruction, piece by piece.
    pub fn sp_deltas(&self) -> impl Iterator<Item = SpDelta> {
        let length = self.end - self.start;
        let mut reader = Reader::new(self.deltas);
        let (mut pc, mut value) = (0u64, -1i64);
        std::iter::from_fn(move || {
            if pc >= length {
                return None;
            }
            let step = reader.uleb()?;
            if step == 0 && pc > 0 {
                return None;
            }
            let half = (step >> 1).cast_signed();
            value = value.checked_add(if step & 1 == 0 { half } else { !half })?;
            let bytes = reader.uleb().filter(|&bytes| bytes > 0)?;
            let from = pc;
            pc = pc.checked_add(bytes.checked_mul(self.unit)?)?;
            Some(SpDelta { from, to: pc.min(length), value })
        })
    }
}
