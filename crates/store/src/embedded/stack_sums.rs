//! Sums by stack: folded per source by trie node, then the tries of all sources are
//! laid over each other, as far as selected stacks reach.

use std::{collections::hash_map::Entry, io, sync::Arc};

use everflame_profile::{Completeness, Frame};
use rustc_hash::FxHashMap;

use super::{
    binding::BoundLabel,
    dictionary::Stacks,
    groups::{AllGroups, GroupLabels, Groups},
    row::Row,
    rows_reader::Columns,
    scan::{Fold, Source, covered, scan},
};
use crate::query::{Selection, StackSum, StackSums, TrieNode};

/// Group, leaf node, completeness.
type SumKey = (u32, u32, Completeness);

struct StackFold {
    groups: Groups,
    sums: FxHashMap<SumKey, (u64, i64)>,
    /// The run of equal rows that is not yet in `sums`: rows are sorted by stack.
    run: Option<(SumKey, (u64, i64))>,
}

impl StackFold {
    fn end_run(&mut self) {
        if let Some((key, (samples, value))) = self.run.take() {
            let sum = self.sums.entry(key).or_default();
            sum.0 = sum.0.saturating_add(samples);
            sum.1 = sum.1.saturating_add(value);
        }
    }
}

impl Fold for StackFold {
    #[inline]
    fn row(&mut self, row: &Row) {
        let key = (self.groups.of(row), row.node, row.completeness);
        match &mut self.run {
            Some((last, (samples, value))) if *last == key => {
                *samples = samples.saturating_add(row.samples);
                *value = value.saturating_add(row.value);
            }
            _ => {
                self.end_run();
                self.run = Some((key, (row.samples, row.value)));
            }
        }
    }
}

/// Answers [`crate::Store::stacks`]; `stacks_of` gives the trie of a source.
pub(crate) fn stacks(
    sources: &[Source],
    selection: &Selection,
    group: &[String],
    unit: String,
    stacks_of: impl Fn(&Source) -> io::Result<Arc<Stacks>>,
) -> io::Result<StackSums> {
    const COLUMNS: Columns = Columns::NODE.with(Columns::COMPLETENESS).with(Columns::SAMPLES).with(Columns::VALUE);
    let bind = |source: &Source| {
        let labels = group.iter().map(|label| BoundLabel::new(label, source.names())).collect();
        let labels = GroupLabels(Arc::new(labels));
        let columns = COLUMNS.with(labels.columns());
        (labels, columns)
    };
    let fold = |labels: &GroupLabels| StackFold { groups: Groups::new(labels), sums: FxHashMap::default(), run: None };
    let folded = scan(sources, selection, bind, fold)?;
    let mut groups = AllGroups::default();
    let mut merged = MergedStacks::default();
    let mut sums: Vec<StackSum> = Vec::new();
    let used = folded.iter().filter(|(_, folds)| !folds.is_empty()).count();
    for (source, (_, folds)) in sources.iter().zip(folded) {
        if folds.is_empty() {
            continue;
        }
        let stacks = stacks_of(source)?;
        let mut reached = Reached::new(&stacks);
        let start = sums.len();
        for mut fold in folds {
            fold.end_run();
            let ids: Vec<u32> = fold.groups.values(source.names()).into_iter().map(|v| groups.id(v)).collect();
            for ((group, node, completeness), (samples, value)) in fold.sums {
                reached.mark(node);
                let group = ids[group as usize];
                sums.push(StackSum { group, node, completeness, samples, value });
            }
        }
        let nodes = merged.add(&stacks, &reached, used == 1);
        for sum in &mut sums[start..] {
            sum.node = nodes.get(sum.node as usize).copied().unwrap_or(u32::MAX);
        }
    }
    sum_up(&mut sums);
    let (frames, nodes) = (merged.frames, merged.nodes);
    Ok(StackSums { covered: covered(selection), unit, frames, nodes, groups: groups.values, sums })
}

/// Adds up the sums of equal (group, node, completeness).
fn sum_up(sums: &mut Vec<StackSum>) {
    sums.sort_unstable_by_key(|sum| (sum.group, sum.node, sum.completeness));
    sums.dedup_by(|next, kept| {
        let same = (next.group, next.node, next.completeness) == (kept.group, kept.node, kept.completeness);
        if same {
            kept.samples = kept.samples.saturating_add(next.samples);
            kept.value = kept.value.saturating_add(next.value);
        }
        same
    });
}

/// Nodes of a trie that selected stacks reach.
struct Reached<'a> {
    stacks: &'a Stacks,
    nodes: Vec<bool>,
}

impl<'a> Reached<'a> {
    fn new(stacks: &'a Stacks) -> Self {
        Self { stacks, nodes: vec![false; stacks.nodes.len()] }
    }

    fn mark(&mut self, mut node: u32) {
        while let Some(reached) = self.nodes.get_mut(node as usize) {
            if std::mem::replace(reached, true) {
                break;
            }
            node = self.stacks.nodes.get(node).map_or(u32::MAX, |node| node.parent);
        }
    }
}

/// The tries laid over each other so far.
#[derive(Default)]
struct MergedStacks {
    frames: Vec<Frame>,
    frame_ids: FxHashMap<u128, u32>,
    nodes: Vec<TrieNode>,
    /// The first children of each node: most have no more, and since tries come depth
    /// first, a look here is near the last one. `u32::MAX` where there is none.
    children: Vec<[u32; FEW]>,
    /// Children beyond the first few, and roots.
    more_children: FxHashMap<(u32, u32), u32>,
}

/// Children that a node keeps beside it.
const FEW: usize = 2;

impl MergedStacks {
    /// Adds the reached nodes of a source; says which node each became. `only`: there
    /// is no other source, so that nothing can meet.
    fn add(&mut self, stacks: &Stacks, reached: &Reached<'_>, only: bool) -> Vec<u32> {
        let mut frames = vec![u32::MAX; stacks.frames.len()];
        let mut nodes = vec![u32::MAX; stacks.nodes.len()];
        let count = reached.nodes.iter().filter(|reached| **reached).count();
        self.nodes.reserve(count);
        if !only {
            self.frame_ids.reserve(stacks.frames.len());
            self.children.reserve(count);
        }
        for (index, node) in stacks.nodes.iter().enumerate() {
            if !reached.nodes[index] {
                continue;
            }
            let frame = &mut frames[node.frame as usize];
            if *frame == u32::MAX
                && let Some(hash) = stacks.frames.hash(node.frame)
            {
                let mut push = || {
                    self.frames.extend(stacks.frames.get(node.frame));
                    self.frames.len() as u32 - 1
                };
                *frame = if only { push() } else { *self.frame_ids.entry(hash).or_insert_with(push) };
            }
            let parent = if node.parent == u32::MAX { u32::MAX } else { nodes[node.parent as usize] };
            let merged = TrieNode { parent, frame: *frame };
            nodes[index] = if only {
                self.nodes.push(merged);
                self.nodes.len() as u32 - 1
            } else {
                self.node(merged)
            };
        }
        nodes
    }

    /// The node of a frame under a parent, new or known.
    fn node(&mut self, node: TrieNode) -> u32 {
        let next = self.nodes.len() as u32;
        let mut place = None;
        for (at, child) in self.children.get(node.parent as usize).into_iter().flatten().enumerate() {
            match self.nodes.get(*child as usize) {
                Some(known) if known.frame == node.frame => return *child,
                Some(_) => {}
                None => {
                    place = Some(at);
                    break;
                }
            }
        }
        match place {
            Some(at) => self.children[node.parent as usize][at] = next,
            None => match self.more_children.entry((node.parent, node.frame)) {
                Entry::Occupied(known) => return *known.get(),
                Entry::Vacant(place) => {
                    place.insert(next);
                }
            },
        }
        self.nodes.push(node);
        self.children.push([u32::MAX; FEW]);
        next
    }
}
