//! Which function owns which addresses: unwind data says where functions start and
//! end, symbols say what they are called, and neither is believed alone.

use crate::{
    IndexLimits,
    elf::{Elf, ElfSymbol},
    go,
    index_write::Piece,
    plt::Stub,
};

const STT_NOTYPE: u8 = 0;
const STT_FUNC: u8 = 2;
const STT_GNU_IFUNC: u8 = 10;
const STB_GLOBAL: u8 = 1;
const STB_WEAK: u8 = 2;

/// A name for an address. The order of the fields is the order of preference among
/// several names of one address: `clone` (weak) before `__clone` (global), and global
/// before weak where they are decorated alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Symbol<'a> {
    pub address: u64,
    pub rank: Rank,
    underscores: usize,
    weak: bool,
    length: usize,
    pub name: &'a str,
    /// 0 where the symbol does not say.
    pub size: u64,
}

/// Which of several names of one address is the one that people know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// From Go's own table, which has the names that Go prints.
    Go,
    /// Global or weak: what other files may call it by.
    Exported,
    Local,
    /// Without a type (hand-written assembly): counts only where a function is known
    /// to start from elsewhere.
    Untyped,
}

impl<'a> Symbol<'a> {
    pub fn new(address: u64, size: u64, rank: Rank, weak: bool, name: &'a str) -> Self {
        let underscores = name.len() - name.trim_start_matches('_').len();
        Self { address, rank, underscores, weak, length: name.len(), name, size }
    }
}

/// The symbols of a file, one an address, and how many names were refused.
#[derive(Debug, Default)]
pub(crate) struct Symbols<'a> {
    pub sorted: Vec<Symbol<'a>>,
    pub refused: u32,
    /// Function ranges that symbol tables know beyond unwind data (Go).
    pub ranges: Vec<(u64, u64)>,
}

/// Reads `.symtab`, `.dynsym` and Go's function table; `stubs` are of the same file.
pub(crate) fn symbols<'a>(elf: &Elf<'a>, stubs: &'a [Stub], limits: &IndexLimits) -> Symbols<'a> {
    let mut found = Symbols::default();
    // Strings may overlap, so a small file can claim any amount of names: what is
    // read of them is bounded apart from the file's size.
    let mut budget = limits.name_bytes.saturating_mul(2);
    let mut take = |name: Option<&'a [u8]>| -> Option<&'a str> {
        let name = name.filter(|name| !name.is_empty())?;
        budget = budget.checked_sub(name.len())?;
        str::from_utf8(name).ok()
    };
    for table in elf.symbol_tables() {
        for symbol in table.symbols().filter(|symbol| elf.in_code(symbol.value)) {
            let Some(rank) = rank(&symbol) else { continue };
            if found.sorted.len() >= limits.symbols {
                found.refused += 1;
                continue;
            }
            match take(table.string(symbol.name, limits.longest_name)).map(without_version) {
                // Assemblers' own marks, not names.
                Some(name) if name.starts_with(['$', '.']) && rank == Rank::Untyped => {}
                Some(name) => {
                    found.sorted.push(Symbol::new(symbol.value, symbol.size, rank, symbol.bind == STB_WEAK, name))
                }
                None => found.refused += u32::from(symbol.name != 0),
            }
        }
    }
    for function in go::functions(elf) {
        if found.sorted.len() >= limits.symbols || !elf.in_code(function.start) {
            continue;
        }
        found.ranges.push((function.start, function.end));
        match take(function.name(limits.longest_name)) {
            Some(name) => {
                found.sorted.push(Symbol::new(function.start, function.end - function.start, Rank::Go, false, name));
            }
            None => found.refused += 1,
        }
    }
    let named = stubs.iter().filter(|stub| elf.in_code(stub.address));
    found.sorted.extend(named.map(|s| Symbol::new(s.address, s.size, Rank::Local, false, &s.name)));
    found.sorted.sort_unstable();
    found.sorted.dedup_by_key(|symbol| symbol.address);
    found
}

fn rank(symbol: &ElfSymbol) -> Option<Rank> {
    match (symbol.kind, symbol.bind) {
        (STT_FUNC | STT_GNU_IFUNC, STB_GLOBAL | STB_WEAK) => Some(Rank::Exported),
        (STT_FUNC | STT_GNU_IFUNC, _) => Some(Rank::Local),
        (STT_NOTYPE, _) => Some(Rank::Untyped),
        _ => None,
    }
}

/// `memcpy@@GLIBC_2.14` is called `memcpy`.
fn without_version(name: &str) -> &str {
    match name.find('@') {
        Some(at) if at > 0 => name.get(..at).unwrap_or(name),
        _ => name,
    }
}

/// Functions that begin where no symbol stands and none reaches, up to the next that does. Before
/// one of them a symbol that does not say its size ends.
pub(crate) fn nameless(symbols: &[Symbol<'_>], begins: &[u64]) -> Vec<(u64, u64)> {
    let mut rest = symbols;
    let mut reached = 0;
    let mut ranges = Vec::new();
    for (&start, next) in begins.iter().zip(begins.iter().skip(1).map(Some).chain([None])) {
        for symbol in take_before(&mut rest, start) {
            reached = reached.max(symbol.address.saturating_add(symbol.size));
        }
        let symbol = rest.first().map(|symbol| symbol.address);
        if start < reached || symbol == Some(start) {
            continue;
        }
        if let Some(end) = next.copied().into_iter().chain(symbol).min() {
            ranges.push((start, end));
        }
    }
    ranges
}

/// Cuts the executable's code into functions.
///
/// Within a range of unwind data every byte belongs to a function: to the symbol that
/// starts last before it, or, before the first one, to a function without a name.
/// Between ranges only what a symbol claims belongs to it, and no symbol reaches into
/// a range that it does not start in, unless it ends exactly where the range ends: a
/// function may have two runs of unwind data (`clone3`, whose child has no caller).
pub(crate) fn cut<'a>(elf: &Elf<'_>, ranges: Vec<(u64, u64)>, symbols: &[Symbol<'a>]) -> Vec<Piece<'a>> {
    let ranges = tidy(ranges, elf);
    let mut pieces = Vec::with_capacity(ranges.len().max(symbols.len()));
    let mut rest = symbols;
    let mut before: Option<&Symbol<'a>> = None;
    for &(start, end) in &ranges {
        let between = take_before(&mut rest, start);
        gap(&mut pieces, between, start, elf);
        before = between.last().or(before);
        let continued = before.filter(|symbol| symbol.address.checked_add(symbol.size) == Some(end));
        let within = take_before(&mut rest, end);
        range(&mut pieces, within, start, end, continued.map(|symbol| symbol.name));
        before = within.last().or(before);
    }
    gap(&mut pieces, rest, u64::MAX, elf);
    pieces
}

/// Ranges in order, each within the code, none over another.
fn tidy(mut ranges: Vec<(u64, u64)>, elf: &Elf<'_>) -> Vec<(u64, u64)> {
    ranges.retain(|&(start, end)| start < end && elf.in_code(start));
    // Of two that start together the shorter one stands first and cuts the longer.
    ranges.sort_unstable();
    let mut tidy: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match tidy.last_mut() {
            Some(last) if last.0 == start => *last = (start, last.1.min(end)),
            Some(last) => {
                last.1 = last.1.min(start);
                tidy.push((start, end));
            }
            None => tidy.push((start, end)),
        }
    }
    for range in &mut tidy {
        range.1 = range.1.min(elf.code_end(range.0).unwrap_or(range.0));
    }
    tidy
}

fn take_before<'s, 'a>(rest: &mut &'s [Symbol<'a>], address: u64) -> &'s [Symbol<'a>] {
    let (before, after) = rest.split_at(rest.partition_point(|symbol| symbol.address < address));
    *rest = after;
    before
}

/// Pieces of a range of unwind data, with the symbols that lie in it.
fn range<'a>(pieces: &mut Vec<Piece<'a>>, symbols: &[Symbol<'a>], start: u64, end: u64, continued: Option<&'a str>) {
    let named = |symbol: &&Symbol<'a>| symbol.rank != Rank::Untyped || symbol.address == start;
    let symbols: Vec<&Symbol<'a>> = symbols.iter().filter(named).collect();
    let first = symbols.first().map_or(end, |symbol| symbol.address);
    push(pieces, start, first, continued);
    nested(pieces, &symbols, end, true);
}

/// Pieces of the code between two ranges.
fn gap<'a>(pieces: &mut Vec<Piece<'a>>, symbols: &[Symbol<'a>], end: u64, elf: &Elf<'_>) {
    let symbols: Vec<&Symbol<'a>> = symbols.iter().filter(|symbol| symbol.rank != Rank::Untyped).collect();
    let Some(last) = symbols.last() else { return };
    nested(pieces, &symbols, end.min(elf.code_end(last.address).unwrap_or(last.address)), false);
}

/// Symbols one after the other up to `end`. Where one ends inside another that is
/// longer, the longer one goes on after it.
fn nested<'a>(pieces: &mut Vec<Piece<'a>>, symbols: &[&Symbol<'a>], end: u64, to_the_end: bool) {
    let mut outer: Option<(u64, &'a str)> = None;
    for (symbol, next) in symbols.iter().zip(symbols.iter().skip(1).map(Some).chain([None])) {
        let next = next.map_or(end, |next| next.address);
        let own_end = symbol.address.saturating_add(symbol.size);
        let around = outer.filter(|&(outer_end, _)| symbol.size > 0 && own_end < next && own_end < outer_end);
        match around {
            Some((outer_end, name)) => {
                push(pieces, symbol.address, own_end, Some(symbol.name));
                push(pieces, own_end, if to_the_end { next } else { next.min(outer_end) }, Some(name));
            }
            None if symbol.size == 0 || to_the_end => push(pieces, symbol.address, next, Some(symbol.name)),
            None => push(pieces, symbol.address, next.min(own_end), Some(symbol.name)),
        }
        if outer.is_none_or(|(outer_end, _)| own_end > outer_end) {
            outer = Some((own_end, symbol.name));
        }
    }
}

fn push<'a>(pieces: &mut Vec<Piece<'a>>, start: u64, end: u64, name: Option<&'a str>) {
    if start < end {
        pieces.push(Piece { start, end, name });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::ProgramHeader;

    fn code(start: u64, end: u64) -> Elf<'static> {
        let (kind, flags, mem_size) = (crate::elf::PT_LOAD, 5, end - start);
        let header = ProgramHeader { kind, flags, offset: 0, vaddr: start, file_size: mem_size, mem_size };
        Elf {
            data: &[],
            machine: 62,
            entry: 0,
            program_header_bytes: &[],
            program_headers: vec![header],
            sections: vec![],
            section_header_bytes: [&[]; 2],
        }
    }

    fn symbol(address: u64, size: u64, name: &str) -> Symbol<'_> {
        Symbol::new(address, size, Rank::Exported, false, name)
    }

    /// The pieces as `(start, end, name)`, nameless ones as `-`.
    fn cuts(ranges: &[(u64, u64)], symbols: &[Symbol<'static>]) -> Vec<(u64, u64, &'static str)> {
        let pieces = cut(&code(100, 1000), ranges.to_vec(), symbols);
        for pair in pieces.windows(2) {
            assert!(pair[0].start < pair[0].end && pair[0].end <= pair[1].start, "{pieces:?}");
        }
        pieces.iter().map(|p| (p.start, p.end, p.name.unwrap_or("-"))).collect()
    }

    #[test]
    fn a_range_without_a_symbol_stays_nameless() {
        let found = cuts(&[(100, 150), (160, 200), (200, 300)], &[symbol(100, 50, "a"), symbol(200, 0, "c")]);
        assert_eq!(found, [(100, 150, "a"), (160, 200, "-"), (200, 300, "c")]);
    }

    #[test]
    fn a_function_may_have_two_runs_of_unwind_data() {
        let found = cuts(&[(100, 133), (133, 171)], &[symbol(100, 71, "clone3")]);
        assert_eq!(found, [(100, 133, "clone3"), (133, 171, "clone3")]);
    }

    #[test]
    fn no_symbol_swallows_the_functions_after_it() {
        let found = cuts(&[(100, 150), (150, 200)], &[symbol(100, 900, "big")]);
        assert_eq!(found, [(100, 150, "big"), (150, 200, "-")]);
        let found = cuts(&[(300, 400)], &[symbol(200, 0, "a"), symbol(310, 10, "b")]);
        assert_eq!(found, [(200, 300, "a"), (300, 310, "-"), (310, 400, "b")]);
    }

    #[test]
    fn symbols_alone_keep_to_their_sizes() {
        let symbols = [symbol(100, 20, "a"), symbol(150, 0, "b"), symbol(200, 5000, "c"), symbol(300, 10, "d")];
        let found = cuts(&[], &symbols);
        assert_eq!(found, [(100, 120, "a"), (150, 200, "b"), (200, 300, "c"), (300, 310, "d"), (310, 1000, "c")]);
    }

    #[test]
    fn an_inner_symbol_gives_back_what_is_left() {
        let found = cuts(&[(100, 200)], &[symbol(100, 100, "outer"), symbol(120, 10, "inner")]);
        assert_eq!(found, [(100, 120, "outer"), (120, 130, "inner"), (130, 200, "outer")]);
    }

    #[test]
    fn ranges_that_overlap_are_cut() {
        let found = cuts(&[(100, 300), (100, 200), (150, 160), (900, 5000)], &[]);
        assert_eq!(found, [(100, 150, "-"), (150, 160, "-"), (900, 1000, "-")]);
    }

    #[test]
    fn a_label_counts_only_where_a_function_starts() {
        let label = |address, name| Symbol::new(address, 0, Rank::Untyped, false, name);
        let found = cuts(&[(100, 200)], &[label(100, "_start"), label(150, "loop"), label(300, "data")]);
        assert_eq!(found, [(100, 200, "_start")]);
    }

    #[test]
    fn of_several_names_the_one_people_know() {
        let mut names = [
            Symbol::new(1, 0, Rank::Local, false, "a"),
            Symbol::new(1, 0, Rank::Exported, false, "__clone"),
            Symbol::new(1, 0, Rank::Exported, true, "clone"),
            Symbol::new(1, 0, Rank::Untyped, false, "x"),
        ];
        names.sort_unstable();
        assert_eq!(names[0].name, "clone");
    }
}
