//! Dictionaries: every series, label set, thread name, frame and stack once. The
//! head, a block being read and a merge share these types, each with an id space of
//! its own.

use std::sync::Arc;

use everflame_profile::{Batch, Frame, Labels, Line, Mapping, SampleType, Stack, Str};
use rustc_hash::FxHashMap;

use super::{
    chunked::Chunked,
    frames::{Frames, Hashes, NONE},
};
use crate::query::TrieNode;

/// The label that stands for all series beyond the limit of their number.
pub(crate) const OVERFLOW_LABEL: &str = "everflame.overflow";

/// What samples are of (type) and from (resource, without the pid, which is a column).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Series {
    pub sample_type: SampleType,
    pub labels: Labels,
}

impl Series {
    /// The order of rows in blocks: neighbours are what queries ask for together.
    pub fn sort_key(&self) -> ([&str; 5], &Labels, &SampleType) {
        let label = |name| self.labels.get(name).map_or("", |value| value.as_ref());
        let key = [
            label("k8s.namespace.name"),
            label("service.name"),
            label("k8s.pod.name"),
            self.sample_type.name.as_ref(),
            label("process.executable.name"),
        ];
        (key, &self.labels, &self.sample_type)
    }
}

/// Who and what: all that matchers and groups need.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    /// Thread names; the first is empty.
    pub threads: Chunked<Str>,
    /// Labels of samples; the first is empty.
    pub sets: Chunked<Arc<Labels>>,
    pub series: Chunked<Arc<Series>>,
}

/// The stack trie and its frames.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stacks {
    pub frames: Frames,
    pub nodes: Chunked<TrieNode>,
}

/// How long each list of an [`Interner`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub threads: u32,
    pub sets: u32,
    pub series: u32,
    pub kinds: u32,
    pub mappings: u32,
    pub frames: u32,
    pub nodes: u32,
}

impl Mark {
    /// Of a new one: the empty thread name and the empty set are always there.
    pub const NEW: Self = Self { threads: 1, sets: 1, series: 0, kinds: 0, mappings: 0, frames: 0, nodes: 0 };
}

/// Dictionaries that grow, with the look-ups for it. The lists are read through
/// clones of `names` and `stacks`.
#[derive(Debug)]
pub(crate) struct Interner {
    pub names: Names,
    pub stacks: Stacks,
    threads: FxHashMap<Str, u32>,
    sets: FxHashMap<Arc<Labels>, u32>,
    series: FxHashMap<Arc<Series>, u32>,
    frames: FxHashMap<u128, u32>,
    kinds: FxHashMap<Str, u32>,
    mappings: FxHashMap<Arc<Mapping>, u32>,
    nodes: FxHashMap<(u32, u32), u32>,
    /// Hash over a whole stack's frames, so that a known stack is one look-up.
    leaves: FxHashMap<u128, u32>,
    /// Bytes of strings and frames, roughly.
    pub text_bytes: usize,
}

impl Interner {
    pub fn new() -> Self {
        let mut interner = Self {
            names: Names::default(),
            stacks: Stacks::default(),
            threads: FxHashMap::default(),
            sets: FxHashMap::default(),
            series: FxHashMap::default(),
            frames: FxHashMap::default(),
            kinds: FxHashMap::default(),
            mappings: FxHashMap::default(),
            nodes: FxHashMap::default(),
            leaves: FxHashMap::default(),
            text_bytes: 0,
        };
        interner.thread(&Str::from(""));
        interner.set(&Labels::default());
        interner
    }

    pub fn thread(&mut self, name: &Str) -> u32 {
        if let Some(&id) = self.threads.get(name) {
            return id;
        }
        self.add_thread(name.clone())
    }

    pub fn set(&mut self, labels: &Labels) -> u32 {
        if let Some(&id) = self.sets.get(labels) {
            return id;
        }
        self.add_set(labels.clone())
    }

    /// The id of a series, or `None` where it is new and there are `limit` already.
    pub fn series(&mut self, series: Series, limit: usize) -> Option<u32> {
        if let Some(&id) = self.series.get(&series) {
            return Some(id);
        }
        (self.names.series.len() < limit).then(|| self.add_series(series))
    }

    /// The id of the series that stands for those beyond the limit.
    pub fn overflow_series(&mut self, sample_type: &SampleType) -> u32 {
        let labels = Labels::new(vec![(Str::from(OVERFLOW_LABEL), Str::from("true"))]);
        self.series(Series { sample_type: sample_type.clone(), labels }, usize::MAX).expect("there is no limit here")
    }

    /// The id of the frame with this hash.
    pub fn frame(&mut self, hash: u128, frame: &Frame) -> u32 {
        if let Some(&id) = self.frames.get(&hash) {
            return id;
        }
        let kind = match self.kinds.get(&frame.kind.0) {
            Some(&id) => id,
            None => self.add_kind(frame.kind.0.clone()),
        };
        let mapping = frame.mapping.as_ref().map_or(NONE, |mapping| match self.mappings.get(mapping) {
            Some(&id) => id,
            None => self.add_mapping(mapping.clone()),
        });
        self.add_frame(hash, frame.address, kind, mapping, &frame.lines)
    }

    pub fn node(&mut self, node: TrieNode) -> u32 {
        *self.nodes.entry((node.parent, node.frame)).or_insert_with(|| self.stacks.nodes.push(node))
    }

    /// Leaf nodes of a batch's stacks; `u32::MAX` for the empty one.
    pub fn leaves(&mut self, batch: &Batch, hashes: &Hashes, wanted: &[bool]) -> Vec<u32> {
        let leaf = |((stack, &hash), &wanted): ((&Stack, &u128), &bool)| {
            if !wanted || stack.0.is_empty() {
                return u32::MAX;
            }
            if let Some(&leaf) = self.leaves.get(&hash) {
                return leaf;
            }
            let mut parent = u32::MAX;
            for &frame in stack.0.iter().rev() {
                let at = frame as usize;
                let frame = self.frame(hashes.frames[at], &batch.frames[at]);
                parent = self.node(TrieNode { parent, frame });
            }
            self.leaves.insert(hash, parent);
            parent
        };
        batch.stacks.iter().zip(&hashes.stacks).zip(wanted).map(leaf).collect()
    }

    pub fn add_thread(&mut self, name: Str) -> u32 {
        self.text_bytes += name.len() + 64;
        let id = self.names.threads.push(name.clone());
        self.threads.insert(name, id);
        id
    }

    pub fn add_set(&mut self, labels: Labels) -> u32 {
        let labels = Arc::new(labels);
        self.text_bytes += text_bytes(&labels);
        let id = self.names.sets.push(labels.clone());
        self.sets.insert(labels, id);
        id
    }

    pub fn add_series(&mut self, series: Series) -> u32 {
        let series = Arc::new(series);
        self.text_bytes += text_bytes(&series.labels);
        let id = self.names.series.push(series.clone());
        self.series.insert(series, id);
        id
    }

    pub fn add_kind(&mut self, kind: Str) -> u32 {
        let id = self.stacks.frames.kinds.push(kind.clone());
        self.kinds.insert(kind, id);
        id
    }

    pub fn add_mapping(&mut self, mapping: Arc<Mapping>) -> u32 {
        let id = self.stacks.frames.mappings.push(mapping.clone());
        self.mappings.insert(mapping, id);
        id
    }

    pub fn add_frame(&mut self, hash: u128, address: u64, kind: u32, mapping: u32, lines: &[Line]) -> u32 {
        self.text_bytes += 96 + lines.iter().map(|line| 64 + line.function.len()).sum::<usize>();
        let id = self.stacks.frames.push(hash, address, kind, mapping, lines);
        self.frames.insert(hash, id);
        id
    }

    pub fn add_node(&mut self, node: TrieNode) -> u32 {
        let id = self.stacks.nodes.push(node);
        self.nodes.insert((node.parent, node.frame), id);
        id
    }

    /// Where the lists end.
    pub fn mark(&self) -> Mark {
        Mark {
            threads: self.names.threads.len() as u32,
            sets: self.names.sets.len() as u32,
            series: self.names.series.len() as u32,
            kinds: self.stacks.frames.kinds.len() as u32,
            mappings: self.stacks.frames.mappings.len() as u32,
            frames: self.stacks.frames.len() as u32,
            nodes: self.stacks.nodes.len() as u32,
        }
    }

    /// Bytes of memory, roughly.
    pub fn bytes(&self) -> usize {
        self.text_bytes + self.stacks.nodes.len() * 32 + self.leaves.len() * 48
    }
}

fn text_bytes(labels: &Labels) -> usize {
    128 + labels.iter().map(|(name, value)| name.len() + value.len() + 64).sum::<usize>()
}
