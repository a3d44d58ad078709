//! `GET /api/v1/diff`: two selections in one tree, each with its own sums.

use axum::http::Uri;
use everflame_store::{Selection, StackSum, StackSums, Store, TrieNode};

use super::{
    flamegraph::DEFAULT_MAX_NODES,
    json::{Json, Unit},
    names::{Granularity, Names},
    params::Params,
    picture::{self, Picture},
    tree::{self, NONE, Shape},
};
use crate::{symbols::Symbols, web::error::ApiError};

/// What is asked for.
#[derive(Debug)]
pub struct Request {
    selection: Selection,
    base: Selection,
    group: Vec<String>,
    max_nodes: usize,
}

impl Request {
    /// Reads the parameters. The base is the range just before, unless said.
    pub fn new(uri: &Uri) -> Result<Self, ApiError> {
        let params = Params::new(uri)?;
        let selection = params.selection()?;
        let base = params.base(&selection)?;
        let max_nodes = params.number("max_nodes", DEFAULT_MAX_NODES)?;
        Ok(Self { selection, base, group: params.group()?, max_nodes })
    }

    /// Answers from the store. Blocks.
    pub fn answer(&self, store: &dyn Store, symbols: &Symbols) -> Result<Vec<u8>, ApiError> {
        let sums = store.stacks(&self.selection, &self.group)?;
        let base = store.stacks(&self.base, &self.group)?;
        let (covered, base_covered) = (sums.covered, base.covered);
        // Where nothing was selected, the unit is the other's.
        let unit = Unit::of(if sums.unit.is_empty() { &base.unit } else { &sums.unit });
        let first_of_base = sums.sums.len();
        let both = joined(sums, base);
        let mut names = Names::new(&both.frames, Granularity::Function, &mut symbols.resolver());
        let (all, ends) = tree::build(&both, &mut names, Shape::default());
        let ended: Vec<(&StackSum, u32)> = both.sums.iter().zip(ends).collect();
        let (ours, theirs) = ended.split_at(first_of_base);
        let (ours, theirs) = (ours.iter().copied(), theirs.iter().copied());
        let (now, then) = (tree::recounted(&all, ours), tree::recounted(&all, theirs));
        // What is large in either is shown.
        let kept = tree::largest(&all, self.max_nodes);

        let mut json = Json::with_capacity(4096 + kept.len() * 96);
        json.raw("{");
        json.covered(&covered);
        json.raw(",\"type\":");
        json.string(&self.selection.sample_type);
        json.raw(",\"unit\":");
        json.string(unit.as_str());
        picture::write_totals(&mut json, &now, unit);
        json.raw(",\"base\":{");
        json.covered(&base_covered);
        picture::write_totals(&mut json, &then, unit);
        json.raw("}");
        let picture = Picture { tree: &now, base: Some(&then), names: &names, kept: &kept, unit };
        picture.write(&mut json, None, Granularity::Function);
        json.raw("}");
        Ok(json.bytes)
    }
}

/// Both sums in one, the second after the first; stacks that are in both are there
/// twice, and fall together in the tree.
fn joined(mut sums: StackSums, base: StackSums) -> StackSums {
    let (frames, nodes) = (sums.frames.len() as u32, sums.nodes.len() as u32);
    let after = |node: u32| if node == NONE { NONE } else { node + nodes };
    sums.frames.extend(base.frames);
    sums.nodes.extend(base.nodes.iter().map(|n| TrieNode { parent: after(n.parent), frame: n.frame + frames }));
    let mut groups = Vec::with_capacity(base.groups.len());
    for group in base.groups {
        let at = sums.groups.iter().position(|other| *other == group).unwrap_or_else(|| {
            sums.groups.push(group);
            sums.groups.len() - 1
        });
        groups.push(at as u32);
    }
    sums.sums.extend(base.sums.iter().map(|sum| StackSum {
        group: groups[sum.group as usize],
        node: after(sum.node),
        ..*sum
    }));
    sums
}
