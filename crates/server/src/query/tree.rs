//! The tree of a flame graph: stacks summed by what their frames are called.
//! All of it works on integers; text comes back only when the answer is written.

use everflame_profile::Completeness;
use everflame_store::{StackSum, StackSums};
use rustc_hash::FxHashMap;

use super::names::{self, MARKER, Names, mix};

/// "No node".
pub const NONE: u32 = u32::MAX;

/// How stacks become paths.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shape {
    /// Keep only stacks with a function of this name (a number of `Names::names`),
    /// from its outermost occurrence on.
    pub focus: Option<u32>,
    /// Leaf first; with `focus`, the callers instead of the callees.
    pub invert: bool,
}

/// A tree in columns; parents stand before their children, node 0 is the root.
#[derive(Debug, Default)]
pub struct Tree {
    /// Index of the parent, [`NONE`] for the root.
    pub parent: Vec<u32>,
    /// Entry of [`Names`].
    pub entry: Vec<u32>,
    /// Samples whose path ends here.
    pub own: Vec<u64>,
    /// Their value in the base unit.
    pub own_value: Vec<i64>,
    /// Samples whose path passes or ends here.
    pub total: Vec<u64>,
    /// Their value in the base unit.
    pub total_value: Vec<i64>,
    /// Which stacks are complete, by [`Completeness`] as index.
    pub by_completeness: [u64; Completeness::ALL.len()],
}

/// The name of the node that incomplete stacks hang below.
pub fn marker(reason: Completeness) -> String {
    format!("[incomplete: {}]", reason.as_str())
}

impl Tree {
    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.parent.len()
    }

    /// Whether there is not even a root.
    pub fn is_empty(&self) -> bool {
        self.parent.is_empty()
    }

    /// A number for each node over the path to it, the same in every answer.
    pub fn ids(&self, names: &Names) -> Vec<u64> {
        let hashes = names.stable_hashes();
        let mut ids: Vec<u64> = Vec::with_capacity(self.len());
        for (parent, entry) in self.parent.iter().zip(&self.entry) {
            let above = if *parent == NONE { 0 } else { ids[*parent as usize] };
            ids.push(mix(above, hashes[*entry as usize]));
        }
        ids
    }

    /// Adds sums at the nodes where they end, and to all nodes above.
    fn count<'a>(&mut self, sums: impl Iterator<Item = (&'a StackSum, u32)>) {
        for (sum, end) in sums.filter(|(_, end)| *end != NONE) {
            self.own[end as usize] += sum.samples;
            self.own_value[end as usize] += sum.value;
            self.by_completeness[sum.completeness as usize] += sum.samples;
        }
        self.sum_up();
    }

    fn sum_up(&mut self) {
        self.total.clone_from(&self.own);
        self.total_value.clone_from(&self.own_value);
        for node in (1..self.len()).rev() {
            let parent = self.parent[node] as usize;
            self.total[parent] += self.total[node];
            self.total_value[parent] += self.total_value[node];
        }
    }
}

/// Adds stacks to a tree.
struct Builder<'a> {
    sums: &'a StackSums,
    names: &'a mut Names,
    tree: Tree,
    children: FxHashMap<(u32, u32), u32>,
}

/// Builds the tree of all selected stacks. The second answer says at which node each
/// of `sums.sums` ended ([`NONE`] for those that are not in it).
pub fn build(sums: &StackSums, names: &mut Names, shape: Shape) -> (Tree, Vec<u32>) {
    let order = order(sums, names);
    let root = names.plain(names::ROOT, "total");
    // One memo serves all stacks of a base, since they stand together.
    let mut builder = Builder { sums, names, tree: Tree::default(), children: FxHashMap::default() };
    builder.push(NONE, root);
    let mut ends = vec![NONE; sums.sums.len()];
    let plain = shape.focus.is_none() && !shape.invert;
    let mut memo = if plain { vec![(NONE, NONE); sums.nodes.len()] } else { Vec::new() };
    let mut path = Vec::new();
    let mut last = None;
    let mut base = 0;
    for at in order {
        let sum = sums.sums[at as usize];
        if !plain {
            builder.path(sum.node, &mut path);
            if !bend(&mut path, shape, builder.names) {
                continue;
            }
        }
        if last != Some((sum.group, sum.completeness)) {
            base = builder.base(sum.group, sum.completeness);
            last = Some((sum.group, sum.completeness));
        }
        ends[at as usize] = if plain {
            builder.add_memoised(base, sum.node, &mut memo, &mut path)
        } else {
            path.iter().fold(base, |node, entry| builder.child(node, *entry))
        };
    }
    let mut tree = builder.tree;
    tree.count(sums.sums.iter().zip(ends.iter().copied()));
    (tree, ends)
}

/// The same nodes with other sums: those given, with the nodes at which they end.
pub fn recounted<'a>(tree: &Tree, sums: impl Iterator<Item = (&'a StackSum, u32)>) -> Tree {
    let mut other = Tree {
        parent: tree.parent.clone(),
        entry: tree.entry.clone(),
        own: vec![0; tree.len()],
        own_value: vec![0; tree.len()],
        ..Tree::default()
    };
    other.count(sums);
    other
}

/// Keeps of a tree only the samples that pass or end at `node`: the nodes above it
/// (with what passes through it), the node, and those below.
pub fn subtree(tree: &Tree, node: u32, sums: &StackSums, ends: &[u32]) -> Tree {
    let mut place = vec![NONE; tree.len()];
    let mut above = vec![node];
    while let Some(parent) = above.last().map(|n| tree.parent[*n as usize]).filter(|p| *p != NONE) {
        above.push(parent);
    }
    let mut kept = Tree::default();
    let mut keep = |old: u32, parent: u32, own: bool| {
        kept.parent.push(parent);
        kept.entry.push(tree.entry[old as usize]);
        kept.own.push(if own { tree.own[old as usize] } else { 0 });
        kept.own_value.push(if own { tree.own_value[old as usize] } else { 0 });
        (kept.parent.len() - 1) as u32
    };
    let mut parent = NONE;
    for old in above.iter().rev() {
        parent = keep(*old, parent, *old == node);
    }
    place[node as usize] = parent;
    for old in node as usize + 1..tree.len() {
        let parent = place[tree.parent[old] as usize];
        if parent != NONE {
            place[old] = keep(old as u32, parent, true);
        }
    }
    for (sum, end) in sums.sums.iter().zip(ends) {
        if *end != NONE && place[*end as usize] != NONE {
            kept.by_completeness[sum.completeness as usize] += sum.samples;
        }
    }
    kept.sum_up();
    kept
}

/// The `most` largest nodes by total (0: all), in the tree's order. A node is never
/// larger than its parent and comes after it, so that what is kept hangs together.
pub fn largest(tree: &Tree, most: usize) -> Vec<u32> {
    let mut nodes: Vec<u32> = (0..tree.len() as u32).collect();
    if most > 0 && most < nodes.len() {
        nodes.select_nth_unstable_by_key(most, |n| (std::cmp::Reverse(tree.total[*n as usize]), *n));
        nodes.truncate(most);
        nodes.sort_unstable();
    }
    nodes
}

/// The order in which stacks are added. It follows from what they are, not from how
/// the store found them, so that the same samples always make the same answer; and
/// stacks of one base stand together.
fn order(sums: &StackSums, names: &Names) -> Vec<u32> {
    let hashes = names.stable_hashes();
    let mut paths: Vec<u64> = Vec::with_capacity(sums.nodes.len());
    for node in &sums.nodes {
        let above = if node.parent == NONE { 0 } else { paths[node.parent as usize] };
        paths.push(names.of_frame(node.frame).iter().fold(above, |path, entry| mix(path, hashes[*entry as usize])));
    }
    let mut groups: Vec<u32> = (0..sums.groups.len() as u32).collect();
    groups.sort_unstable_by_key(|group| &sums.groups[*group as usize]);
    let mut rank = vec![0; groups.len()];
    for (at, group) in groups.iter().enumerate() {
        rank[*group as usize] = at;
    }
    let mut order: Vec<u32> = (0..sums.sums.len() as u32).collect();
    order.sort_unstable_by_key(|at| {
        let sum = &sums.sums[*at as usize];
        let path = paths.get(sum.node as usize).copied().unwrap_or_default();
        (rank.get(sum.group as usize).copied(), sum.completeness, path)
    });
    order
}

/// Cuts and turns a path (outermost first) as the shape says; false if it is not in.
fn bend(path: &mut Vec<u32>, shape: Shape, names: &Names) -> bool {
    if let Some(focus) = shape.focus {
        let Some(at) = path.iter().position(|e| names.entry(*e).name == focus) else { return false };
        if shape.invert {
            path.truncate(at + 1);
        } else {
            path.drain(..at);
        }
    }
    if shape.invert {
        path.reverse();
    }
    true
}

impl Builder<'_> {
    fn push(&mut self, parent: u32, entry: u32) -> u32 {
        self.tree.parent.push(parent);
        self.tree.entry.push(entry);
        self.tree.own.push(0);
        self.tree.own_value.push(0);
        (self.tree.parent.len() - 1) as u32
    }

    fn child(&mut self, parent: u32, entry: u32) -> u32 {
        if let Some(node) = self.children.get(&(parent, entry)) {
            return *node;
        }
        let node = self.push(parent, entry);
        self.children.insert((parent, entry), node);
        node
    }

    /// The node below which stacks of a group and completeness hang.
    fn base(&mut self, group: u32, completeness: Completeness) -> u32 {
        let sums = self.sums;
        let values = sums.groups.get(group as usize).map(Vec::as_slice).unwrap_or_default();
        let mut node = 0;
        for value in values {
            let entry = self.names.plain(names::LABEL, value);
            node = self.child(node, entry);
        }
        if !completeness.is_complete() {
            let entry = self.names.plain(MARKER, &marker(completeness));
            node = self.child(node, entry);
        }
        node
    }

    /// Adds a stack below `base`, walking up the trie only to the first node that
    /// this base has seen. `memo` holds (base, node) by trie node.
    fn add_memoised(&mut self, base: u32, leaf: u32, memo: &mut [(u32, u32)], path: &mut Vec<u32>) -> u32 {
        path.clear();
        let mut at = leaf;
        let mut node = base;
        while at != NONE {
            let (seen_by, seen_as) = memo[at as usize];
            if seen_by == base {
                node = seen_as;
                break;
            }
            path.push(at);
            at = self.sums.nodes[at as usize].parent;
        }
        while let Some(at) = path.pop() {
            let (start, end) = self.names.range(self.sums.nodes[at as usize].frame);
            for flat in start..end {
                let entry = self.names.flat_entry(flat);
                node = self.child(node, entry);
            }
            memo[at as usize] = (base, node);
        }
        node
    }

    /// The entries of a stack, outermost first.
    fn path(&self, leaf: u32, path: &mut Vec<u32>) {
        path.clear();
        let mut at = leaf;
        while at != NONE {
            let node = self.sums.nodes[at as usize];
            path.extend(self.names.of_frame(node.frame).iter().rev());
            at = node.parent;
        }
        path.reverse();
    }
}
