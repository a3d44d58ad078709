//! Dictionaries: every series, label set, thread name, frame and stack once. The
//! head, a block being read and a merge share these types, each with an id space of
//! its own.

use std::sync::Arc;

use everflame_profile::{Batch, Frame, Labels, Mapping, SampleType, Stack, Str};
use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::xxh3_128;

use super::{
    chunked::Chunked,
    frames::{Frames, NONE, hash_frames},
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
        let id = self.names.threads.push(name.clone());
        self.threads.insert(name.clone(), id);
        self.text_bytes += name.len() + 64;
        id
    }

    pub fn set(&mut self, labels: &Labels) -> u32 {
        if let Some(&id) = self.sets.get(labels) {
            return id;
        }
        let labels = Arc::new(labels.clone());
        self.text_bytes += text_bytes(&labels);
        let id = self.names.sets.push(labels.clone());
        self.sets.insert(labels, id);
        id
    }

    /// The id of a series, or `None` where it is new and there are `limit` already.
    pub fn series(&mut self, series: Series, limit: usize) -> Option<u32> {
        if let Some(&id) = self.series.get(&series) {
            return Some(id);
        }
        if self.names.series.len() >= limit {
            return None;
        }
        let series = Arc::new(series);
        self.text_bytes += text_bytes(&series.labels);
        let id = self.names.series.push(series.clone());
        self.series.insert(series, id);
        Some(id)
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
        let frames = &mut self.stacks.frames;
        let kind = *self.kinds.entry(frame.kind.0.clone()).or_insert_with_key(|kind| frames.kinds.push(kind.clone()));
        let mapping = frame.mapping.as_ref().map_or(NONE, |mapping| {
            let push = |mapping: &Arc<Mapping>| frames.mappings.push(mapping.clone());
            *self.mappings.entry(mapping.clone()).or_insert_with_key(push)
        });
        let id = frames.push(hash, frame.address, kind, mapping, &frame.lines);
        self.frames.insert(hash, id);
        self.text_bytes += 96 + frame.lines.iter().map(|line| 64 + line.function.len()).sum::<usize>();
        id
    }

    pub fn node(&mut self, node: TrieNode) -> u32 {
        *self.nodes.entry((node.parent, node.frame)).or_insert_with(|| self.stacks.nodes.push(node))
    }

    /// Leaf nodes of a batch's stacks; `u32::MAX` for the empty one.
    pub fn leaves(&mut self, batch: &Batch, wanted: &[bool]) -> Vec<u32> {
        let hashes = hash_frames(&batch.frames);
        let mut bytes = Vec::new();
        let leaf = |(stack, &wanted): (&Stack, &bool)| {
            if !wanted || stack.0.is_empty() {
                return u32::MAX;
            }
            bytes.clear();
            for &frame in &stack.0 {
                bytes.extend_from_slice(&hashes[frame as usize].to_le_bytes());
            }
            let stack_hash = xxh3_128(&bytes);
            if let Some(&leaf) = self.leaves.get(&stack_hash) {
                return leaf;
            }
            let mut parent = u32::MAX;
            for &frame in stack.0.iter().rev() {
                let at = frame as usize;
                let frame = self.frame(hashes[at], &batch.frames[at]);
                parent = self.node(TrieNode { parent, frame });
            }
            self.leaves.insert(stack_hash, parent);
            parent
        };
        batch.stacks.iter().zip(wanted).map(leaf).collect()
    }

    /// Bytes of memory, roughly.
    pub fn bytes(&self) -> usize {
        self.text_bytes + self.stacks.nodes.len() * 32 + self.leaves.len() * 48
    }
}

fn text_bytes(labels: &Labels) -> usize {
    128 + labels.iter().map(|(name, value)| name.len() + value.len() + 64).sum::<usize>()
}
