//! What an exact server must answer: counted while the load is made, and compared with an
//! answer through one number over the whole flame graph.

use std::collections::HashMap;

use everflame_profile::Frame;
use serde_json::{Value, json};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::batches::Batches;

/// Samples by service and stack.
#[derive(Debug, Default, Clone)]
pub struct Totals(HashMap<(usize, u32), u64>);

/// A flame graph in three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Digest {
    /// Samples in all.
    pub samples: u64,
    /// Nodes, the root not counted.
    pub nodes: u64,
    /// Sum over all nodes of a hash of the path from the root, the samples that end there
    /// and the samples below: the same for every order of nodes.
    pub hash: u64,
}

impl Totals {
    /// Counts one sample.
    pub fn add(&mut self, service: usize, stack: u32) {
        *self.0.entry((service, stack)).or_default() += 1;
    }

    /// Samples of the services for which `wanted` holds.
    pub fn samples(&self, wanted: impl Fn(usize) -> bool) -> u64 {
        self.0.iter().filter(|((service, _), _)| wanted(*service)).map(|(_, count)| count).sum()
    }

    /// The flame graph of the services for which `wanted` holds, without group levels.
    pub fn digest(&self, batches: &Batches, wanted: impl Fn(usize) -> bool) -> Digest {
        let cluster = batches.cluster();
        let keys: Vec<u64> = cluster.frames.iter().map(frame_key).collect();
        // A node is its path's hash: (samples that end there, samples below and there).
        let mut nodes: HashMap<u64, (u64, u64)> = HashMap::new();
        let mut samples = 0;
        for ((_, stack), count) in self.0.iter().filter(|((service, _), _)| wanted(*service)) {
            samples += count;
            let (mut path, frames) = (0, &cluster.stacks[*stack as usize]);
            for (depth, frame) in frames.iter().enumerate() {
                path = below(path, keys[*frame as usize]);
                let node = nodes.entry(path).or_default();
                node.1 += count;
                if depth + 1 == frames.len() {
                    node.0 += count;
                }
            }
        }
        let hash =
            nodes.iter().fold(0u64, |sum, (path, (own, total))| sum.wrapping_add(node_hash(*path, *own, *total)));
        Digest { samples, nodes: nodes.len() as u64, hash }
    }

    /// What is to be expected, for a reader.
    pub fn summary(&self, batches: &Batches) -> Value {
        let cluster = batches.cluster();
        let mut depths: Vec<usize> = self.0.keys().map(|(_, stack)| cluster.stacks[*stack as usize].len()).collect();
        depths.sort_unstable();
        let frames: usize = depths.iter().sum();
        let bare = self.0.keys().flat_map(|(_, stack)| &cluster.stacks[*stack as usize]);
        let bare = bare.filter(|frame| cluster.frames[**frame as usize].lines.is_empty()).count();
        json!({
            "seed": batches.shape().seed,
            "range": batches.range(),
            "services": cluster.services.len(),
            "pods": cluster.pods.len(),
            "stacks": self.0.len(),
            "median_depth": depths.get(depths.len() / 2),
            "max_depth": depths.last(),
            "bare_addresses_percent": bare as f64 * 100.0 / frames.max(1) as f64,
            "cluster": self.digest(batches, |_| true),
        })
    }
}

/// The digest of a flame graph answer with `max_nodes=0` and an empty `group`.
pub fn digest_of_answer(answer: &Value) -> Option<Digest> {
    let list = |name: &str| answer[name].as_array()?.iter().map(Value::as_str).collect::<Option<Vec<_>>>();
    let column = |name: &str| answer["nodes"][name].as_array()?.iter().map(Value::as_i64).collect::<Option<Vec<_>>>();
    let (names, mappings, kinds) = (list("names")?, list("mappings")?, list("kinds")?);
    let (parent, own, total) = (column("parent")?, column("self")?, column("total")?);
    let (name, mapping, kind) = (column("name")?, column("mapping")?, column("kind")?);
    let mut paths = vec![0u64; parent.len()];
    let (mut hash, mut nodes) = (0u64, 0);
    for node in 1..parent.len() {
        let key = shown_key(
            kinds.get(*kind.get(node)? as usize)?,
            names.get(*name.get(node)? as usize)?,
            mappings.get(*mapping.get(node)? as usize)?,
        );
        paths[node] = below(*paths.get(*parent.get(node)? as usize)?, key);
        hash = hash.wrapping_add(node_hash(paths[node], *own.get(node)? as u64, *total.get(node)? as u64));
        nodes += 1;
    }
    Some(Digest { samples: answer["samples"].as_u64()?, nodes, hash })
}

/// How a frame without further symbols is to be shown.
fn frame_key(frame: &Frame) -> u64 {
    let mapping = frame.mapping.as_ref().map_or("", |mapping| &mapping.name);
    match frame.lines.first() {
        Some(line) => shown_key(frame.kind.as_str(), &line.function, mapping),
        None => shown_key(frame.kind.as_str(), &format!("{mapping}+0x{:x}", frame.address), mapping),
    }
}

fn shown_key(kind: &str, name: &str, mapping: &str) -> u64 {
    xxh3_64(format!("{kind}\0{name}\0{mapping}").as_bytes())
}

fn below(path: u64, key: u64) -> u64 {
    xxh3_64_with_seed(&key.to_le_bytes(), path)
}

fn node_hash(path: u64, own: u64, total: u64) -> u64 {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&path.to_le_bytes());
    bytes[8..16].copy_from_slice(&own.to_le_bytes());
    bytes[16..].copy_from_slice(&total.to_le_bytes());
    xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use super::super::Shape;
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_load_of_the_right_shape() {
        let shape = Shape { minutes: 2, ..Shape::default() };
        let make = |shape: &Shape| {
            let mut batches = Batches::new(shape, 1_700_000_000_000_000_000);
            let samples: u64 = batches.by_ref().map(|batch| batch.samples()).sum();
            (samples, batches.totals().digest(&batches, |_| true), batches.totals().summary(&batches))
        };
        let (samples, digest, summary) = make(&shape);
        assert_eq!(samples, 20 * 8 * 40 * 20 * 120 / 100);
        assert_eq!(digest.samples, samples);
        assert_eq!(make(&shape).1, digest);
        assert_ne!(make(&Shape { seed: 2, ..shape }).1.hash, digest.hash);
        let bare = summary["bare_addresses_percent"].as_f64().unwrap();
        assert!((21.0..25.0).contains(&bare), "{summary}");
        assert!((23..=27).contains(&summary["median_depth"].as_u64().unwrap()), "{summary}");
        assert!(summary["max_depth"].as_u64().unwrap() <= 126, "{summary}");
    }
}
