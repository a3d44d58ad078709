//! Names on frames, each unique frame once, as integers: what a tree or a table
//! merges are entries, and two frames that read the same are the same entry.

use std::sync::Arc;

use everflame_profile::{Frame, FrameKind, Str};
use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::symbols::{Resolver, Symbol};

/// Kind of a group level.
pub const LABEL: &str = "label";
/// Kind of a node that stands for something that is not there.
pub const MARKER: &str = "marker";
/// Kind of the first node.
pub const ROOT: &str = "root";

/// Strings, each once, in the order of their first use.
#[derive(Debug, Default)]
pub struct Interner {
    strings: Vec<Str>,
    index: FxHashMap<Str, u32>,
}

impl Interner {
    /// The number of a string.
    pub fn intern(&mut self, text: &str) -> u32 {
        match self.index.get(text) {
            Some(id) => *id,
            None => self.add(Arc::from(text)),
        }
    }

    /// The number of a string that is shared already.
    pub fn intern_shared(&mut self, text: &Str) -> u32 {
        match self.index.get(text) {
            Some(id) => *id,
            None => self.add(text.clone()),
        }
    }

    fn add(&mut self, text: Str) -> u32 {
        let id = u32::try_from(self.strings.len()).unwrap_or(u32::MAX);
        self.strings.push(text.clone());
        self.index.insert(text, id);
        id
    }

    /// The number of a string, if it has one.
    pub fn find(&self, text: &str) -> Option<u32> {
        self.index.get(text).copied()
    }

    /// The string of a number.
    pub fn get(&self, id: u32) -> &str {
        self.strings.get(id as usize).map_or("", |s| s.as_ref())
    }

    /// All strings, by number.
    pub fn strings(&self) -> &[Str] {
        &self.strings
    }
}

/// What siblings are unique by. The numbers point into the lists of [`Names`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Into [`Names::kinds`].
    pub kind: u32,
    /// Into [`Names::names`].
    pub name: u32,
    /// Into [`Names::files`].
    pub file: u32,
    /// Into [`Names::mappings`].
    pub mapping: u32,
    /// Line in the file, 0 unless lines are kept apart.
    pub line: u32,
    /// ELF virtual address, 0 unless addresses are kept apart.
    pub address: u64,
}

/// What is kept apart below functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Granularity {
    /// Nothing.
    #[default]
    Function,
    /// Source lines.
    Line,
    /// Instructions.
    Address,
}

/// All entries of an answer and which of them each frame is.
#[derive(Debug, Default)]
pub struct Names {
    granularity: Granularity,
    /// Names of functions, labels and markers.
    pub names: Interner,
    /// Source files.
    pub files: Interner,
    /// Names of mappings.
    pub mappings: Interner,
    /// Kinds.
    pub kinds: Interner,
    entries: Vec<Entry>,
    index: FxHashMap<Entry, u32>,
    /// Entries of each frame, outermost first: ranges of `flat`.
    ranges: Vec<(u32, u32)>,
    flat: Vec<u32>,
}

impl Names {
    /// Names every frame.
    pub fn new(frames: &[Frame], granularity: Granularity, resolver: &mut Resolver) -> Self {
        let mut names = Self { granularity, ..Self::default() };
        // Number 0 of files and mappings is "none".
        names.files.intern("");
        names.mappings.intern("");
        names.ranges.reserve(frames.len());
        names.flat.reserve(frames.len());
        let mut symbols = Vec::new();
        for frame in frames {
            let start = names.flat.len() as u32;
            names.frame(frame, resolver, &mut symbols);
            names.ranges.push((start, names.flat.len() as u32));
        }
        names
    }

    /// Entries of a frame, outermost first; never empty.
    pub fn of_frame(&self, frame: u32) -> &[u32] {
        let (start, end) = self.range(frame);
        self.flat.get(start as usize..end as usize).unwrap_or_default()
    }

    /// Where the entries of a frame stand, for [`Names::flat_entry`].
    pub fn range(&self, frame: u32) -> (u32, u32) {
        self.ranges.get(frame as usize).copied().unwrap_or_default()
    }

    /// One of the entries of a frame.
    pub fn flat_entry(&self, at: u32) -> u32 {
        self.flat[at as usize]
    }

    /// An entry by its number.
    pub fn entry(&self, id: u32) -> Entry {
        self.entries[id as usize]
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of a label, a marker or the root.
    pub fn plain(&mut self, kind: &str, name: &str) -> u32 {
        let entry = Entry {
            kind: self.kinds.intern(kind),
            name: self.names.intern(name),
            file: self.files.intern(""),
            mapping: self.mappings.intern(""),
            line: 0,
            address: 0,
        };
        self.add(entry)
    }

    /// The entry that stands for all of a file, or for `none` where there is none.
    pub fn whole_file(&mut self, file: u32, none: &str) -> u32 {
        let name = match self.files.get(file) {
            "" => self.names.intern(none),
            text => self.names.intern(text),
        };
        let entry = Entry { file, name, ..self.empty() };
        self.add(entry)
    }

    /// The entry that stands for all of a mapping, or for `none` where there is none.
    pub fn whole_mapping(&mut self, mapping: u32, none: &str) -> u32 {
        let name = match self.mappings.get(mapping) {
            "" => self.names.intern(none),
            text => self.names.intern(text),
        };
        let entry = Entry { mapping, name, ..self.empty() };
        self.add(entry)
    }

    fn empty(&mut self) -> Entry {
        Entry { kind: self.kinds.intern(""), name: 0, file: 0, mapping: 0, line: 0, address: 0 }
    }

    /// A number over an entry's text, the same in every answer.
    pub fn stable_hashes(&self) -> Vec<u64> {
        let hash_all = |interner: &Interner| -> Vec<u64> {
            interner.strings().iter().map(|s| xxh3_64_with_seed(s.as_bytes(), 0)).collect()
        };
        let (kinds, names) = (hash_all(&self.kinds), hash_all(&self.names));
        let (files, mappings) = (hash_all(&self.files), hash_all(&self.mappings));
        (self.entries.iter())
            .map(|e| {
                let words = [
                    kinds[e.kind as usize],
                    names[e.name as usize],
                    files[e.file as usize],
                    mappings[e.mapping as usize],
                    u64::from(e.line),
                    e.address,
                ];
                words.into_iter().fold(0, mix)
            })
            .collect()
    }

    fn frame(&mut self, frame: &Frame, resolver: &mut Resolver, symbols: &mut Vec<Symbol>) {
        let kind = match frame.kind.as_str() {
            "unsymbolized" | "" => FrameKind::NATIVE,
            kind => kind,
        };
        let kind = self.kinds.intern(kind);
        let mapping_name = frame.mapping.as_ref().map_or("", |m| m.name.as_ref());
        let mapping = self.mappings.intern(mapping_name);
        let address = if self.granularity == Granularity::Address { frame.address } else { 0 };
        let keep_line = self.granularity == Granularity::Line;
        let push = |names: &mut Self, name: u32, file: u32, line: u32| {
            let line = if keep_line { line } else { 0 };
            let id = names.add(Entry { kind, name, file, mapping, line, address });
            names.flat.push(id);
        };
        if !frame.lines.is_empty() {
            for line in frame.lines.iter().rev() {
                let name = if line.function.is_empty() {
                    self.names.intern(&bare(mapping_name, frame.address))
                } else {
                    self.names.intern_shared(&line.function)
                };
                let file = self.files.intern_shared(&line.file);
                push(self, name, file, line.line);
            }
            return;
        }
        symbols.clear();
        if let Some(mapping) = &frame.mapping {
            resolver.resolve(mapping, frame.address, symbols);
        }
        for symbol in symbols.iter().rev() {
            let name = self.names.intern_shared(&symbol.name);
            let file = self.files.intern_shared(&symbol.file);
            push(self, name, file, symbol.line);
        }
        if symbols.is_empty() {
            let name = self.names.intern(&bare(mapping_name, frame.address));
            push(self, name, 0, 0);
        }
    }

    fn add(&mut self, entry: Entry) -> u32 {
        *self.index.entry(entry).or_insert_with(|| {
            self.entries.push(entry);
            (self.entries.len() - 1) as u32
        })
    }
}

/// How code without a name is called: `MODULE+0xADDR`, or `[anon]` where an address
/// means nothing in another process.
pub fn bare(mapping: &str, address: u64) -> String {
    match mapping {
        "" | "[anon]" => "[anon]".to_owned(),
        mapping => format!("{mapping}+{address:#x}"),
    }
}

/// Folds a word into a hash: one wide multiplication. Part of the ids that the API
/// hands out, so it must not change.
pub fn mix(hash: u64, word: u64) -> u64 {
    let wide = u128::from(hash ^ 0x9e37_79b9_7f4a_7c15) * u128::from(word ^ 0xd1b5_4a32_d192_ed03);
    (wide as u64) ^ ((wide >> 64) as u64)
}
