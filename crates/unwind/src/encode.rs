//! Rows and rules into 64-byte elements.
use crate::error::Error;
use crate::functions::{FlatRow, Rules};
use crate::layout::{
    BLOCK_PAIRS, CODE_ESCAPE, DELTA_ADVANCE, ELEMENT_SIZE, Header, PAGES_PER_ELEMENT, RULES_PER_ELEMENT, Rule,
    TABLE_MAGIC,
};
use crate::limits::{Limits, MAX_RULES};
use crate::table::Stats;

const END_OF_BLOCK: u16 = DELTA_ADVANCE as u16;

/// The finished bytes.
pub(crate) fn encode(
    base: u64,
    rows: &[FlatRow],
    rules: &Rules,
    limits: &Limits,
    stats: &mut Stats,
) -> Result<Vec<u8>, Error> {
    let (order, numbers) = by_frequency(rows, rules.list());
    let direct = order.len().min(usize::from(CODE_ESCAPE));
    let mut blocks = Blocks::new(direct);
    for row in rows {
        blocks.push(row.pc, numbers[row.rule as usize]);
    }
    let blocks = blocks.finish();

    let last = rows.last().map_or(0, |row| row.pc);
    let pages = (last >> 16) as usize + 1;
    let directory_at = 1;
    let blocks_at = directory_at + pages.div_ceil(PAGES_PER_ELEMENT);
    let rules_at = blocks_at + blocks.len();
    let elements = rules_at + order.len().div_ceil(RULES_PER_ELEMENT);
    if elements > limits.max_elements as usize {
        return Err(Error::Limit {
            what: "table elements",
            found: elements as u64,
            limit: u64::from(limits.max_elements),
        });
    }
    let header = Header {
        magic: TABLE_MAGIC,
        elements: elements as u32,
        base,
        directory: directory_at as u32,
        pages: pages as u32,
        blocks: blocks_at as u32,
        block_count: blocks.len() as u32,
        rules: rules_at as u32,
        rule_count: order.len() as u32,
        direct_rules: direct as u32,
        ..Header::default()
    };
    let mut bytes = Vec::with_capacity(elements * ELEMENT_SIZE);
    bytes.extend_from_slice(&header.to_bytes());
    directory(&blocks, pages, &mut bytes);
    bytes.resize(blocks_at * ELEMENT_SIZE, 0);
    for block in &blocks {
        bytes.extend_from_slice(&block.head.to_le_bytes());
        for pair in block.pairs {
            bytes.extend_from_slice(&pair.to_le_bytes());
        }
    }
    for rule in &order {
        bytes.extend_from_slice(&rule.to_bytes());
    }
    bytes.resize(elements * ELEMENT_SIZE, 0);
    stats.rows = rows.len() as u64;
    stats.rules = order.len() as u64;
    stats.blocks = blocks.len() as u64;
    Ok(bytes)
}

/// The rules that are used, the most frequent first, and the new number of each old one.
fn by_frequency(rows: &[FlatRow], rules: &[Rule]) -> (Vec<Rule>, Vec<u16>) {
    let mut counts = vec![0u32; rules.len()];
    for row in rows {
        counts[row.rule as usize] += 1;
    }
    let mut used: Vec<usize> = (0..rules.len()).filter(|&i| counts[i] > 0).collect();
    used.sort_by(|&a, &b| counts[b].cmp(&counts[a]).then_with(|| rules[a].cmp(&rules[b])));
    let mut order: Vec<Rule> = used.iter().map(|&i| rules[i]).collect();
    let mut numbers = vec![0u16; rules.len()];
    if order.len() > MAX_RULES {
        // More rules than can be numbered: the rarest are given up, which the lookup says.
        order.truncate(MAX_RULES - 1);
        order.push(Rule::UNSUPPORTED);
    }
    for (new, &old) in used.iter().enumerate() {
        numbers[old] = new.min(order.len() - 1) as u16;
    }
    (order, numbers)
}

#[derive(Debug, Clone, Copy)]
struct Block {
    head: u32,
    pairs: [u16; BLOCK_PAIRS],
}

/// Fills blocks pair by pair.
struct Blocks {
    done: Vec<Block>,
    used: usize,
    at: u32,
    direct: u16,
}

impl Blocks {
    fn new(direct: usize) -> Self {
        Self { done: Vec::new(), used: BLOCK_PAIRS, at: 0, direct: direct as u16 }
    }

    fn push(&mut self, pc: u32, rule: u16) {
        let delta = pc - self.at;
        let (steps, rest) = (delta >> 8, delta as u8);
        let escaped = rule >= self.direct;
        let far = delta >= u32::from(DELTA_ADVANCE);
        // A delta that no pairs can spell begins a block, and so does one that does not fit any more.
        let spelt = !far || (rest != DELTA_ADVANCE && steps <= 255);
        let needed = 1 + usize::from(escaped) + usize::from(far);
        if !spelt || self.used + needed > BLOCK_PAIRS {
            self.done.push(Block { head: pc, pairs: [END_OF_BLOCK; BLOCK_PAIRS] });
            self.used = 0;
        } else if far {
            self.pair(DELTA_ADVANCE, steps as u8);
        }
        let delta = if self.used == 0 { 0 } else { rest };
        self.at = pc;
        if escaped {
            self.pair(delta, CODE_ESCAPE);
            self.word(rule);
        } else {
            self.pair(delta, rule as u8);
        }
    }

    fn pair(&mut self, delta: u8, code: u8) {
        self.word(u16::from_le_bytes([delta, code]));
    }

    fn word(&mut self, word: u16) {
        if let Some(slot) = self.done.last_mut().and_then(|b| b.pairs.get_mut(self.used)) {
            *slot = word;
            self.used += 1;
        }
    }

    fn finish(self) -> Vec<Block> {
        self.done
    }
}

/// For each 64 KiB page the blocks that can hold a row for it.
fn directory(blocks: &[Block], pages: usize, out: &mut Vec<u8>) {
    let (mut first, mut last) = (0usize, 0usize);
    for page in 0..pages as u64 {
        let (start, end) = (page << 16, (page << 16) + 0xffff);
        let head = |i: usize| blocks.get(i).map_or(u64::MAX, |b| u64::from(b.head));
        while head(first + 1) <= start {
            first += 1;
        }
        last = last.max(first);
        while head(last + 1) <= end {
            last += 1;
        }
        out.extend_from_slice(&(first as u32).to_le_bytes());
        out.extend_from_slice(&(last as u32).to_le_bytes());
    }
}
