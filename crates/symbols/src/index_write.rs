//! Writes a symbol index from functions in the order of their addresses.

use everflame_profile::ContentId;
use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    Error, IndexLimits,
    index::{CHECKED_FROM, HEADER_SIZE, HOLE, MAGIC, PAGE_BITS, Sections, VERSION},
};

/// A function that is to be written; `start < end`, and the next one starts at or
/// after `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    pub start: u64,
    pub end: u64,
    pub name: Option<&'a str>,
}

/// What stands in the header.
#[derive(Debug)]
pub(crate) struct Identity<'a> {
    pub content_id: ContentId,
    pub build_id: &'a str,
    pub name: &'a str,
}

/// Names, each once, in the blob of the index.
#[derive(Debug, Default)]
struct Blob<'a> {
    bytes: Vec<u8>,
    offsets: FxHashMap<&'a str, u32>,
}

impl<'a> Blob<'a> {
    /// Offset of the name, or `None` where a limit says no.
    fn intern(&mut self, name: &'a str, limits: &IndexLimits) -> Option<u32> {
        if let Some(&offset) = self.offsets.get(name) {
            return Some(offset);
        }
        let length = u16::try_from(name.len()).ok().filter(|&length| usize::from(length) <= limits.longest_name)?;
        if self.bytes.len() + 2 + name.len() > limits.name_bytes {
            return None;
        }
        let offset = u32::try_from(self.bytes.len()).ok()?;
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.offsets.insert(name, offset);
        Some(offset)
    }

    fn append(&mut self, text: &str) -> (u32, u32) {
        let offset = self.bytes.len() as u32;
        self.bytes.extend_from_slice(text.as_bytes());
        (offset, text.len() as u32)
    }
}

/// Writes the index. Functions that lie more than 4 GiB above the first are refused:
/// the format cannot say where they are, and no real file has them.
pub(crate) fn write(
    identity: &Identity<'_>,
    pieces: &[Piece<'_>],
    refused: u32,
    limits: &IndexLimits,
) -> Result<Vec<u8>, Error> {
    if pieces.len() > limits.functions {
        return Err(Error::TooManyFunctions { found: pieces.len(), limit: limits.functions });
    }
    let base = pieces.first().map_or(0, |p| p.start) >> PAGE_BITS << PAGE_BITS;
    let top = base.saturating_add(u64::from(u32::MAX));
    let reached = pieces.partition_point(|piece| piece.start < top);
    let (pieces, beyond) = pieces.split_at(reached);
    let mut refused = refused.saturating_add(beyond.len() as u32);
    let mut blob = Blob::default();
    let (mut directory, mut starts, mut pads) = (vec![0u32], Vec::new(), Vec::new());
    let (mut bits, mut ranks, mut names) = (Vec::<u64>::new(), Vec::<u32>::new(), Vec::<u32>::new());
    let mut functions = 0;
    let mut add = |start: u64, pad: u8, name: Option<u32>| {
        let entry = starts.len();
        let page = ((start - base) >> PAGE_BITS) as usize;
        while directory.len() <= page {
            directory.push(entry as u32);
        }
        if entry % 64 == 0 {
            bits.push(0);
            ranks.push(names.len() as u32);
        }
        if let (Some(offset), Some(word)) = (name, bits.last_mut()) {
            *word |= 1 << (entry % 64);
            names.push(offset);
        }
        starts.push((start - base) as u16);
        pads.push(pad);
    };
    for (piece, next) in pieces.iter().zip(pieces.iter().skip(1).map(Some).chain([None])) {
        let name = piece.name.and_then(|name| blob.intern(name, limits));
        refused += u32::from(piece.name.is_some() && name.is_none());
        functions += 1;
        match next.map(|next| next.start.saturating_sub(piece.end)) {
            Some(gap) if gap < u64::from(HOLE) => add(piece.start, gap as u8, name),
            _ => {
                add(piece.start, 0, name);
                add(piece.end.min(top), HOLE, None);
            }
        }
    }
    let pages = if starts.is_empty() { 0 } else { directory.len() };
    directory.resize(pages, 0);
    directory.push(starts.len() as u32);

    let build_id = blob.append(identity.build_id);
    let name = blob.append(identity.name);
    let size = Sections::place(pages, starts.len(), names.len(), blob.bytes.len()).map_or(usize::MAX, |at| at.end);
    if size > limits.index_bytes {
        return Err(Error::IndexTooLarge { found: size, limit: limits.index_bytes });
    }

    let mut out = Vec::with_capacity(size);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(HEADER_SIZE as u32).to_le_bytes());
    out.extend_from_slice(&0u64.to_le_bytes());
    out.extend_from_slice(&(size as u64).to_le_bytes());
    out.extend_from_slice(&identity.content_id.0.to_le_bytes());
    out.extend_from_slice(&base.to_le_bytes());
    let counts = [starts.len(), functions, names.len(), pages, blob.bytes.len()].map(|count| count as u32);
    let strings = [build_id.0, build_id.1, name.0, name.1, refused];
    for field in counts.into_iter().chain(strings) {
        out.extend_from_slice(&field.to_le_bytes());
    }
    out.resize(HEADER_SIZE, 0);
    section(&mut out, directory.iter().flat_map(|v| v.to_le_bytes()));
    section(&mut out, starts.iter().flat_map(|v: &u16| v.to_le_bytes()));
    section(&mut out, pads.iter().copied());
    section(&mut out, bits.iter().flat_map(|v| v.to_le_bytes()));
    section(&mut out, ranks.iter().flat_map(|v| v.to_le_bytes()));
    section(&mut out, names.iter().flat_map(|v| v.to_le_bytes()));
    section(&mut out, blob.bytes.iter().copied());
    let checksum = xxh3_64(out.get(CHECKED_FROM..).unwrap_or_default());
    if let Some(field) = out.get_mut(16..24) {
        field.copy_from_slice(&checksum.to_le_bytes());
    }
    Ok(out)
}

fn section(out: &mut Vec<u8>, bytes: impl Iterator<Item = u8>) {
    out.extend(bytes);
    out.resize(out.len().next_multiple_of(8), 0);
}
