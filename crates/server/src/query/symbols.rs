//! `GET /api/v1/symbols`: executables with an index, and how much they are seen.

use axum::http::Uri;
use everflame_profile::ContentId;
use everflame_store::{Selection, Store};
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Value, json};

use super::{covered, params::Params};
use crate::{
    access::Scoped,
    symbols::{Executable, Symbols},
    web::error::ApiError,
};

/// Reads the parameters: the range in which samples are counted.
pub fn request(uri: &Uri) -> Result<Selection, ApiError> {
    Params::new(uri)?.selection()
}

/// Answers from the store and the symbol directory. `samples` counts those whose
/// innermost frame is in the executable. Whoever sees one project only is told of those
/// executables only that the project's selected stacks pass through. Blocks.
pub fn answer(store: &Scoped, symbols: &Symbols, selection: &Selection) -> Result<Vec<u8>, ApiError> {
    let sums = store.stacks(selection, &[])?;
    let mut by_content: FxHashMap<ContentId, u64> = FxHashMap::default();
    for sum in &sums.sums {
        let frame = sums.nodes.get(sum.node as usize).and_then(|node| sums.frames.get(node.frame as usize));
        if let Some(id) = frame.and_then(|frame| frame.mapping.as_ref()?.content_id) {
            *by_content.entry(id).or_default() += sum.samples;
        }
    }
    let seen = store.project().map(|_| {
        let contents = sums.frames.iter().filter_map(|frame| frame.mapping.as_ref()?.content_id);
        contents.collect::<FxHashSet<ContentId>>()
    });
    let shown = |id: &ContentId| seen.as_ref().is_none_or(|seen| seen.contains(id));
    let mut list: Vec<(u64, Executable)> = (symbols.list().into_iter())
        .filter(|executable| shown(&executable.content_id))
        .map(|executable| (by_content.get(&executable.content_id).copied().unwrap_or(0), executable))
        .collect();
    list.sort_by_key(|(samples, _)| std::cmp::Reverse(*samples));
    let rows: Vec<Value> = list
        .iter()
        .map(|(samples, executable)| {
            let mut row = about(executable);
            if let Some(row) = row.as_object_mut() {
                row.insert("samples".into(), (*samples).into());
            }
            row
        })
        .collect();
    let mut answer = covered(&sums.covered);
    answer.insert("executables".into(), rows.into());
    Ok(Value::Object(answer).to_string().into_bytes())
}

/// What is known of one executable.
pub fn about(executable: &Executable) -> Value {
    json!({
        "build_id": executable.build_id,
        "content_id": executable.content_id.to_string(),
        "name": executable.name,
        "functions": executable.functions,
        "named": executable.named,
        "source": executable.source.as_str(),
    })
}
