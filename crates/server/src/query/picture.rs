//! A tree written as the columns of an answer.

use everflame_profile::Completeness;

use super::{
    json::{Json, Unit},
    names::{Granularity, Interner, Names},
    tree::{NONE, Tree},
};

/// `,"samples":…,"value":…,"complete":{…}`.
pub fn write_totals(json: &mut Json, tree: &Tree, unit: Unit) {
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
#[derive(Debug)]
pub struct Picture<'a> {
    /// All nodes.
    pub tree: &'a Tree,
    /// The same nodes with the sums to compare with.
    pub base: Option<&'a Tree>,
    /// What the nodes are called.
    pub names: &'a Names,
    /// Those that are shown, parents before children.
    pub kept: &'a [u32],
    /// Unit of values.
    pub unit: Unit,
}

impl Picture<'_> {
    /// Writes the lists, the columns, and what was left out.
    pub fn write(&self, json: &mut Json, ids: Option<&[u64]>, granularity: Granularity) {
        let tree = self.tree;
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
        let elided = self.elided(tree, &parents);

        json.raw(",\"nodes\":{");
        json.column("parent", &parents, |j, p| j.integer(*p));
        let columns = [("name", name), ("file", file), ("mapping", mapping), ("kind", kind)];
        for (key, column) in columns {
            json.raw(",");
            json.column(key, column, Json::integer);
        }
        json.raw(",");
        json.column("line", &entries, |j, e| j.integer(e.line));
        self.sums(json, tree, &elided, "");
        let base = self.base.map(|base| (base, self.elided(base, &parents)));
        if let Some((base, elided)) = &base {
            self.sums(json, base, elided, "base_");
        }
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
        if let Some((_, elided)) = &base {
            json.raw(",\"base_samples\":");
            json.integer(elided.iter().sum::<u64>());
        }
        json.raw("}");
    }

    /// Samples of each shown node that are in none of its shown children, nor its own.
    fn elided(&self, tree: &Tree, parents: &[i64]) -> Vec<u64> {
        let mut elided: Vec<u64> = self.kept.iter().map(|n| tree.total[*n as usize] - tree.own[*n as usize]).collect();
        for (parent, node) in parents.iter().zip(self.kept) {
            if let Ok(parent) = usize::try_from(*parent) {
                elided[parent] -= tree.total[*node as usize];
            }
        }
        elided
    }

    /// The columns of sums, their names after `prefix`.
    fn sums(&self, json: &mut Json, tree: &Tree, elided: &[u64], prefix: &str) {
        let (kept, unit) = (self.kept, self.unit);
        let key = |name: &str| format!("{prefix}{name}");
        json.raw(",");
        json.column(&key("self"), kept, |j, n| j.integer(tree.own[*n as usize]));
        json.raw(",");
        json.column(&key("total"), kept, |j, n| j.integer(tree.total[*n as usize]));
        json.raw(",");
        json.column(&key("self_value"), kept, |j, n| j.value(tree.own_value[*n as usize], unit));
        json.raw(",");
        json.column(&key("total_value"), kept, |j, n| j.value(tree.total_value[*n as usize], unit));
        json.raw(",");
        json.column(&key("elided"), elided, |j, n| j.integer(*n));
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
