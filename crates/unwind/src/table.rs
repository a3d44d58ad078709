//! The finished table and the reference lookup: the same steps as the kernel program, on the same bytes.
use crate::layout::{
    BLOCK_PAIRS, CODE_ESCAPE, DELTA_ADVANCE, ELEMENT_SIZE, PAGES_PER_ELEMENT, RULE_PEEK, RULES_PER_ELEMENT, Rule,
    SHORT_SEQUENCE_PAIRS,
};
use crate::peek::{WINDOW, peek};
use crate::reader::Reader;

/// What a conversion found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Functions with unwind data.
    pub fdes: u64,
    /// Rows before neighbours with the same rule were merged and gaps were filled.
    pub raw_rows: u64,
    /// Of these, rows that the code tells by itself and the table does not.
    pub left_out: u64,
    /// Rows of the table.
    pub rows: u64,
    /// Rules of the table.
    pub rules: u64,
    /// Rows whose unwind data cannot be expressed.
    pub unsupported_rows: u64,
    /// Blocks of rows.
    pub blocks: u64,
    /// Learnt sequences of rows.
    pub sequences: u64,
    /// Entries of the unwind data that could not be read, or only in part.
    pub malformed: u64,
    /// Entries for functions that are not in an executable segment.
    pub outside: u64,
}

/// Unwind data of one executable in the layout of `bpf/abi.h`.
#[derive(Debug, Clone)]
pub struct Table {
    bytes: Vec<u8>,
    stats: Stats,
}

impl Table {
    pub(crate) fn new(bytes: Vec<u8>, stats: Stats) -> Self {
        Self { bytes, stats }
    }

    /// The elements; the length is a multiple of [`ELEMENT_SIZE`], the first is the header.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of elements.
    pub fn elements(&self) -> u32 {
        (self.bytes.len() / ELEMENT_SIZE) as u32
    }

    /// What was found while converting.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The rule that holds at an ELF virtual address.
    ///
    /// For a caller's frame pass its return address minus one.
    pub fn lookup(&self, vaddr: u64) -> Rule {
        let rule = self.find(vaddr).unwrap_or(Rule::NONE);
        Rule { flags: rule.flags & !RULE_PEEK, ..rule }
    }

    /// The same where a thread stands, or stood when a signal came: its code may know better.
    /// `window` holds the code from the byte before `vaddr` on.
    pub fn lookup_leaf(&self, vaddr: u64, window: &[u8; WINDOW]) -> Rule {
        let peeks = self.find(vaddr).is_some_and(|rule| rule.flags & RULE_PEEK != 0);
        peeks.then(|| peek(window)).flatten().map_or_else(|| self.lookup(vaddr), |code| code.rule)
    }

    /// The ELF virtual addresses at which rows begin, in order.
    pub fn row_starts(&self) -> Vec<u64> {
        self.read_starts().unwrap_or_default()
    }

    fn read_starts(&self) -> Option<Vec<u64>> {
        let mut header = Reader::new(self.element(0)?);
        header.skip(8)?;
        let base = header.u64()?;
        header.skip(8)?;
        let (blocks, block_count) = (header.u32()?, header.u32()?);
        header.skip(8)?;
        let (direct, sequences) = (header.u32()?, header.u32()?);
        header.skip(4)?;
        let shorts = header.u32()?;
        let mut starts = Vec::new();
        for block in blocks..blocks.checked_add(block_count)? {
            let mut reader = Reader::new(self.element(block)?);
            let mut at = u64::from(reader.u32()?);
            while let (Some(delta), Some(code)) = (reader.u8(), reader.u8()) {
                match (delta, code) {
                    (DELTA_ADVANCE, 0) => break,
                    (DELTA_ADVANCE, steps) => {
                        at += u64::from(steps) << 8;
                        continue;
                    }
                    _ => at += u64::from(delta),
                }
                starts.push(base.wrapping_add(at));
                if code == CODE_ESCAPE {
                    reader.skip(2)?;
                } else if let Some(number) = u32::from(code).checked_sub(direct) {
                    let mut pairs = Reader::new(self.sequence(sequences, shorts, number)?);
                    pairs.skip(4)?;
                    while let Some(offset) = pairs.u16().filter(|offset| *offset != 0) {
                        starts.push(base.wrapping_add(at + u64::from(offset)));
                        pairs.skip(2)?;
                    }
                }
            }
        }
        Some(starts)
    }

    /// The (offset, rule) pairs of a sequence.
    fn sequence(&self, first: u32, shorts: u32, number: u32) -> Option<&[u8]> {
        if number < shorts {
            let element = self.element(first.checked_add(number / SHORT_PER_ELEMENT)?)?;
            let at = (number % SHORT_PER_ELEMENT) as usize * 4 * SHORT_SEQUENCE_PAIRS;
            return element.get(at..at + 4 * SHORT_SEQUENCE_PAIRS);
        }
        let number = shorts.div_ceil(SHORT_PER_ELEMENT) + (number - shorts);
        self.element(first.checked_add(number)?)
    }

    fn element(&self, index: u32) -> Option<&[u8]> {
        let start = usize::try_from(index).ok()?.checked_mul(ELEMENT_SIZE)?;
        self.bytes.get(start..start.checked_add(ELEMENT_SIZE)?)
    }

    fn find(&self, vaddr: u64) -> Option<Rule> {
        let mut header = Reader::new(self.element(0)?);
        header.skip(8)?;
        let pc = u32::try_from(vaddr.checked_sub(header.u64()?)?).ok()?;
        let (directory, pages, blocks) = (header.u32()?, header.u32()?, header.u32()?);
        header.skip(4)?;
        let (rules, rule_count) = (header.u32()?, header.u32()?);
        let (direct, sequences) = (header.u32()?, header.u32()?);
        header.skip(4)?;
        let shorts = header.u32()?;

        let page = pc >> 16;
        if page >= pages {
            return None;
        }
        let entry = self.element(directory + page / PAGES_PER_ELEMENT as u32)?;
        let mut entry = Reader::at(entry, u64::from(page % PAGES_PER_ELEMENT as u32) * 8)?;
        let (mut low, mut high) = (entry.u32()?, entry.u32()?);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if Reader::new(self.element(blocks + middle)?).u32()? <= pc {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        let (code, from) = scan(self.element(blocks + low)?, pc)?;
        let rule = match code {
            Code::Rule(rule) => u32::from(rule),
            Code::Byte(code) if u32::from(code) < direct => u32::from(code),
            Code::Byte(code) => {
                let pairs = self.sequence(sequences, shorts, u32::from(code) - direct)?;
                u32::from(expand(pairs, pc - from)?)
            }
        };
        if rule >= rule_count {
            return None;
        }
        let mut rule_bytes = Reader::new(self.element(rules + rule / RULES_PER_ELEMENT as u32)?);
        rule_bytes.skip(u64::from(rule % RULES_PER_ELEMENT as u32) * Rule::SIZE as u64)?;
        Some(Rule::from_bytes(*rule_bytes.rest().first_chunk()?))
    }
}

/// Short sequences in an element.
const SHORT_PER_ELEMENT: u32 = (ELEMENT_SIZE / (4 * SHORT_SEQUENCE_PAIRS)) as u32;

enum Code {
    Byte(u8),
    Rule(u16),
}

/// The code of the last row of a block at or before `pc`, and where that row begins.
fn scan(block: &[u8], pc: u32) -> Option<(Code, u32)> {
    let mut reader = Reader::new(block);
    let mut at = reader.u32()?;
    let mut found = None;
    let mut left = BLOCK_PAIRS;
    while left > 0 {
        let (delta, code) = (reader.u8()?, reader.u8()?);
        left -= 1;
        if delta == DELTA_ADVANCE {
            if code == 0 {
                break;
            }
            at += u32::from(code) << 8;
            continue;
        }
        if at + u32::from(delta) > pc {
            break;
        }
        at += u32::from(delta);
        if code == CODE_ESCAPE {
            found = Some((Code::Rule(reader.u16()?), at));
            left -= 1;
        } else {
            found = Some((Code::Byte(code), at));
        }
    }
    found
}

/// The rule of a sequence at `offset` from its beginning.
fn expand(sequence: &[u8], offset: u32) -> Option<u16> {
    let mut reader = Reader::new(sequence);
    let mut rule = None;
    for index in 0..sequence.len() / 4 {
        let (from, next) = (reader.u16()?, reader.u16()?);
        if index > 0 && (from == 0 || u32::from(from) > offset) {
            break;
        }
        rule = Some(next);
    }
    rule
}
