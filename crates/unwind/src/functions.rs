//! Functions with their rows, as they are found in any order and from several sources, put in order.
//!
//! Where sources overlap the better one wins; where functions of one source overlap, a
//! function ends where the next one begins.
use crate::error::Error;
use crate::layout::Rule;
use crate::limits::{Limits, MAX_PADDING};
use crate::table::Stats;
use rustc_hash::FxHashMap;

/// Where a function's rows come from; the first is believed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// Code that is known by what it is, against what is said about it.
    Known,
    Go,
    EhFrame,
    DebugFrame,
    Plt,
    /// Followed instruction by instruction.
    Code,
}

#[derive(Debug, Clone, Copy)]
struct Function {
    start: u64,
    end: u64,
    source: Source,
    first_row: u32,
    row_count: u32,
}

/// From `offset` in its function on, rule number `rule` holds.
#[derive(Debug, Clone, Copy)]
struct Row {
    offset: u32,
    rule: u32,
}

/// A part of a function that nothing better covers.
#[derive(Debug, Clone, Copy)]
struct Piece {
    start: u64,
    end: u64,
    function: u32,
}

/// A row of the finished list: relative pc and rule number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlatRow {
    pub pc: u32,
    pub rule: u32,
}

/// Rules by number.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    list: Vec<Rule>,
    numbers: FxHashMap<Rule, u32>,
}

impl Rules {
    pub fn number(&mut self, rule: Rule) -> u32 {
        *self.numbers.entry(rule).or_insert_with(|| {
            self.list.push(rule);
            // No more rules than rows, and those are counted in u32.
            (self.list.len() - 1) as u32
        })
    }

    pub fn list(&self) -> &[Rule] {
        &self.list
    }
}

/// Takes functions and rows while files are read.
#[derive(Debug)]
pub(crate) struct Collector<'l> {
    /// Only the ranges of functions are wanted: rows are not asked for.
    pub ranges_only: bool,
    pub stats: Stats,
    pub rules: Rules,
    limits: &'l Limits,
    /// [start, end) of executable bytes.
    code: Vec<(u64, u64)>,
    functions: Vec<Function>,
    rows: Vec<Row>,
}

impl<'l> Collector<'l> {
    pub fn new(limits: &'l Limits, code: Vec<(u64, u64)>, ranges_only: bool) -> Self {
        Self {
            ranges_only,
            stats: Stats::default(),
            rules: Rules::default(),
            limits,
            code,
            functions: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Begins a function; `false` if it is not in code (collected by the linker, or made up).
    pub fn open(&mut self, source: Source, start: u64, length: u64) -> Result<bool, Error> {
        let Some(&(_, code_end)) = self.code.iter().find(|(from, to)| *from <= start && start < *to) else {
            self.stats.outside += 1;
            return Ok(false);
        };
        // Address 0 of a file is its header: a function there was thrown away by the linker.
        if start == 0 || length == 0 {
            self.stats.outside += 1;
            return Ok(false);
        }
        let end = start.saturating_add(length).min(code_end).min(start.saturating_add(u64::from(u32::MAX)));
        if self.functions.len() >= self.limits.max_fdes as usize {
            return Err(self.over("functions", self.functions.len(), self.limits.max_fdes));
        }
        let first_row = self.rows.len() as u32;
        self.functions.push(Function { start, end, source, first_row, row_count: 0 });
        self.stats.fdes += 1;
        Ok(true)
    }

    /// From `pc` on `rule` holds in the open function. `pc` must not go back.
    pub fn row(&mut self, pc: u64, rule: Rule) {
        let Some(function) = self.functions.last() else { return };
        if pc < function.start || pc >= function.end || self.rows.len() > self.limits.max_rows as usize {
            return;
        }
        let offset = (pc - function.start) as u32;
        let rule = self.rules.number(rule);
        self.rows.push(Row { offset, rule });
    }

    /// Ends the open function.
    pub fn close(&mut self) -> Result<(), Error> {
        if self.rows.len() > self.limits.max_rows as usize {
            return Err(self.over("rows", self.rows.len(), self.limits.max_rows));
        }
        if let Some(function) = self.functions.last_mut() {
            function.row_count = self.rows.len() as u32 - function.first_row;
            self.stats.raw_rows += u64::from(function.row_count);
        }
        Ok(())
    }

    fn over(&self, what: &'static str, found: usize, limit: u32) -> Error {
        Error::Limit { what, found: found as u64, limit: u64::from(limit) }
    }

    /// The pieces of all functions, sorted, without overlap.
    fn pieces(&mut self) -> Vec<Piece> {
        self.functions.sort_by_key(|f| (f.source, f.start));
        let mut all: Vec<Piece> = Vec::new();
        let mut base = 0u32;
        for class in self.functions.chunk_by(|a, b| a.source == b.source) {
            let mut pieces: Vec<Piece> = Vec::with_capacity(class.len());
            for (function, index) in class.iter().zip(base..) {
                if let Some(last) = pieces.last_mut() {
                    if last.start == function.start {
                        continue;
                    }
                    last.end = last.end.min(function.start);
                }
                pieces.push(Piece { start: function.start, end: function.end, function: index });
            }
            base += class.len() as u32;
            all = if all.is_empty() { pieces } else { merge(&all, &pieces) };
        }
        all
    }

    /// [start, end) of every function so far, sorted, without overlap.
    pub fn covered(&mut self) -> Vec<(u64, u64)> {
        self.pieces().into_iter().map(|p| (p.start, p.end)).collect()
    }

    /// Gaps of the code that no function covers.
    pub fn uncovered(&mut self) -> Vec<(u64, u64)> {
        let pieces = self.pieces();
        let mut gaps = Vec::new();
        let mut pieces = pieces.iter().peekable();
        let mut code = self.code.clone();
        code.sort_unstable();
        for (start, end) in code {
            let mut at = start;
            while let Some(piece) = pieces.next_if(|p| p.start < end) {
                if piece.start > at {
                    gaps.push((at, piece.start));
                }
                at = at.max(piece.end);
            }
            if at < end {
                gaps.push((at, end));
            }
        }
        gaps
    }

    /// All rows in order of pc, relative to the base that is returned with them.
    pub fn flatten(&mut self) -> Result<(u64, Vec<FlatRow>), Error> {
        let pieces = self.pieces();
        let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else { return Err(Error::NoUnwindData) };
        // Page aligned, so that low bits of relative and of virtual addresses are the same.
        let base = first.start & !0xfff;
        let span = last.end - base;
        let bytes: u64 = self.code.iter().map(|(start, end)| end - start).sum();
        // Segments lie beside each other; a file whose code is spread out would only fill the page directory.
        let limit = u64::from(u32::MAX).min(bytes.saturating_mul(16).saturating_add(64 << 20));
        if span >= limit {
            return Err(Error::Limit { what: "address range of the code", found: span, limit });
        }
        let none = self.rules.number(Rule::NONE);
        let mut flat: Vec<FlatRow> = Vec::with_capacity(self.rows.len());
        let mut push = |pc: u64, rule: u32| {
            let pc = (pc - base) as u32;
            if flat.last().is_some_and(|last| last.pc == pc) {
                flat.pop();
            }
            if flat.last().is_none_or(|last| last.rule != rule) {
                flat.push(FlatRow { pc, rule });
            }
        };
        let mut end = first.start;
        for piece in &pieces {
            if piece.start - end > MAX_PADDING {
                push(end, none);
            }
            let function = self.functions[piece.function as usize];
            let rows = &self.rows[function.first_row as usize..][..function.row_count as usize];
            if rows.is_empty() {
                push(piece.start, none);
            }
            for row in rows {
                let pc = function.start + u64::from(row.offset);
                if pc >= piece.end {
                    break;
                }
                push(pc.max(piece.start), row.rule);
            }
            end = piece.end;
        }
        push(end, none);
        Ok((base, flat))
    }
}

/// `high` and those parts of `low` that it does not cover; both sorted and without overlap.
fn merge(high: &[Piece], low: &[Piece]) -> Vec<Piece> {
    let mut out = Vec::with_capacity(high.len() + low.len());
    let mut next = 0;
    for piece in low {
        let mut at = piece.start;
        while let Some(over) = high.get(next).filter(|over| over.start < piece.end) {
            if over.start > at {
                out.push(Piece { start: at, end: over.start, ..*piece });
            }
            at = at.max(over.end);
            if over.end > piece.end {
                break;
            }
            out.push(*over);
            next += 1;
        }
        if at < piece.end {
            out.push(Piece { start: at, ..*piece });
        }
    }
    out.extend_from_slice(high.get(next..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collector(limits: &Limits) -> Collector<'_> {
        Collector::new(limits, vec![(0x1000, 0x9000)], false)
    }

    fn add(out: &mut Collector<'_>, source: Source, start: u64, end: u64, offset: i32) {
        assert_eq!(out.open(source, start, end - start), Ok(true));
        out.row(start, Rule::of(1, offset));
        assert_eq!(out.close(), Ok(()));
    }

    fn rows(out: &mut Collector<'_>) -> Vec<(u32, i32)> {
        let (_, flat) = out.flatten().expect("functions were added");
        flat.iter().map(|row| (row.pc, out.rules.list()[row.rule as usize].cfa_offset)).collect()
    }

    #[test]
    fn better_sources_win_and_the_rest_shows_in_the_gaps() {
        let limits = Limits::default();
        let mut out = collector(&limits);
        add(&mut out, Source::DebugFrame, 0x1000, 0x1100, 8);
        add(&mut out, Source::EhFrame, 0x1020, 0x1040, 16);
        add(&mut out, Source::EhFrame, 0x10f0, 0x1200, 24);
        assert_eq!(rows(&mut out), [(0, 8), (0x20, 16), (0x40, 8), (0xf0, 24), (0x200, 0)]);
    }

    #[test]
    fn padding_keeps_the_rule_before_it_and_gaps_do_not() {
        let limits = Limits::default();
        let mut out = collector(&limits);
        add(&mut out, Source::EhFrame, 0x1000, 0x1010, 8);
        add(&mut out, Source::EhFrame, 0x1030, 0x1040, 16);
        add(&mut out, Source::EhFrame, 0x1061, 0x1070, 16);
        assert_eq!(rows(&mut out), [(0, 8), (0x30, 16), (0x40, 0), (0x61, 16), (0x70, 0)]);
        assert_eq!(out.uncovered(), [(0x1010, 0x1030), (0x1040, 0x1061), (0x1070, 0x9000)]);
    }

    #[test]
    fn overlap_in_one_source_ends_at_the_next_start() {
        let limits = Limits::default();
        let mut out = collector(&limits);
        add(&mut out, Source::EhFrame, 0x1000, 0x2000, 8);
        add(&mut out, Source::EhFrame, 0x1100, 0x1200, 16);
        assert_eq!(out.open(Source::EhFrame, 0x20, 8), Ok(false));
        assert_eq!(rows(&mut out), [(0, 8), (0x100, 16), (0x200, 0)]);
    }
}
