//! `GET /api/v1/flamegraph`: the tree of all selected stacks in columns.

use axum::http::Uri;
use everflame_store::{Selection, StackSums, Store};

use super::{
    json::{Json, Unit},
    names::{Granularity, Names},
    params::Params,
    picture::{self, Picture},
    tree::{self, NONE, Shape},
};
use crate::{
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
        Ok(self.draw(&sums, &mut symbols.resolver()))
    }

    /// The answer for sums by stack.
    fn draw(&self, sums: &StackSums, resolver: &mut Resolver) -> Vec<u8> {
        let mut names = Names::new(&sums.frames, self.granularity, resolver);
        // A name that no frame has selects nothing; NONE is never a name's number.
        let focus = self.focus.as_ref().map(|name| names.names.find(name).unwrap_or(NONE));
        let (mut tree, ends) = tree::build(sums, &mut names, Shape { focus, invert: self.invert });
        let mut ids = if self.root.is_some() || self.with_ids { tree.ids(&names) } else { Vec::new() };
        if let Some(root) = self.root {
            tree = match ids.iter().position(|id| *id == root) {
                Some(node) => tree::subtree(&tree, node as u32, sums, &ends),
                None => tree::build(&StackSums { sums: Vec::new(), ..sums.clone() }, &mut names, Shape::default()).0,
            };
            ids = tree.ids(&names);
        }
        let kept = tree::largest(&tree, self.max_nodes);
        let mut json = Json::with_capacity(4096 + kept.len() * 64);
        json.raw("{");
        json.covered(&sums.covered);
        json.raw(",\"type\":");
        json.string(&self.selection.sample_type);
        let unit = Unit::of(&sums.unit);
        json.raw(",\"unit\":");
        json.string(unit.as_str());
        picture::write_totals(&mut json, &tree, unit);
        let picture = Picture { tree: &tree, base: None, names: &names, kept: &kept, unit };
        picture.write(&mut json, self.with_ids.then_some(ids.as_slice()), self.granularity);
        json.raw("}");
        json.bytes
    }
}

fn wrong_id(id: &str) -> ApiError {
    ApiError::bad_request(format!("root={id} is not a node's id: take one from an answer with ids=true"))
}
