//! The order of a block: dictionaries are numbered anew so that rows sorted by
//! number are sorted by meaning, and neighbours compress.

use everflame_profile::Labels;

use super::{
    dictionary::{Names, Stacks},
    row::Row,
};

/// New numbers by old ones, and the old ones in the new order.
#[derive(Debug)]
pub(crate) struct Numbering {
    pub new: Vec<u32>,
    pub order: Vec<u32>,
}

impl Numbering {
    fn sorted<K: Ord>(count: usize, key: impl Fn(u32) -> K) -> Self {
        let mut order: Vec<u32> = (0..count as u32).collect();
        order.sort_by_cached_key(|id| key(*id));
        Self::from_order(order, count)
    }

    fn from_order(order: Vec<u32>, count: usize) -> Self {
        let mut new = vec![u32::MAX; count];
        for (number, old) in order.iter().enumerate() {
            new[*old as usize] = number as u32;
        }
        Self { new, order }
    }

    fn of(&self, old: u32) -> u32 {
        self.new.get(old as usize).copied().unwrap_or(u32::MAX)
    }
}

/// The numberings of all dictionaries of a block.
#[derive(Debug)]
pub(crate) struct Order {
    pub series: Numbering,
    pub threads: Numbering,
    pub sets: Numbering,
    pub nodes: Numbering,
    pub frames: Numbering,
}

impl Order {
    /// Series by meaning, thread names and label sets by text, nodes depth first, and
    /// frames as the nodes come upon them.
    pub fn new(names: &Names, stacks: &Stacks) -> Self {
        let mut series: Vec<u32> = (0..names.series.len() as u32).collect();
        let key = |id: &u32| names.series.get(*id).map(|series| series.sort_key());
        series.sort_by(|a, b| key(a).cmp(&key(b)));
        let nodes = depth_first(stacks);
        let mut frame_seen = vec![false; stacks.frames.len()];
        let mut frames = Vec::with_capacity(stacks.frames.len());
        for node in nodes.iter().filter_map(|node| stacks.nodes.get(*node)) {
            if !std::mem::replace(&mut frame_seen[node.frame as usize], true) {
                frames.push(node.frame);
            }
        }
        Self {
            series: Numbering::from_order(series, names.series.len()),
            threads: Numbering::sorted(names.threads.len(), |id| names.threads.get(id).cloned().unwrap_or_default()),
            sets: Numbering::sorted(names.sets.len(), |id| {
                names.sets.get(id).map_or_else(Labels::default, |set| Labels::clone(set))
            }),
            nodes: Numbering::from_order(nodes, stacks.nodes.len()),
            frames: Numbering::from_order(frames, stacks.frames.len()),
        }
    }

    /// A row in the new numbers.
    pub fn apply(&self, row: &Row) -> Row {
        Row {
            series: self.series.of(row.series),
            thread: self.threads.of(row.thread),
            labels: self.sets.of(row.labels),
            node: self.nodes.of(row.node),
            ..*row
        }
    }
}

/// Sorts rows in a block's numbers as they stand in the block.
pub(crate) fn sort(rows: &mut [Row]) {
    rows.sort_unstable_by_key(|row| (row.series, row.thread, row.node, row.time, row.tid, row.cpu));
}

fn depth_first(stacks: &Stacks) -> Vec<u32> {
    let count = stacks.nodes.len();
    let mut first_child = vec![u32::MAX; count];
    let mut next_sibling = vec![u32::MAX; count];
    let mut first_root = u32::MAX;
    // Backwards, so that the lists run forwards.
    let parents: Vec<u32> = stacks.nodes.iter().map(|node| node.parent).collect();
    for (index, parent) in parents.iter().enumerate().rev() {
        let first = match *parent {
            u32::MAX => &mut first_root,
            parent => &mut first_child[parent as usize],
        };
        next_sibling[index] = *first;
        *first = index as u32;
    }
    let mut order = Vec::with_capacity(count);
    let mut open = vec![first_root];
    while let Some(node) = open.pop() {
        if node == u32::MAX {
            continue;
        }
        order.push(node);
        open.push(next_sibling[node as usize]);
        open.push(first_child[node as usize]);
    }
    order
}
