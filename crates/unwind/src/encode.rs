//! Rows and rules into 64-byte elements.
use crate::error::Error;
use crate::functions::FlatRow;
use crate::layout::{
    BLOCK_PAIRS, CODE_ESCAPE, DELTA_ADVANCE, ELEMENT_SIZE, Header, PAGES_PER_ELEMENT, RULES_PER_ELEMENT, Rule,
    SEQUENCE_PAIRS, SHORT_SEQUENCE_PAIRS, TABLE_MAGIC,
};
use crate::limits::{Limits, MAX_RULES};
use crate::rules::Rules;
use crate::sequences::{self, Code, Coded};
use crate::table::Stats;

const END_OF_BLOCK: u16 = DELTA_ADVANCE as u16;

/// The finished bytes.
pub(crate) fn encode(
    base: u64,
    mut rows: Vec<FlatRow>,
    rules: &Rules,
    limits: &Limits,
    stats: &mut Stats,
) -> Result<Vec<u8>, Error> {
    let (order, rows_of_rule, numbers) = by_frequency(&rows, rules.list());
    for row in &mut rows {
        row.rule = u32::from(numbers[row.rule as usize]);
    }
    let Coded { sequences, items } = sequences::code(&rows, &rows_of_rule);
    let direct = order.len().min(usize::from(CODE_ESCAPE) - sequences.len());
    let mut blocks = Blocks::new(direct);
    for (pc, code) in items {
        blocks.push(pc, code);
    }
    let blocks = blocks.finish();

    let last = rows.last().map_or(0, |row| row.pc);
    let pages = (last >> 16) as usize + 1;
    let directory_at = 1;
    let blocks_at = directory_at + pages.div_ceil(PAGES_PER_ELEMENT);
    let rules_at = blocks_at + blocks.len();
    let sequences_at = rules_at + order.len().div_ceil(RULES_PER_ELEMENT);
    let short_count = sequences.iter().filter(|sequence| sequences::is_short(sequence)).count();
    let long_at = sequences_at + (short_count * SHORT_SEQUENCE_PAIRS).div_ceil(SEQUENCE_PAIRS);
    let elements = long_at + sequences.len() - short_count;
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
        sequences: sequences_at as u32,
        sequence_count: sequences.len() as u32,
        short_count: short_count as u32,
        reserved: 0,
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
    bytes.resize(sequences_at * ELEMENT_SIZE, 0);
    for (number, sequence) in sequences.iter().enumerate() {
        for (offset, rule) in sequence {
            bytes.extend_from_slice(&offset.to_le_bytes());
            bytes.extend_from_slice(&rule.to_le_bytes());
        }
        let room = if number < short_count { SHORT_SEQUENCE_PAIRS } else { SEQUENCE_PAIRS };
        bytes.resize(bytes.len() + 4 * (room - sequence.len()), 0);
        if number + 1 == short_count {
            bytes.resize(long_at * ELEMENT_SIZE, 0);
        }
    }
    stats.sequences = sequences.len() as u64;
    stats.rows = rows.len() as u64;
    stats.rules = order.len() as u64;
    stats.blocks = blocks.len() as u64;
    Ok(bytes)
}

/// The rules that are used, the most frequent first, how many rows each has, and the new number of each old one.
fn by_frequency(rows: &[FlatRow], rules: &[Rule]) -> (Vec<Rule>, Vec<u32>, Vec<u16>) {
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
    (order, used.iter().map(|&i| counts[i]).collect(), numbers)
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

    fn push(&mut self, pc: u32, code: Code) {
        let (escaped, code) = match code {
            Code::Rule(rule) => (rule >= self.direct, rule),
            Code::Sequence(index) => (false, self.direct + u16::from(index)),
        };
        let delta = pc - self.at;
        let (steps, rest) = (delta >> 8, delta as u8);
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
            self.word(code);
        } else {
            self.pair(delta, code as u8);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::cfa;
    use crate::table::Table;
    use proptest::prelude::*;

    /// Few forms, so that sequences are learnt, with noise of all sizes between them.
    fn rows() -> impl Strategy<Value = Vec<(u32, u32)>> {
        let gap = prop_oneof![6 => 1u32..20, 2 => 250u32..260, 1 => 500u32..520, 1 => 60_000u32..70_000];
        let rule = prop_oneof![8 => 0u32..6, 1 => 0u32..400];
        let noise = prop::collection::vec((gap, rule), 0..40).boxed();
        let form = prop_oneof![
            Just(vec![(1, 1), (3, 2), (9, 3)]),
            Just(vec![(1, 1), (2, 4), (2, 5), (300, 1)]),
            Just(vec![(4, 0), (1, 1)]),
        ];
        prop::collection::vec(prop_oneof![4 => form.boxed(), 1 => noise], 0..600).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_byte_of_every_row_is_found_again(parts in rows(), base in prop_oneof![Just(0u64), Just(u64::MAX - 0xffff_ffff)]) {
            let mut rules = Rules::default();
            let mut flat: Vec<FlatRow> = Vec::new();
            let mut pc = 0;
            for (gap, rule) in parts {
                pc += gap;
                let rule = rules.number(Rule::of(cfa::SP, 8 + rule as i32));
                flat.push(FlatRow { pc, rule });
            }
            let mut stats = Stats::default();
            let bytes = encode(base, flat.clone(), &rules, &Limits::default(), &mut stats).expect("it is small");
            let table = Table::new(bytes, stats);
            for (at, row) in flat.iter().enumerate() {
                let end = flat.get(at + 1).map_or(row.pc + 1, |next| next.pc);
                for pc in [row.pc, row.pc + (end - row.pc) / 2, end - 1] {
                    prop_assert_eq!(table.lookup(base + u64::from(pc)), rules.list()[row.rule as usize], "{:#x}", pc);
                }
            }
            if let Some(first) = flat.first() {
                prop_assert_eq!(table.lookup((base + u64::from(first.pc)).wrapping_sub(1)), Rule::NONE);
            }
        }
    }

    #[test]
    fn repeated_forms_become_sequences_and_take_less() {
        let mut rules = Rules::default();
        let numbers: Vec<u32> = (0..4).map(|i| rules.number(Rule::of(cfa::SP, 8 * i))).collect();
        let mut flat = Vec::new();
        for function in 0..5000u32 {
            let start = function * 40 + function % 7;
            for (offset, rule) in [(0, 0), (1, 1), (4, 2), (20, 3)] {
                flat.push(FlatRow { pc: start + offset, rule: numbers[rule] });
            }
        }
        let mut stats = Stats::default();
        let bytes = encode(0, flat.clone(), &rules, &Limits::default(), &mut stats).expect("it is small");
        assert!(stats.sequences > 0);
        assert!(bytes.len() < flat.len(), "{} bytes for {} rows", bytes.len(), flat.len());
    }
}
