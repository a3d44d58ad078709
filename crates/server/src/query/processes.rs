//! `GET /api/v1/processes`: the processes among the selected samples.

use axum::http::Uri;
use everflame_store::{Selection, Store};
use serde_json::{Value, json};

use super::{covered, json::seconds, params::Params};
use crate::web::error::ApiError;

/// Reads the parameters.
pub fn request(uri: &Uri) -> Result<Selection, ApiError> {
    Params::new(uri)?.selection()
}

/// Answers from the store. Blocks.
pub fn answer(store: &dyn Store, selection: &Selection) -> Result<Vec<u8>, ApiError> {
    let (range, processes) = store.processes(selection)?;
    let rows: Vec<Value> = processes
        .iter()
        .map(|process| {
            json!({
                "node": process.node.as_ref(),
                "pid": process.pid,
                "process": process.process.as_ref(),
                "thread_count": process.thread_count,
                "container": process.container.as_ref(),
                "pod": process.pod.as_ref(),
                "namespace": process.namespace.as_ref(),
                "service": process.service.as_ref(),
                "samples": process.samples,
                "complete": process.complete,
                "first_seen": seconds(process.first_seen),
                "last_seen": seconds(process.last_seen),
            })
        })
        .collect();
    let mut answer = covered(&range);
    answer.insert("processes".into(), rows.into());
    Ok(Value::Object(answer).to_string().into_bytes())
}
