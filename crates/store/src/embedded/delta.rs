//! What a record of the log adds to the dictionaries of its generation. Ids count
//! on from where the record before ended, so that reading a log back is appending.

use std::sync::Arc;

use everflame_profile::{ContentId, Frame, FrameKind, Labels, Line, Mapping, SampleType, Str};

use super::{
    bytes::{Corrupt, Reader, Writer},
    dictionary::{Interner, Mark, Series},
    frames::{NONE, hash_frames},
};
use crate::query::TrieNode;

/// A frame by indexes.
#[derive(Debug, Clone, PartialEq)]
struct NewFrame {
    kind: u32,
    /// Or [`NONE`].
    mapping: u32,
    address: u64,
    lines: Vec<Line>,
}

/// New entries of each list, in the order of their ids.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Delta {
    threads: Vec<Str>,
    sets: Vec<Labels>,
    series: Vec<Series>,
    kinds: Vec<Str>,
    mappings: Vec<Arc<Mapping>>,
    frames: Vec<NewFrame>,
    nodes: Vec<TrieNode>,
}

/// Writes what has come to the dictionaries since `mark`.
pub(crate) fn write(out: &mut Writer, all: &Interner, mark: &Mark) {
    let (names, stacks) = (&all.names, &all.stacks);
    out.items(names.threads.since(mark.threads), |out, name| out.text(name));
    out.items(names.sets.since(mark.sets), |out, set| write_labels(out, set));
    out.items(names.series.since(mark.series), |out, series| {
        out.text(&series.sample_type.name);
        out.text(&series.sample_type.unit);
        write_labels(out, &series.labels);
    });
    out.items(stacks.frames.kinds.since(mark.kinds), |out, kind| out.text(kind));
    out.items(stacks.frames.mappings.since(mark.mappings), |out, mapping| {
        out.text(&mapping.name);
        out.text(&mapping.build_id);
        out.list(mapping.content_id.as_slice(), |out, id| out.raw(&id.0.to_le_bytes()));
    });
    out.items(stacks.frames.since(mark.frames), |out, frame| {
        out.u64(u64::from(frame.kind));
        out.index(frame.mapping);
        out.u64(frame.address);
        out.list(stacks.frames.lines(frame), |out, line| {
            out.text(&line.function);
            out.text(&line.file);
            out.u64(u64::from(line.line));
        });
    });
    out.items(stacks.nodes.since(mark.nodes), |out, node| {
        out.index(node.parent);
        out.u64(u64::from(node.frame));
    });
}

fn write_labels(out: &mut Writer, labels: &Labels) {
    out.items(labels.iter(), |out, (name, value)| {
        out.text(name);
        out.text(value);
    });
}

fn read_labels(input: &mut Reader<'_>) -> Result<Labels, Corrupt> {
    Ok(Labels::new(input.list(|input| Ok((input.text()?, input.text()?)))?))
}

impl Delta {
    /// Reads what [`write`] wrote; moves `mark` to its end. Every index in it is valid
    /// for dictionaries that were at `mark`.
    pub fn read(input: &mut Reader<'_>, mark: &mut Mark) -> Result<Self, Corrupt> {
        let threads = input.list(|input| input.text())?;
        let sets = input.list(read_labels)?;
        let series = input.list(|input| {
            let sample_type = SampleType { name: input.text()?, unit: input.text()? };
            Ok(Series { sample_type, labels: read_labels(input)? })
        })?;
        let kinds = input.list(|input| input.text())?;
        let mappings = input.list(|input| {
            let (name, build_id) = (input.text()?, input.text()?);
            let ids = input.list(|input| Ok(ContentId(u128::from_le_bytes(input.array()?))))?;
            Ok(Arc::new(Mapping { name, build_id, content_id: ids.first().copied() }))
        })?;
        grow(&mut mark.threads, threads.len())?;
        grow(&mut mark.sets, sets.len())?;
        grow(&mut mark.series, series.len())?;
        grow(&mut mark.kinds, kinds.len())?;
        grow(&mut mark.mappings, mappings.len())?;
        let frames = input.list(|input| {
            let kind = input.below(mark.kinds)?;
            let mapping = input.index(mark.mappings)?;
            let address = input.u64()?;
            let line =
                |input: &mut Reader<'_>| Ok(Line { function: input.text()?, file: input.text()?, line: input.u32()? });
            Ok(NewFrame { kind, mapping, address, lines: input.list(line)? })
        })?;
        grow(&mut mark.frames, frames.len())?;
        let nodes = input.list(|input| {
            // A parent stands before its children.
            let node = TrieNode { parent: input.index(mark.nodes)?, frame: input.below(mark.frames)? };
            grow(&mut mark.nodes, 1)?;
            Ok(node)
        })?;
        Ok(Self { threads, sets, series, kinds, mappings, frames, nodes })
    }

    /// Adds the entries to dictionaries that are where the record before ended.
    pub fn apply(self, all: &mut Interner) {
        for name in self.threads {
            all.add_thread(name);
        }
        for set in self.sets {
            all.add_set(set);
        }
        for series in self.series {
            all.add_series(series);
        }
        for kind in self.kinds {
            all.add_kind(kind);
        }
        for mapping in self.mappings {
            all.add_mapping(mapping);
        }
        let known = &all.stacks.frames;
        let whole = |frame: &mut NewFrame| Frame {
            kind: FrameKind(known.kinds.get(frame.kind).cloned().expect("checked when read")),
            mapping: known.mappings.get(frame.mapping).cloned(),
            address: frame.address,
            lines: std::mem::take(&mut frame.lines),
        };
        let mut rows = self.frames;
        let frames: Vec<Frame> = rows.iter_mut().map(whole).collect();
        for ((row, frame), hash) in rows.iter().zip(&frames).zip(hash_frames(&frames)) {
            all.add_frame(hash, row.address, row.kind, row.mapping, &frame.lines);
        }
        for node in self.nodes {
            all.add_node(node);
        }
    }
}

/// Moves a mark on; no list is longer than its ids can say.
fn grow(mark: &mut u32, more: usize) -> Result<(), Corrupt> {
    let grown = u32::try_from(more).ok().and_then(|more| mark.checked_add(more));
    *mark = grown.filter(|grown| *grown < NONE).ok_or(Corrupt("too many entries"))?;
    Ok(())
}
