//! Frames, once each and small: 40 bytes for one without names, since the stacks of
//! a fleet have many.

use std::sync::Arc;

use everflame_profile::{Batch, Frame, FrameKind, Line, Mapping, Stack, Str};
use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::xxh3_128;

use super::chunked::Chunked;

/// Where there is no mapping, or there are no lines.
pub(crate) const NONE: u32 = u32::MAX;

/// A frame by indexes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameRow {
    pub address: u64,
    pub kind: u32,
    /// Or [`NONE`].
    pub mapping: u32,
    /// Or [`NONE`].
    pub lines: u32,
}

/// Frames and what they refer to. Cloning takes a snapshot.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frames {
    rows: Chunked<FrameRow>,
    /// 128 bits over all of a frame, by which it is known in any id space.
    hashes: Chunked<u128>,
    pub kinds: Chunked<Str>,
    pub mappings: Chunked<Arc<Mapping>>,
    lines: Chunked<Arc<[Line]>>,
}

impl Frames {
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Adds a frame; kind and mapping must be in the lists.
    pub fn push(&mut self, hash: u128, address: u64, kind: u32, mapping: u32, lines: &[Line]) -> u32 {
        let lines = if lines.is_empty() { NONE } else { self.lines.push(lines.into()) };
        self.hashes.push(hash);
        self.rows.push(FrameRow { address, kind, mapping, lines })
    }

    pub fn row(&self, frame: u32) -> Option<&FrameRow> {
        self.rows.get(frame)
    }

    /// The frames from an index on.
    pub fn since(&self, frame: u32) -> impl ExactSizeIterator<Item = &FrameRow> {
        self.rows.since(frame)
    }

    pub fn hash(&self, frame: u32) -> Option<u128> {
        self.hashes.get(frame).copied()
    }

    pub fn lines(&self, row: &FrameRow) -> &[Line] {
        self.lines.get(row.lines).map_or(&[], |lines| lines)
    }

    /// The frame itself.
    pub fn get(&self, frame: u32) -> Option<Frame> {
        let row = self.rows.get(frame)?;
        Some(Frame {
            kind: FrameKind(self.kinds.get(row.kind)?.clone()),
            mapping: self.mappings.get(row.mapping).cloned(),
            address: row.address,
            lines: self.lines(row).to_vec(),
        })
    }
}

/// By what the frames and stacks of a batch are known in any id space.
#[derive(Debug, Default)]
pub(crate) struct Hashes {
    pub frames: Vec<u128>,
    /// Over the frames of a whole stack, so that a known one is one look-up.
    pub stacks: Vec<u128>,
}

impl Hashes {
    /// All indexes of the batch must be valid.
    pub fn of(batch: &Batch) -> Self {
        let frames = hash_frames(&batch.frames);
        let mut bytes = Vec::new();
        let hash = |stack: &Stack| {
            bytes.clear();
            for &frame in &stack.0 {
                bytes.extend_from_slice(&frames[frame as usize].to_le_bytes());
            }
            xxh3_128(&bytes)
        };
        let stacks = batch.stacks.iter().map(hash).collect();
        Self { frames, stacks }
    }
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
        hash_frame(&frame.kind.0, mapping, frame.address, &frame.lines, &mut bytes)
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
pub(crate) fn hash_frame(kind: &str, mapping: Option<u128>, address: u64, lines: &[Line], bytes: &mut Vec<u8>) -> u128 {
    bytes.clear();
    text(bytes, kind);
    bytes.push(u8::from(mapping.is_some()));
    bytes.extend_from_slice(&mapping.unwrap_or(0).to_le_bytes());
    bytes.extend_from_slice(&address.to_le_bytes());
    for line in lines {
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
