//! Sequences: rows that follow each other at the same distances again and again, learnt per executable.
//!
//! Prologues and epilogues come in few forms. The most frequent pair of neighbours is merged
//! into one symbol, again and again, on a sample of the rows; what is found that way is then
//! matched against all rows, longest first.
use crate::functions::FlatRow;
use crate::layout::{CODE_ESCAPE, SEQUENCE_PAIRS, SHORT_SEQUENCE_PAIRS};
use rustc_hash::FxHashMap;

/// Sequences in a table at most; the codes below 255 that they leave are for rules.
const MAX_SEQUENCES: usize = 192;
/// Merges tried; some only lead to longer sequences.
const MAX_MERGES: usize = 256;
/// Rows looked at while learning.
const SAMPLE_ROWS: usize = 1 << 16;
/// The sample is made of runs of this many rows.
const RUN_ROWS: usize = 512;
/// Bytes that a pair of a block takes, which is what each row of a sequence but the first saves.
const PAIR: usize = 2;
/// A pair is worth learning from so many on: four of them save what a short sequence takes.
const LEAST_PAIRS: usize = 10;

/// (offset from the first row, rule), the first with offset 0.
pub(crate) type Sequence = Vec<(u16, u16)>;

/// Whether it fits a quarter of an element.
pub(crate) fn is_short(sequence: &Sequence) -> bool {
    sequence.len() <= SHORT_SEQUENCE_PAIRS
}

/// What one pair of a block can stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Rule(u16),
    Sequence(u8),
}

/// The rows as codes; a code stands for all rows up to the next one.
pub(crate) struct Coded {
    pub sequences: Vec<Sequence>,
    pub items: Vec<(u32, Code)>,
}

/// Learns sequences from rows (whose rules are final numbers) and codes the rows with them.
/// `rows_of_rule` says how many rows each rule has, in order of their numbers. Short sequences come first.
pub(crate) fn code(rows: &[FlatRow], rows_of_rule: &[u32]) -> Coded {
    let learnt = learn(rows);
    // Which of them a longest match really uses, and how much each saves.
    let all = Matcher::new(&learnt);
    let mut saved = vec![0usize; learnt.len()];
    all.run(rows, |_, code| {
        if let Match::Sequence(index) = code {
            saved[index] += learnt[index].len() - 1;
        }
    });
    let takes = |i: usize| 4 * if is_short(&learnt[i]) { SHORT_SEQUENCE_PAIRS } else { SEQUENCE_PAIRS };
    let gain = |i: usize| (saved[i] * PAIR).saturating_sub(takes(i));
    let mut order: Vec<usize> = (0..learnt.len()).filter(|&i| gain(i) > 0).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(gain(i)), i));
    // Each takes a code from a rule, the rarest of those that have one, whose rows then take a pair more.
    let worth = |&(taken, &i): &(usize, &usize)| {
        gain(i) > PAIR * rows_of_rule.get(usize::from(CODE_ESCAPE) - 1 - taken).copied().unwrap_or(0) as usize
    };
    let kept = order.iter().take(MAX_SEQUENCES).enumerate().take_while(worth).count();
    order.truncate(kept);
    order.sort_by_key(|&i| (!is_short(&learnt[i]), std::cmp::Reverse(saved[i]), i));
    let sequences: Vec<Sequence> = order.iter().map(|&i| learnt[i].clone()).collect();

    let mut items = Vec::with_capacity(rows.len() / 2);
    Matcher::new(&sequences).run(rows, |pc, code| {
        let code = match code {
            Match::Rule(rule) => Code::Rule(rule),
            Match::Sequence(index) => Code::Sequence(index as u8),
        };
        items.push((pc, code));
    });
    Coded { sequences, items }
}

/// A rule's number, or 65,536 and more for what has been merged.
type Symbol = u32;
const MERGED: Symbol = 1 << 16;
/// Parts two runs of the sample.
const BREAK: Symbol = Symbol::MAX;

fn learn(rows: &[FlatRow]) -> Vec<Sequence> {
    let mut items = sample(rows);
    let scale = rows.len().div_ceil(SAMPLE_ROWS).max(1);
    let least = (LEAST_PAIRS / scale).max(8) as u32;
    let mut merged: Vec<Sequence> = Vec::new();
    let mut counts = Counts::default();
    for pair in items.windows(2) {
        counts.add(key(pair[0], pair[1], &merged));
    }
    counts.0.retain(|_, count| *count >= least);
    counts.0.shrink_to_fit();
    while merged.len() < MAX_MERGES {
        let best = counts.0.iter().max_by_key(|(pair, count)| (**count, std::cmp::Reverse(**pair)));
        let Some((&best, _)) = best else { break };
        let (first, second, distance) = best;
        let mut sequence = rows_of(first, &merged);
        sequence.extend(rows_of(second, &merged).iter().map(|(offset, rule)| (distance + offset, *rule)));
        merged.push(sequence);
        replace(&mut items, best, &merged, &mut counts);
        // Only pairs with the newest symbol can grow, and only while it is put in.
        counts.0.retain(|_, count| *count >= least);
    }
    merged
}

/// Two symbols and the distance between them.
type Pair = (Symbol, Symbol, u16);

/// How often each pair stands in the items, kept up to date.
#[derive(Default)]
struct Counts(FxHashMap<Pair, u32>);

impl Counts {
    fn add(&mut self, pair: Option<Pair>) {
        if let Some(pair) = pair {
            *self.0.entry(pair).or_default() += 1;
        }
    }

    fn remove(&mut self, pair: Option<Pair>) {
        if let Some(count) = pair.and_then(|pair| self.0.get_mut(&pair)) {
            *count = count.saturating_sub(1);
        }
    }
}

/// Runs of rows from all over the executable.
fn sample(rows: &[FlatRow]) -> Vec<(u32, Symbol)> {
    let runs = SAMPLE_ROWS / RUN_ROWS;
    let step = (rows.len() / runs).max(RUN_ROWS);
    let mut items = Vec::with_capacity(SAMPLE_ROWS + runs);
    for run in rows.chunks(step) {
        items.extend(run.iter().take(RUN_ROWS).map(|row| (row.pc, row.rule)));
        if step > RUN_ROWS {
            items.push((0, BREAK));
        }
    }
    items
}

fn rows_of(symbol: Symbol, merged: &[Sequence]) -> Sequence {
    match symbol.checked_sub(MERGED) {
        None => vec![(0, symbol as u16)],
        Some(index) => merged[index as usize].clone(),
    }
}

/// (rows, distance from the first to the last) of a symbol.
fn extent(symbol: Symbol, merged: &[Sequence]) -> (usize, u16) {
    match symbol.checked_sub(MERGED) {
        None => (1, 0),
        Some(index) => {
            let sequence = &merged[index as usize];
            (sequence.len(), sequence.last().map_or(0, |row| row.0))
        }
    }
}

/// The two items as a candidate, if together they still fit a sequence.
fn key(a: (u32, Symbol), b: (u32, Symbol), merged: &[Sequence]) -> Option<Pair> {
    if a.1 == BREAK || b.1 == BREAK {
        return None;
    }
    let distance = u16::try_from(b.0 - a.0).ok()?;
    let ((rows, _), (more, length)) = (extent(a.1, merged), extent(b.1, merged));
    distance.checked_add(length)?;
    (rows + more <= SEQUENCE_PAIRS).then_some((a.1, b.1, distance))
}

/// Puts the newest merged symbol in place of each `pair`.
fn replace(items: &mut Vec<(u32, Symbol)>, pair: Pair, merged: &[Sequence], counts: &mut Counts) {
    let symbol = MERGED + merged.len() as Symbol - 1;
    let (mut kept, mut at) = (0, 0);
    while at < items.len() {
        let mut item = items[at];
        at += 1;
        if let Some(&next) = items.get(at)
            && item.1 == pair.0
            && key(item, next, merged) == Some(pair)
        {
            let new = (item.0, symbol);
            at += 1;
            counts.remove(Some(pair));
            if let Some(before) = items[..kept].last() {
                counts.remove(key(*before, item, merged));
                counts.add(key(*before, new, merged));
            }
            if let Some(after) = items.get(at) {
                counts.remove(key(next, *after, merged));
                counts.add(key(new, *after, merged));
            }
            item = new;
        }
        items[kept] = item;
        kept += 1;
    }
    items.truncate(kept);
}

enum Match {
    Rule(u16),
    Sequence(usize),
}

/// A trie of sequences.
struct Matcher {
    /// (node, distance from the row before, rule) to the next node.
    edges: FxHashMap<(u32, u16, u16), u32>,
    /// The sequence that ends at a node.
    ends: Vec<Option<usize>>,
}

impl Matcher {
    fn new(sequences: &[Sequence]) -> Self {
        let mut matcher = Self { edges: FxHashMap::default(), ends: vec![None] };
        for (index, sequence) in sequences.iter().enumerate() {
            let (mut node, mut before) = (0, 0);
            for &(offset, rule) in sequence {
                let fresh = matcher.ends.len() as u32;
                node = *matcher.edges.entry((node, offset - before, rule)).or_insert(fresh);
                if node == fresh {
                    matcher.ends.push(None);
                }
                before = offset;
            }
            matcher.ends[node as usize] = Some(index);
        }
        matcher
    }

    /// Takes the longest match at each row.
    fn run(&self, rows: &[FlatRow], mut out: impl FnMut(u32, Match)) {
        let mut at = 0;
        while let Some(first) = rows.get(at) {
            let (mut node, mut before, mut length) = (0, first.pc, 0);
            let mut best = (1, Match::Rule(first.rule as u16));
            for row in &rows[at..] {
                let Ok(distance) = u16::try_from(row.pc - before) else { break };
                let Some(&next) = self.edges.get(&(node, distance, row.rule as u16)) else { break };
                (node, before, length) = (next, row.pc, length + 1);
                if let Some(index) = self.ends[node as usize] {
                    best = (length, Match::Sequence(index));
                }
            }
            out(first.pc, best.1);
            at += best.0;
        }
    }
}
