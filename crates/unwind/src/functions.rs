//! Functions with their rows, as they are found in any order and from several sources, put in order.
//!
//! Where sources overlap the better one wins; where functions of one source overlap, a
//! function ends where the next one begins. Rows that the code tells by itself are left out.
use crate::elf::Segment;
use crate::error::Error;
use crate::layout::{RULE_PEEK, Rule, cfa};
use crate::limits::{Limits, MAX_PADDING};
use crate::machine::Machine;
use crate::peek::{Peek, WINDOW, agrees, contradicts, may_give_way, peek};
use crate::pieces::{Piece, pieces};
use crate::rules::Rules;
use crate::table::Stats;

/// One row in so many has to be left out, or all stay.
const WORTH_A_LOOK: u64 = 16;

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
pub(crate) struct Function {
    pub start: u64,
    pub length: u32,
    first_row: u32,
    row_count: u32,
    pub source: Source,
    /// Where it begins as all do, how far `push rbp` ends from its start: two rows left out, in
    /// front of those that are there. 0 where it does not.
    pushed: u8,
}

/// From `offset` in its function on, rule number `rule` holds.
#[derive(Debug, Clone, Copy)]
struct Row {
    offset: u32,
    rule: u32,
}

/// A row of the finished list: relative pc and rule number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlatRow {
    pub pc: u32,
    pub rule: u32,
}

/// What is wanted of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    /// The ranges of functions: rows are not asked for.
    Ranges,
    /// All rows.
    Rows,
    /// All rows, each of which says where the caller's rbx is.
    RowsWithRbx,
    /// All rows but those that the code tells by itself.
    RowsBesideCode,
}

/// Takes functions and rows while files are read.
#[derive(Debug)]
pub(crate) struct Collector<'l> {
    pub machine: Machine,
    pub aim: Aim,
    /// Some frame is found by rbx.
    pub found_by_rbx: bool,
    pub stats: Stats,
    pub rules: Rules,
    limits: &'l Limits,
    /// The executable bytes.
    code: Vec<Segment<'l>>,
    functions: Vec<Function>,
    rows: Vec<Row>,
}

impl<'l> Collector<'l> {
    pub fn new(machine: Machine, limits: &'l Limits, code: Vec<Segment<'l>>, aim: Aim) -> Self {
        Self {
            machine,
            aim,
            found_by_rbx: false,
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
        let Some(code) = self.code.iter().find(|code| code.address <= start && start < code.end()) else {
            self.stats.outside += 1;
            return Ok(false);
        };
        // Address 0 of a file is its header: a function there was thrown away by the linker.
        if start == 0 || length == 0 {
            self.stats.outside += 1;
            return Ok(false);
        }
        let length = u32::try_from(length.min(code.end() - start)).unwrap_or(u32::MAX);
        if self.functions.len() >= self.limits.max_fdes as usize {
            return Err(self.over("functions", self.functions.len(), self.limits.max_fdes));
        }
        let first_row = self.rows.len() as u32;
        self.functions.push(Function { start, length, source, first_row, row_count: 0, pushed: 0 });
        self.stats.fdes += 1;
        Ok(true)
    }

    /// From `pc` on `rule` holds in the open function. `pc` must not go back.
    pub fn row(&mut self, pc: u64, rule: Rule) {
        let Some(function) = self.functions.last() else { return };
        let offset = pc.checked_sub(function.start).and_then(|offset| u32::try_from(offset).ok());
        let Some(offset) = offset.filter(|offset| *offset < function.length) else { return };
        if self.rows.len() > self.limits.max_rows as usize {
            return;
        }
        self.found_by_rbx |= self.machine == Machine::X86_64 && rule.is_found_by_rbx();
        let rule = self.rules.number(rule);
        self.rows.push(Row { offset, rule });
    }

    /// Ends the open function.
    pub fn close(&mut self) -> Result<(), Error> {
        if self.rows.len() > self.limits.max_rows as usize {
            return Err(self.over("rows", self.rows.len(), self.limits.max_rows));
        }
        if let Some(mut function) = self.functions.pop() {
            self.stats.raw_rows += self.rows.len() as u64 - u64::from(function.first_row);
            if self.aim == Aim::RowsBesideCode {
                self.leave_out(&mut function);
            }
            function.row_count = self.rows.len() as u32 - function.first_row;
            self.functions.push(function);
        }
        Ok(())
    }

    /// Leaves out what the code tells by itself of the rows of the last function.
    fn leave_out(&mut self, function: &mut Function) {
        let first = function.first_row as usize;
        let (mut kept, mut at) = (first, first);
        if let (Some(entry), Some(pushed), Some(_)) =
            (self.told(function, at), self.told(function, at + 1), self.rows.get(at + 2))
            && entry.rule == Rule::of(cfa::SP, 8)
            && pushed.rule == Rule::of(cfa::SP, 16).with_fp_at(-16)
            && entry.length + pushed.length >= 4
        {
            function.pushed = entry.length;
            at += 2;
        }
        while let Some(&row) = self.rows.get(at) {
            // What is left out is answered by the row before, so that one has to let the code speak.
            let before = kept.checked_sub(1).filter(|before| *before >= first).and_then(|before| self.rows.get(before));
            let silent = before.is_none_or(|before| !self.rules.peeks(before.rule));
            if silent || self.told(function, at).is_none() {
                let rule = self.rules.get(row.rule);
                let code = peek(&self.window(function.start + u64::from(row.offset)));
                let peeks = may_give_way(&rule) && !code.is_some_and(|code| contradicts(&code, &rule));
                let rule = if peeks { self.rules.peeking(row.rule) } else { row.rule };
                if let Some(slot) = self.rows.get_mut(kept) {
                    *slot = Row { rule, ..row };
                }
                kept += 1;
            }
            at += 1;
        }
        self.stats.left_out += (self.rows.len() - kept) as u64;
        self.rows.truncate(kept);
    }

    /// What the code says of the row at `index`, if that is all of it and the same.
    fn told(&self, function: &Function, index: usize) -> Option<Peek> {
        let row = self.rows.get(index)?;
        let end = self.rows.get(index + 1).map_or(function.length, |next| next.offset);
        let pc = function.start + u64::from(row.offset);
        let code = peek(&self.window(pc))?;
        // Bytes on two pages may not both be there to be read.
        let last = pc + u64::from(code.length) - 1;
        let one_page = pc.wrapping_sub(1) >> 12 == (last + WINDOW as u64 - 2) >> 12;
        let whole = end - row.offset == u32::from(code.length);
        (one_page && whole && agrees(&self.rules.get(row.rule), &code.rule)).then_some(code)
    }

    /// The bytes that are looked at where a thread stands at `pc`.
    fn window(&self, pc: u64) -> [u8; WINDOW] {
        let mut window = [0; WINDOW];
        if let Some(code) = self.code.iter().find(|code| code.address < pc && pc < code.end()) {
            let bytes = code.data.get((pc - 1 - code.address) as usize..).unwrap_or_default();
            let length = bytes.len().min(WINDOW);
            window[..length].copy_from_slice(&bytes[..length]);
        }
        window
    }

    /// Whether enough rows were left out to be worth a look at the code of every leaf.
    pub fn code_tells_enough(&self) -> bool {
        self.stats.left_out >= self.stats.raw_rows / WORTH_A_LOOK
    }

    fn over(&self, what: &'static str, found: usize, limit: u32) -> Error {
        Error::Limit { what, found: found as u64, limit: u64::from(limit) }
    }

    /// The pieces of all functions, in order, without overlap.
    fn pieces(&mut self) -> impl Iterator<Item = Piece> {
        self.sort();
        pieces(&self.functions)
    }

    /// Those of one start stay as they came: their rows did.
    fn sort(&mut self) {
        self.functions.sort_unstable_by_key(|f| (f.source, f.start, f.first_row));
    }

    /// [start, end) of every function so far, sorted, without overlap.
    pub fn covered(&mut self) -> Vec<(u64, u64)> {
        self.pieces().map(|p| (p.start, p.end())).collect()
    }

    /// Gaps of the code that no function covers.
    pub fn uncovered(&mut self) -> Vec<(u64, u64)> {
        let mut code: Vec<(u64, u64)> = self.code.iter().map(|code| (code.address, code.end())).collect();
        code.sort_unstable();
        let mut gaps = Vec::new();
        let mut pieces = self.pieces().peekable();
        for (start, end) in code {
            let mut at = start;
            while let Some(piece) = pieces.next_if(|p| p.start < end) {
                if piece.start > at {
                    gaps.push((at, piece.start));
                }
                at = at.max(piece.end());
            }
            if at < end {
                gaps.push((at, end));
            }
        }
        gaps
    }

    /// All rows in order of pc, relative to the base that is returned with them. What was collected is used up.
    pub fn flatten(&mut self) -> Result<(u64, Vec<FlatRow>), Error> {
        let ends = |(first, _): (u64, u64), piece: Piece| (first.min(piece.start), piece.end());
        let (first, last) = self.pieces().fold((u64::MAX, 0), ends);
        if last == 0 {
            return Err(Error::NoUnwindData);
        }
        // Both grew by doubling, and this is where most is held: what they do not need goes back.
        self.functions.shrink_to_fit();
        self.rows.shrink_to_fit();
        // Page aligned, so that low bits of relative and of virtual addresses are the same.
        let base = first & !0xfff;
        let span = last - base;
        let bytes: u64 = self.code.iter().map(|code| code.data.len() as u64).sum();
        // Segments lie beside each other; a file whose code is spread out would only fill the page directory.
        let limit = u64::from(u32::MAX).min(bytes.saturating_mul(16).saturating_add(64 << 20));
        if span >= limit {
            return Err(Error::Limit { what: "address range of the code", found: span, limit });
        }
        let none = self.rules.number(Rule::NONE);
        let entry = self.rules.number(Rule { flags: RULE_PEEK, ..Rule::of(cfa::SP, 8) });
        let pushed = self.rules.number(Rule { flags: RULE_PEEK, ..Rule::of(cfa::SP, 16).with_fp_at(-16) });
        let mut flat: Vec<FlatRow> = Vec::with_capacity(self.rows.len());
        let push = |flat: &mut Vec<FlatRow>, pc: u64, rule: u32| {
            let pc = (pc - base) as u32;
            if flat.last().is_some_and(|last| last.pc == pc) {
                flat.pop();
            }
            if flat.last().is_none_or(|last| last.rule != rule) {
                flat.push(FlatRow { pc, rule });
            }
        };
        let mut end = first;
        for piece in pieces(&self.functions) {
            if piece.start - end > MAX_PADDING {
                push(&mut flat, end, none);
            }
            let function = self.functions[piece.function as usize];
            let rows = &self.rows[function.first_row as usize..][..function.row_count as usize];
            if rows.is_empty() {
                push(&mut flat, piece.start, none);
            }
            // The two rows left out of the beginning are needed where what is before does not let the code speak.
            let answered = piece.start == function.start && flat.last().is_some_and(|last| self.rules.peeks(last.rule));
            let beginning = [Row { offset: 0, rule: entry }, Row { offset: function.pushed.into(), rule: pushed }];
            let beginning = if function.pushed == 0 || answered { &[][..] } else { &beginning };
            for row in beginning.iter().chain(rows) {
                let pc = function.start + u64::from(row.offset);
                if pc >= piece.end() {
                    break;
                }
                push(&mut flat, pc.max(piece.start), row.rule);
            }
            end = piece.end();
        }
        push(&mut flat, end, none);
        (self.functions, self.rows) = (Vec::new(), Vec::new());
        Ok((base, flat))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collector(limits: &Limits) -> Collector<'_> {
        let data = &[0; 0x8000];
        Collector::new(
            Machine::X86_64,
            limits,
            vec![Segment { address: 0x1000, data, executable: true }],
            Aim::RowsBesideCode,
        )
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
        assert_eq!(out.uncovered(), [(0x1010, 0x1030), (0x1040, 0x1061), (0x1070, 0x9000)]);
        assert_eq!(rows(&mut out), [(0, 8), (0x30, 16), (0x40, 0), (0x61, 16), (0x70, 0)]);
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
