//! Names for the addresses of one request. An executable is looked for once and a
//! function demangled once, however many frames are in it.

use std::{fmt::Write as _, sync::Arc};

use everflame_profile::{Mapping, Str};
use rustc_hash::FxHashMap;

use super::{Open, Symbols};

/// A function at an address.
#[derive(Debug, Clone)]
pub struct Symbol {
    /// As it is to be shown.
    pub name: Str,
    /// Source file, empty where unknown.
    pub file: Str,
    /// Line in it, 0 where unknown.
    pub line: u32,
}

/// An executable with the number that it has within a request.
type Numbered = (u32, Arc<Open>);

/// Names addresses by the indexes that are there now.
#[derive(Debug)]
pub struct Resolver<'a> {
    symbols: &'a Symbols,
    /// By pointer: the frames of an executable share their mapping. The pointers stay
    /// taken, since the mapping is kept beside the index.
    executables: FxHashMap<usize, (Arc<Mapping>, Option<Numbered>)>,
    /// Names by (number of the executable, start of the function).
    functions: FxHashMap<(u32, u64), Str>,
    none: Str,
}

impl<'a> Resolver<'a> {
    /// A resolver over all indexes.
    pub fn new(symbols: &'a Symbols) -> Self {
        Self { symbols, executables: FxHashMap::default(), functions: FxHashMap::default(), none: Arc::from("") }
    }

    /// Adds the functions at an address to `out`, innermost first; none if nothing is
    /// known of the executable or the address is in no function.
    pub fn resolve(&mut self, mapping: &Arc<Mapping>, address: u64, out: &mut Vec<Symbol>) {
        let known = self.executables.len() as u32;
        let symbols = self.symbols;
        let (_, open) = (self.executables.entry(Arc::as_ptr(mapping) as usize))
            .or_insert_with(|| (mapping.clone(), find(symbols, mapping).map(|open| (known, open))));
        let Some((number, open)) = open else { return };
        let Some(function) = open.index.lookup(address) else { return };
        let name = self.functions.entry((*number, function.start)).or_insert_with(|| match function.name {
            Some(name) => Str::from(everflame_symbols::demangle(name).as_ref()),
            None => {
                let mut name = String::with_capacity(mapping.name.len() + 20);
                name.push_str(&mapping.name);
                // Writing to a string cannot fail.
                let _ = write!(name, "+{:#x}", function.start);
                Str::from(name)
            }
        });
        out.push(Symbol { name: name.clone(), file: self.none.clone(), line: 0 });
    }
}

/// By content where the sender says it, and by build id where an operator put something better
/// there, such as the debug file of what runs stripped. A build id is only believed where an
/// operator bound it to a content, since any file can claim any build id.
fn find(symbols: &Symbols, mapping: &Mapping) -> Option<Arc<Open>> {
    let of_content = mapping.content_id.and_then(|id| symbols.find(id));
    let vouched = if mapping.build_id.is_empty() { None } else { symbols.find_build_id(&mapping.build_id) };
    match (of_content, vouched) {
        (Some(content), Some(vouched)) if vouched.executable.named > content.executable.named => Some(vouched),
        (content, vouched) => content.or(vouched),
    }
}
