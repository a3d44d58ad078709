//! Rows for code that has no unwind data at all, from what its instructions do to rsp and rbp.
//!
//! musl comes without call frame information, as distributions build it, and without frame
//! pointers. Its code is followed from places where a function is known to begin: rsp is 8
//! below the CFA there, and every push, pop and subtraction moves it by a known amount. Where
//! two ways lead to one place with different stacks, or rsp is computed, nothing is said.
//!
//! Only musl is read like that (and on arm64 more simply, `code_arm64`): elsewhere what looks like a function may begin in the middle
//! of another one's frame (the bytecode handlers of V8 do).
use crate::elf::Elf;
use crate::error::Error;
use crate::functions::{Collector, Source};
use crate::instruction::{Effect, Instruction, decode};
use crate::layout::Rule;
use crate::limits::{MAX_COVERED_BYTES, MAX_INSTRUCTIONS};
use crate::stack::State;
use rustc_hash::{FxHashMap, FxHashSet};

/// How musl begins, libc.so as well as programs: xor rbp, rbp; mov rdi, rsp; lea rsi, [rip + ...]
const MUSL_START: [u8; 9] = [0x48, 0x31, 0xed, 0x48, 0x89, 0xe7, 0x48, 0x8d, 0x35];
/// Functions are often aligned to this.
const ALIGNMENT: u64 = 16;

/// The code that nothing else covers, with the places where functions are known to begin.
fn flow<'e, 'a>(elf: &'e Elf<'a>, out: &mut Collector<'_>) -> Option<Flow<'e, 'a>> {
    if !elf.bytes_at(elf.entry).is_some_and(|code| code.starts_with(&MUSL_START)) {
        return None;
    }
    let gaps = out.uncovered();
    let mut flow = Flow::new(elf, gaps);
    if flow.gaps.is_empty() {
        return None;
    }
    flow.begin_at_symbols();
    flow.begin(elf.entry);
    let covered = out.covered();
    if covered.iter().map(|(start, end)| end - start).sum::<u64>() <= MAX_COVERED_BYTES {
        flow.begin_at_targets(&covered);
    }
    Some(flow)
}

/// Where functions begin in code that nothing else covers, sorted: what symbols name, what is
/// called, and whose address is taken.
pub(crate) fn begins(elf: &Elf<'_>, out: &mut Collector<'_>) -> Vec<u64> {
    let Some(mut flow) = flow(elf, out) else { return Vec::new() };
    flow.discover();
    let mut begins: Vec<u64> = flow.begins.into_iter().collect();
    begins.sort_unstable();
    begins
}

/// Adds rows for code that nothing else covers.
pub(crate) fn read(elf: &Elf<'_>, out: &mut Collector<'_>) -> Result<(), Error> {
    let Some(flow) = flow(elf, out) else { return Ok(()) };
    for region in flow.regions() {
        let (Some(first), Some(last)) = (region.first(), region.last()) else { continue };
        if out.open(Source::Code, first.0, last.0 + u64::from(last.1) - first.0)? {
            for (pc, _, rule) in &region {
                out.row(*pc, *rule);
            }
            out.close()?;
        }
    }
    Ok(())
}

/// Instructions of code without unwind data, and what is known at each.
struct Flow<'e, 'a> {
    elf: &'e Elf<'a>,
    gaps: Vec<(u64, u64)>,
    /// [start, end) of function symbols that say their size.
    extents: Vec<(u64, u64)>,
    begins: FxHashSet<u64>,
    code: FxHashMap<u64, Instruction>,
    returning: FxHashSet<u64>,
    states: FxHashMap<u64, (State, u8)>,
}

/// Where the code goes on behind an instruction, as if every call returned.
fn ways(instruction: &Instruction, next: u64) -> [Option<u64>; 2] {
    match instruction.effect {
        Effect::Jump(Some(to)) => [Some(next.wrapping_add_signed(to.into())), None],
        Effect::Branch(to) => [Some(next), Some(next.wrapping_add_signed(to.into()))],
        Effect::Jump(None) | Effect::Return | Effect::Stop => [None, None],
        _ => [Some(next), None],
    }
}

impl<'e, 'a> Flow<'e, 'a> {
    fn new(elf: &'e Elf<'a>, mut gaps: Vec<(u64, u64)>) -> Self {
        // Padding is not worth a look.
        gaps.retain(|(start, end)| end - start > ALIGNMENT);
        Self {
            elf,
            gaps,
            extents: Vec::new(),
            begins: FxHashSet::default(),
            code: FxHashMap::default(),
            returning: FxHashSet::default(),
            states: FxHashMap::default(),
        }
    }

    /// The end of the gap that `pc` is in.
    fn gap(&self, pc: u64) -> Option<u64> {
        let after = self.gaps.partition_point(|gap| gap.0 <= pc);
        let (_, end) = *self.gaps.get(after.checked_sub(1)?)?;
        (pc < end).then_some(end)
    }

    fn begin(&mut self, pc: u64) {
        if self.gap(pc).is_some() {
            self.begins.insert(pc);
        }
    }

    fn begin_at_symbols(&mut self) {
        for symbol in self.elf.symbols().filter(|s| s.function) {
            if self.gap(symbol.address).is_some() && self.begins.len() < MAX_INSTRUCTIONS {
                self.begins.insert(symbol.address);
                if symbol.size > 0 {
                    self.extents.push((symbol.address, symbol.address.saturating_add(symbol.size)));
                }
            }
        }
        self.extents.sort_unstable();
    }

    /// What covered code calls.
    fn begin_at_targets(&mut self, covered: &[(u64, u64)]) {
        for &(start, end) in covered {
            let mut pc = start;
            while pc < end {
                let Some(instruction) = self.decode(pc) else { break };
                let next = pc + u64::from(instruction.length);
                self.begin_at_target(instruction.effect, next);
                pc = next;
            }
        }
    }

    fn begin_at_target(&mut self, effect: Effect, next: u64) {
        match effect {
            Effect::Call(Some(to)) => self.begin(next.wrapping_add_signed(to.into())),
            Effect::Address(to) if next.wrapping_add_signed(to.into()).is_multiple_of(ALIGNMENT) => {
                self.begin(next.wrapping_add_signed(to.into()));
            }
            _ => {}
        }
    }

    fn decode(&self, pc: u64) -> Option<Instruction> {
        decode(self.elf.bytes_at(pc)?)
    }

    /// Finds where functions begin: what is called, and whose address is taken.
    fn discover(&mut self) {
        let mut todo: Vec<u64> = self.begins.iter().copied().collect();
        todo.sort_unstable();
        while let Some(pc) = todo.pop() {
            if self.code.len() >= MAX_INSTRUCTIONS || self.gap(pc).is_none() || self.code.contains_key(&pc) {
                continue;
            }
            let Some(instruction) = self.decode(pc) else { continue };
            self.code.insert(pc, instruction);
            let next = pc + u64::from(instruction.length);
            let known = self.begins.len();
            self.begin_at_target(instruction.effect, next);
            if let (Effect::Call(Some(to)) | Effect::Address(to), true) =
                (instruction.effect, self.begins.len() > known)
            {
                todo.push(next.wrapping_add_signed(to.into()));
            }
            todo.extend(ways(&instruction, next).into_iter().flatten());
        }
    }

    /// Finds the instructions from which a return can be reached; a call to one from which it cannot never ends.
    fn find_returning(&mut self) {
        let mut waiting: FxHashMap<u64, Vec<u64>> = FxHashMap::default();
        let mut todo = Vec::new();
        for (&pc, instruction) in &self.code {
            let next = pc + u64::from(instruction.length);
            let callee = match instruction.effect {
                Effect::Call(Some(to)) => Some(next.wrapping_add_signed(to.into())),
                _ => None,
            };
            let mut leaves = matches!(instruction.effect, Effect::Return | Effect::Jump(None));
            for to in ways(instruction, next).into_iter().chain([callee]).flatten() {
                // What is not in the graph may return.
                if self.code.contains_key(&to) {
                    waiting.entry(to).or_default().push(pc);
                } else {
                    leaves |= callee.is_none();
                }
            }
            if leaves {
                todo.push(pc);
            }
        }
        while let Some(pc) = todo.pop() {
            if !self.returning.insert(pc) {
                continue;
            }
            for &before in waiting.get(&pc).map(Vec::as_slice).unwrap_or_default() {
                let call = self.code.get(&before).map(|i| (before + u64::from(i.length), i.effect));
                let ready = match call {
                    Some((next, Effect::Call(Some(to)))) => {
                        [next, next.wrapping_add_signed(to.into())].iter().all(|pc| self.may_return(*pc))
                    }
                    _ => true,
                };
                if ready {
                    todo.push(before);
                }
            }
        }
    }

    fn may_return(&self, pc: u64) -> bool {
        self.returning.contains(&pc) || !self.code.contains_key(&pc)
    }

    /// Follows all ways from all beginnings.
    fn follow(&mut self) {
        self.discover();
        self.find_returning();
        let mut todo: Vec<(u64, State)> = self.begins.iter().map(|pc| (*pc, State::ENTRY)).collect();
        while let Some((pc, state)) = todo.pop() {
            // Where a function begins only its caller's view counts: a call that never returns seems to run into it.
            if self.begins.contains(&pc) && state != State::ENTRY {
                continue;
            }
            let (Some(gap_end), Some(&instruction)) = (self.gap(pc), self.code.get(&pc)) else { continue };
            let state = match self.states.get(&pc) {
                Some((known, _)) if *known == state || *known == State::UNKNOWN => continue,
                Some(_) => State::UNKNOWN,
                None => state,
            };
            let next = pc + u64::from(instruction.length);
            if next > gap_end {
                continue;
            }
            self.states.insert(pc, (state, instruction.length));
            let after = state.after(instruction.effect);
            let ends = match instruction.effect {
                Effect::Call(Some(to)) => match self.callee(next.wrapping_add_signed(to.into())) {
                    Some(callee) => !self.returning.contains(&callee),
                    None => !self.belongs(pc, next),
                },
                Effect::Call(None) => !self.belongs(pc, next),
                _ => false,
            };
            if !ends {
                todo.extend(ways(&instruction, next).into_iter().flatten().map(|to| (to, after)));
            }
        }
    }

    /// A called function, if its code is here: not an entry of a linkage table, which leads anywhere.
    fn callee(&self, pc: u64) -> Option<u64> {
        let mut first = self.code.get(&pc)?;
        if first.effect == Effect::None {
            first = self.code.get(&(pc + u64::from(first.length)))?;
        }
        (first.effect != Effect::Jump(None)).then_some(pc)
    }

    /// Whether the code behind a call to who knows what belongs to the caller for sure.
    fn belongs(&self, pc: u64, next: u64) -> bool {
        let after = self.extents.partition_point(|extent| extent.0 <= pc);
        if let Some((_, end)) = after.checked_sub(1).and_then(|i| self.extents.get(i)).filter(|(_, end)| pc < *end) {
            return next < *end;
        }
        !next.is_multiple_of(ALIGNMENT) && self.code.get(&next).is_some_and(|instruction| !instruction.nop)
    }

    /// Runs of instructions with a rule each, without overlap.
    fn regions(mut self) -> Vec<Vec<(u64, u8, Rule)>> {
        self.follow();
        let mut all: Vec<(u64, State, u8)> =
            self.states.iter().map(|(pc, (state, length))| (*pc, *state, *length)).collect();
        all.sort_unstable_by_key(|(pc, ..)| *pc);
        let mut regions: Vec<Vec<(u64, u8, Rule)>> = Vec::new();
        let mut end = 0;
        for (pc, state, length) in all {
            // Two readings of the same bytes: one of them is wrong.
            let overlaps = pc < end;
            let broken = pc != end || regions.is_empty();
            end = end.max(pc + u64::from(length));
            let rule = state.rule().filter(|_| !overlaps);
            let Some(rule) = rule else {
                regions.push(Vec::new());
                continue;
            };
            if broken || self.begins.contains(&pc) {
                regions.push(Vec::new());
            }
            if let Some(region) = regions.last_mut() {
                region.push((pc, length, rule));
            }
        }
        regions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::Aim;
    use crate::layout::{cfa, fp};
    use crate::{Limits, collect, finish};

    /// glibc has both code and unwind data: what is inferred from the one must be what the other says.
    #[test]
    fn inferred_rows_agree_with_real_unwind_data() {
        let directories = ["/lib/x86_64-linux-gnu/", "/usr/lib64/", "/lib64/", "/usr/lib/"];
        let mut wrong = Vec::new();
        let (mut compared, mut told) = (0usize, 0usize);
        for name in ["libc.so.6", "libm.so.6", "libcrypto.so.3"] {
            let Some(bytes) = directories.iter().find_map(|d| std::fs::read(format!("{d}{name}")).ok()) else {
                eprintln!("SKIPPED: {name} is not on this machine");
                continue;
            };
            let elf = Elf::parse(&bytes).expect("ELF");
            let limits = Limits::default();
            let table = finish(collect(&elf, &limits, Aim::Rows).expect("functions"), &limits).expect("table");
            let mut flow = Flow::new(&elf, elf.code().map(|s| (s.address, s.end())).collect());
            flow.begin_at_symbols();
            for (pc, _, rule) in flow.regions().concat() {
                let real = table.lookup(pc);
                told += 1;
                if !matches!((real.cfa, rule.cfa), (cfa::SP, cfa::SP) | (cfa::FP, cfa::FP)) {
                    continue;
                }
                compared += 1;
                // A slot is as good as the register until rsp has gone above it.
                let same_fp = real.fp == rule.fp && real.fp_offset == rule.fp_offset
                    || rule.fp == fp::UNKNOWN
                    || rule.fp == fp::SAME && real.fp == fp::CFA && -real.fp_offset > rule.cfa_offset;
                if real.cfa_offset != rule.cfa_offset || !same_fp {
                    wrong.push((pc, real, rule));
                }
            }
        }
        eprintln!("{told} instructions told, {compared} compared, {} differ", wrong.len());
        // Two functions of glibc's own assembly (its __mpn_addmul_1 and __mpn_submul_1) push
        // without telling their unwind data: there the code is right and the oracle is not.
        wrong.retain(|(_, real, _)| *real != Rule::of(cfa::SP, 8));
        assert!(compared > 100_000, "{compared}");
        assert!(wrong.is_empty(), "{} differ: {:x?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    }
}
