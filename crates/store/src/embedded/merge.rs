//! Merges blocks that are neighbours in time into one, series by series, so that its
//! memory is bounded by the dictionaries and the largest series.

use std::{io, path::Path, sync::Arc};

use super::{
    block::Block,
    block_writer::{self, Contents},
    dictionary::Interner,
    order::{Order, sort},
    row::Row,
    rows_reader::{Columns, RowReader},
    table::GROUP_ROWS,
};
use crate::query::TrieNode;

/// Blocks up to this long in time are merged by the hour; longer ones (late data) by the day.
const HOUR_MS: i64 = 3_600_000;
/// This many blocks of an hour are merged before the hour is over.
const MANY: usize = 6;
/// An hour is over this long after its end.
const GRACE_MS: i64 = 600_000;

/// Blocks that should become one, if there are any.
pub(crate) fn pick(blocks: &[Arc<Block>], now_ms: i64, most_rows: u64) -> Option<Vec<Arc<Block>>> {
    let span = |block: &Block| {
        let meta = &block.meta;
        let unit = if meta.until_ms.saturating_sub(meta.from_ms) <= 2 * HOUR_MS { HOUR_MS } else { 24 * HOUR_MS };
        let middle = meta.from_ms.midpoint(meta.until_ms);
        (unit, middle.div_euclid(unit))
    };
    let mut sorted: Vec<&Arc<Block>> = blocks.iter().collect();
    sorted.sort_by_key(|block| (span(block), block.meta.rows));
    sorted.chunk_by(|a, b| span(a) == span(b)).find_map(|near| {
        let (unit, index) = near.first().map(|block| span(block))?;
        let over = index.saturating_add(1).saturating_mul(unit).saturating_add(GRACE_MS) <= now_ms;
        let mut rows = 0_u64;
        let fitting = near.iter().take_while(|block| {
            rows = rows.saturating_add(block.meta.rows);
            rows <= most_rows
        });
        let fitting: Vec<Arc<Block>> = fitting.map(|block| (*block).clone()).collect();
        (fitting.len() >= if over { 2 } else { MANY }).then_some(fitting)
    })
}

/// A block's rows in order, in the numbers of the merged block.
struct Stream<'a> {
    reader: RowReader,
    ranges: &'a [std::ops::Range<usize>],
    maps: &'a Maps,
    /// Next series, in the block's own numbers.
    next: usize,
    buffer: Vec<Row>,
    at: usize,
}

/// From a block's numbers to the interner's.
struct Maps {
    series: Vec<u32>,
    threads: Vec<u32>,
    sets: Vec<u32>,
    nodes: Vec<u32>,
}

/// Writes the merged block; the sources stay as they are. Gives up as interrupted
/// once `stop` says so.
pub(crate) fn merge(
    dir: &Path,
    sources: &[Arc<Block>],
    id: String,
    sequence: u64,
    ids_limit: usize,
    stop: &dyn Fn() -> bool,
) -> io::Result<Block> {
    let mut all = Interner::new();
    let mut maps = Vec::new();
    let mut all_names = Vec::new();
    for block in sources {
        go_on(stop)?;
        let (names, _) = block.names()?;
        maps.push(map(block, &names.names, &mut all)?);
        all_names.push(names);
    }
    let mut sources_by_age: Vec<&Arc<Block>> = sources.iter().collect();
    sources_by_age.sort_by_key(|block| block.meta.sequence);
    let mut ids = Vec::new();
    let mut replaces = Vec::new();
    for block in sources_by_age {
        ids.extend(block.ids()?);
        replaces.push(block.meta.id.clone());
        replaces.extend(block.meta.replaces.iter().cloned());
    }
    ids.drain(..ids.len().saturating_sub(ids_limit));
    let contents = Contents {
        sequence,
        id,
        generation: sources.iter().map(|block| block.meta.generation).max().unwrap_or(0),
        replaces,
        ids: &ids,
        names: &all.names,
        stacks: &all.stacks,
    };
    block_writer::write(dir, contents, |order, writer| {
        let mut streams = Vec::new();
        for ((block, maps), names) in sources.iter().zip(&maps).zip(&all_names) {
            check_order(maps, order)?;
            let reader = RowReader::open(block, &names.metadata, None, Columns::ALL)?;
            let ranges = &names.ranges;
            streams.push(Stream { reader, ranges, maps, next: 0, buffer: Vec::new(), at: 0 });
        }
        let mut pending = Vec::with_capacity(GROUP_ROWS);
        for series in 0..order.series.order.len() as u32 {
            for stream in &mut streams {
                stream.take(series, order, &mut pending)?;
            }
            if pending.len() >= GROUP_ROWS {
                sort(&mut pending);
                writer.push(&pending)?;
                pending.clear();
                go_on(stop)?;
            }
        }
        sort(&mut pending);
        writer.push(&pending)
    })
}

fn go_on(stop: &dyn Fn() -> bool) -> io::Result<()> {
    if stop() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
}

fn map(block: &Block, names: &super::dictionary::Names, all: &mut Interner) -> io::Result<Maps> {
    let series = names.series.iter().map(|series| all.series((**series).clone(), usize::MAX).unwrap_or(u32::MAX));
    let series = series.collect();
    let threads = names.threads.iter().map(|name| all.thread(name)).collect();
    let sets = names.sets.iter().map(|set| all.set(set)).collect();
    let (stacks, _) = block.stacks()?;
    let frame = |id| match (stacks.frames.hash(id), stacks.frames.get(id)) {
        (Some(hash), Some(frame)) => all.frame(hash, &frame),
        _ => u32::MAX,
    };
    let frames: Vec<u32> = (0..stacks.frames.len() as u32).map(frame).collect();
    let mut nodes: Vec<u32> = Vec::with_capacity(stacks.nodes.len());
    for node in stacks.nodes.iter() {
        let parent = nodes.get(node.parent as usize).copied().unwrap_or(u32::MAX);
        let frame = frames.get(node.frame as usize).copied().unwrap_or(u32::MAX);
        nodes.push(all.node(TrieNode { parent, frame }));
    }
    Ok(Maps { series, threads, sets, nodes })
}

/// Rows can be merged in one pass only where both are sorted alike.
fn check_order(maps: &Maps, order: &Order) -> io::Result<()> {
    let numbers = maps.series.iter().map(|series| order.series.new.get(*series as usize));
    if numbers.is_sorted() { Ok(()) } else { Err(io::Error::other("the block is sorted in another way")) }
}

impl Stream<'_> {
    /// Moves the rows of a series (in the merged block's numbers) to `rows`.
    fn take(&mut self, series: u32, order: &Order, rows: &mut Vec<Row>) -> io::Result<()> {
        let new = self.maps.series.get(self.next).and_then(|all| order.series.new.get(*all as usize));
        if new != Some(&series) {
            return Ok(());
        }
        let mut wanted = self.ranges.get(self.next).map_or(0, |range| range.len());
        self.next += 1;
        while wanted > 0 {
            if self.at == self.buffer.len() {
                self.buffer.clear();
                self.at = 0;
                if !self.reader.next(&mut self.buffer)? {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "the block has fewer rows than it says"));
                }
            }
            let count = wanted.min(self.buffer.len() - self.at);
            for row in &self.buffer[self.at..self.at + count] {
                let of = |map: &[u32], old: u32| map.get(old as usize).copied().unwrap_or(u32::MAX);
                rows.push(order.apply(&Row {
                    series: of(&self.maps.series, row.series),
                    thread: of(&self.maps.threads, row.thread),
                    labels: of(&self.maps.sets, row.labels),
                    node: of(&self.maps.nodes, row.node),
                    ..*row
                }));
            }
            self.at += count;
            wanted -= count;
        }
        Ok(())
    }
}
