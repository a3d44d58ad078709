//! `GET /api/v1/nodes` and `/api/v1/types`: who sends, and what.

use everflame_profile::Selector;
use everflame_store::Store;
use serde_json::{Value, json};

use super::json::{Unit, seconds};
use crate::web::error::ApiError;

/// Agents that have reported. Blocks.
pub fn answer(store: &dyn Store) -> Result<Vec<u8>, ApiError> {
    let mut nodes = store.nodes()?;
    nodes.sort_by(|a, b| (&a.report.node, b.last_seen).cmp(&(&b.report.node, a.last_seen)));
    let nodes: Vec<Value> = nodes
        .iter()
        .map(|node| {
            let report = &node.report;
            let mut answer = json!({
                "node": report.node,
                "instance": report.instance,
                "agent_version": report.agent_version,
                "kernel": report.kernel,
                "cpus": report.cpus,
                "rate": report.rate,
                "last_seen": seconds(node.last_seen),
                "cpu_percent": report.cpu_percent,
                "memory_bytes": report.memory_bytes,
            });
            if let Some(opinion) = &report.second_opinion {
                answer["second_opinion"] = json!(opinion);
            }
            answer
        })
        .collect();
    Ok(json!({ "nodes": nodes }).to_string().into_bytes())
}

/// Sample types that are stored, with the unit of their values in answers. Blocks.
pub fn types(store: &dyn Store) -> Result<Vec<u8>, ApiError> {
    let types: Vec<Value> = (store.types(&Selector::default())?.iter())
        .map(|stored| json!({"type": stored.name.as_ref(), "unit": Unit::of(&stored.unit).as_str()}))
        .collect();
    Ok(json!({ "types": types }).to_string().into_bytes())
}
