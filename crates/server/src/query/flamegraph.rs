//! `GET /api/v1/flamegraph`: the tree of all selected stacks in columns.

use axum::http::Uri;
use everflame_profile::Completeness;
use everflame_store::{Selection, StackSums, Store};

use super::{
    json::{Json, Unit},
    names::{Interner, Names},
    params::Params,
    tree::{self, NONE, Shape, Tree},
};
use crate::{
    query::names::Granularity,
    symbols::{Resolver, Symbols},
    web::error::ApiError,
};

/// Nodes in an answer unless said.
pub const DEFAULT_MAX_NODES: usize = 20_000;

/// What is asked for.
#[derive(Debug)]
pub struct Request {
    selection: Selection,
    group: Vec<String>,
    granularity: Granularity,
    focus: Option<String>,
    invert: bool,
    root: Option<u64>,
    with_ids: bool,
    max_nodes: usize,
}

impl Request {
    /// Reads the parameters.
    pub fn new(uri: &Uri) -> Result<Self, ApiError> {
        let params = Params::new(uri)?;
        let granularity = match params.choice("granularity", &["function", "line", "address"])? {
            1 => Granularity::Line,
            2 => Granularity::Address,
            _ => Granularity::Function,
        };
        let root = match params.get("root") {
            None => None,
            Some(id) if id.len() == 16 => Some(u64::from_str_radix(id, 16).map_err(|_| wrong_id(id))?),
            Some(id) => return Err(wrong_id(id)),
        };
        Ok(Self {
            selection: params.selection()?,
            group: params.group()?,
            granularity,
            focus: params.get("focus").map(str::to_owned),
            invert: params.boolean("invert")?,
            root,
            with_ids: params.boolean("ids")?,
            max_nodes: params.number("max_nodes", DEFAULT_MAX_NODES)?,
        })
    }

    /// Answers from the store. Blocks.
    pub fn answer(&self, store: &dyn Store, symbols: &Symbols) -> Result<Vec<u8>, ApiError> {
        let sums = store.stacks(&self.selection, &self.group)?;
        Ok(self.picture(&sums, &mut symbols.resolver()))
    }

    /// The answer for sums by stack.
    fn picture(&self, sums: &StackSums, resolver: &mut Resolver) -> Vec<u8> {
        let mut names = Names::new(&sums.frames, self.granularity, resolver);
        // A name that no frame has selects nothing; NONE is never a name's number.
        let focus = self.focus.as_ref().map(|name| names.names.find(name).unwrap_or(NONE));
        let (mut tree, ends) = tree::build(sums, &mut names, Shape { focus, invert: self.invert });
        let mut ids = tree.ids(&names);
        if let Some(root) = self.root {
            tree = match ids.iter().position(|id| *id == root) {
                Some(node) => tree::subtree(&tree, node as u32, sums, &ends),
                None => tree::build(&StackSums { sums: Vec::new(), ..sums.clone() }, &mut names, Shape::default()).0,
            };
            ids = tree.ids(&names);
        }
        let kept = tree::largest(&tree, &ids, self.max_nodes);
        let mut json = Json::with_capacity(4096 + kept.len() * 64);
        json.raw("{");
        json.covered(&sums.covered);
        json.raw(",\"type\":");
        json.string(&self.selection.sample_type);
        let unit = Unit::of(&sums.unit);
        json.raw(",\"unit\":");
        json.string(unit.as_str());
        write_totals(&mut json, &tree, unit);
        let picture = Picture { tree: &tree, names: &names, kept: &kept, unit };
        picture.write(&mut json, self.with_ids.then_some(ids.as_slice()), self.granularity);
        json.raw("}");
        json.bytes
    }
}

fn wrong_id(id: &str) -> ApiError {
    ApiError::bad_request(format!("root={id} is not a node's id: take one from an answer with ids=true"))
}

fn write_totals(json: &mut Json, tree: &Tree, unit: Unit) {
    json.raw(",\"samples\":");
    json.integer(tree.total[0]);
    json.raw(",\"value\":");
    json.value(tree.total_value[0], unit);
    json.raw(",\"complete\":");
    write_completeness(json, &tree.by_completeness);
}

/// `{"samples":N,"incomplete":{REASON:N}}`, reasons with no sample left out.
fn write_completeness(json: &mut Json, by: &[u64; Completeness::ALL.len()]) {
    json.raw("{\"samples\":");
    json.integer(by[Completeness::Complete as usize]);
    json.raw(",\"incomplete\":{");
    let mut first = true;
    for reason in Completeness::ALL.into_iter().filter(|c| !c.is_complete()) {
        let samples = by[reason as usize];
        if samples > 0 {
            if !first {
                json.raw(",");
            }
            first = false;
            json.string(reason.as_str());
            json.raw(":");
            json.integer(samples);
        }
    }
    json.raw("}}");
}

/// The nodes of a tree that are shown.
struct Picture<'a> {
    tree: &'a Tree,
    names: &'a Names,
    kept: &'a [u32],
    unit: Unit,
}

impl Picture<'_> {
    fn write(&self, json: &mut Json, ids: Option<&[u64]>, granularity: Granularity) {
        let (tree, unit) = (self.tree, self.unit);
        let entries: Vec<_> = self.kept.iter().map(|n| self.names.entry(tree.entry[*n as usize])).collect();
        let name = self.list(json, "names", &self.names.names, entries.iter().map(|e| e.name));
        let file = self.list(json, "files", &self.names.files, entries.iter().map(|e| e.file));
        let mapping = self.list(json, "mappings", &self.names.mappings, entries.iter().map(|e| e.mapping));
        let kind = self.list(json, "kinds", &self.names.kinds, entries.iter().map(|e| e.kind));

        let mut place = vec![NONE; tree.len()];
        for (new, old) in self.kept.iter().enumerate() {
            place[*old as usize] = new as u32;
        }
        let parents: Vec<i64> = (self.kept.iter())
            .map(|n| match tree.parent[*n as usize] {
                NONE => -1,
                parent => i64::from(place[parent as usize]),
            })
            .collect();
        let mut elided: Vec<u64> = self.kept.iter().map(|n| tree.total[*n as usize] - tree.own[*n as usize]).collect();
        for (parent, node) in parents.iter().zip(self.kept) {
            if let Ok(parent) = usize::try_from(*parent) {
                elided[parent] -= tree.total[*node as usize];
            }
        }

        json.raw(",\"nodes\":{");
        json.column("parent", &parents, |j, p| j.integer(*p));
        let columns = [("name", name), ("file", file), ("mapping", mapping), ("kind", kind)];
        for (key, column) in columns {
            json.raw(",");
            json.column(key, column, Json::integer);
        }
        json.raw(",");
        json.column("line", &entries, |j, e| j.integer(e.line));
        json.raw(",");
        json.column("self", self.kept, |j, n| j.integer(tree.own[*n as usize]));
        json.raw(",");
        json.column("total", self.kept, |j, n| j.integer(tree.total[*n as usize]));
        json.raw(",");
        json.column("self_value", self.kept, |j, n| j.value(tree.own_value[*n as usize], unit));
        json.raw(",");
        json.column("total_value", self.kept, |j, n| j.value(tree.total_value[*n as usize], unit));
        json.raw(",");
        json.column("elided", &elided, |j, n| j.integer(*n));
        if granularity == Granularity::Address {
            json.raw(",");
            json.column("address", &entries, |j, e| j.string(&format!("{:#x}", e.address)));
        }
        if let Some(ids) = ids {
            json.raw(",");
            json.column("id", self.kept, |j, n| j.string(&format!("{:016x}", ids[*n as usize])));
        }
        json.raw("},\"elided\":{\"nodes\":");
        json.integer(tree.len() - self.kept.len());
        json.raw(",\"samples\":");
        json.integer(elided.iter().sum::<u64>());
        json.raw("}");
    }

    /// Writes those strings of a list that are used, and answers the column that
    /// points into what was written.
    fn list(&self, json: &mut Json, key: &str, all: &Interner, used: impl Iterator<Item = u32>) -> Vec<u32> {
        let mut place = vec![NONE; all.strings().len()];
        let mut written: Vec<u32> = Vec::new();
        let column = used
            .map(|old| {
                let new = &mut place[old as usize];
                if *new == NONE {
                    *new = written.len() as u32;
                    written.push(old);
                }
                *new
            })
            .collect();
        json.raw(",");
        json.column(key, written, |j, old| j.string(all.get(old)));
        column
    }
}
