//! Dictionaries: every series, label set, thread name, frame and stack once. The
//! head, a block being read and a merge share these types, each with an id space of
//! its own.

use std::sync::Arc;

use everflame_profile::{Batch, Frame, Labels, Mapping, SampleType, Stack, Str};
use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::xxh3_128;

use super::chunked::Chunked;
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

/// A frame and 128 bits over all of it, by which it is known in any id space.
#[derive(Debug, Clone)]
pub(crate) struct HashedFrame {
    pub hash: u128,
    pub frame: Arc<Frame>,
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
    pub frames: Chunked<HashedFrame>,
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

    pub fn frame(&mut self, hash: u128, frame: impl FnOnce() -> Arc<Frame>) -> u32 {
        *self.frames.entry(hash).or_insert_with(|| {
            let frame = frame();
            self.text_bytes += 200 + frame.lines.iter().map(|line| 40 + line.function.len()).sum::<usize>();
            self.stacks.frames.push(HashedFrame { hash, frame })
        })
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
                let frame = self.frame(hashes[at], || Arc::new(batch.frames[at].clone()));
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

/// The hash of each frame.
pub(crate) fn hash_frames(frames: &[Frame]) -> Vec<u128> {
    let mut mappings: FxHashMap<usize, u128> = FxHashMap::default();
    let mut bytes = Vec::new();
    let hash = |frame: &Frame| {
        let mapping = frame
            .mapping
            .as_ref()
            .map(|mapping| *mappings.entry(Arc::as_ptr(mapping).addr()).or_insert_with(|| hash_mapping(mapping)));
        hash_frame(frame, mapping, &mut bytes)
    };
    frames.iter().map(hash).collect()
}

/// The hash of a mapping, for [`hash_frame`].
pub(crate) fn hash_mapping(mapping: &Mapping) -> u128 {
    let mut bytes = Vec::new();
    text(&mut bytes, &mapping.name);
    text(&mut bytes, &mapping.build_id);
    if let Some(id) = mapping.content_id {
        bytes.extend_from_slice(&id.0.to_le_bytes());
    }
    xxh3_128(&bytes)
}

/// The hash of a frame whose mapping has the hash `mapping`; `bytes` is room to work in.
pub(crate) fn hash_frame(frame: &Frame, mapping: Option<u128>, bytes: &mut Vec<u8>) -> u128 {
    bytes.clear();
    text(bytes, frame.kind.as_str());
    bytes.push(u8::from(mapping.is_some()));
    bytes.extend_from_slice(&mapping.unwrap_or(0).to_le_bytes());
    bytes.extend_from_slice(&frame.address.to_le_bytes());
    for line in &frame.lines {
        text(bytes, &line.function);
        text(bytes, &line.file);
        bytes.extend_from_slice(&line.line.to_le_bytes());
    }
    xxh3_128(bytes)
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}
