//! The handlers: parameters first, then the work on a thread, then the answer.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{HeaderValue, Response, StatusCode, Uri, header},
};

use everflame_profile::Selector;

use super::{error::ApiError, metrics as counters};
use crate::{
    access::{Caller, Role},
    app::App,
    ingest::body::{self, Encoding},
    query::{
        accounting as accounts, diff as difference, flamegraph as flame, labels as label, mesh, nodes as agents,
        processes as process, series as time_series, symbols as executables, top as table,
    },
    symbols::{MAX_INDEX_BYTES, Put},
};

type Answer = Result<Response<Body>, ApiError>;
type Shared = State<Arc<App>>;
/// The variable part of a path.
type Named = Result<Path<String>, PathRejection>;

/// The tree of a flame graph.
pub async fn flamegraph(State(app): Shared, caller: Caller, uri: Uri) -> Answer {
    let request = flame::Request::new(&uri)?;
    app.query(&caller, move |app, store| request.answer(store, &app.symbols)).await.map(json)
}

/// Top functions, files or mappings.
pub async fn top(State(app): Shared, caller: Caller, uri: Uri) -> Answer {
    let request = table::Request::new(&uri)?;
    app.query(&caller, move |app, store| request.answer(store, &app.symbols)).await.map(json)
}

/// Two selections in one tree.
pub async fn diff(State(app): Shared, caller: Caller, uri: Uri) -> Answer {
    let request = difference::Request::new(&uri)?;
    app.query(&caller, move |app, store| request.answer(store, &app.symbols)).await.map(json)
}

/// Sums by time.
pub async fn series(State(app): Shared, caller: Caller, uri: Uri) -> Answer {
    let request = time_series::Request::new(&uri)?;
    app.query(&caller, move |_, store| request.answer(store)).await.map(json)
}

/// Sample types.
pub async fn types(State(app): Shared, caller: Caller) -> Answer {
    app.query(&caller, |_, store| agents::types(store)).await.map(json)
}

/// Names of labels.
pub async fn labels(State(app): Shared, caller: Caller, uri: Uri) -> Answer {
    let request = label::Names::new(&uri)?;
    app.query(&caller, move |_, store| request.answer(store)).await.map(json)
}

/// Values of a label.
pub async fn label_values(State(app): Shared, caller: Caller, name: Named, uri: Uri) -> Answer {
    let Path(name) = name.map_err(not_text)?;
    let request = label::Values::new(&name, &uri)?;
    app.query(&caller, move |_, store| request.answer(store)).await.map(json)
}

/// Processes.
pub async fn processes(State(app): Shared, caller: Caller, uri: Uri) -> Answer {
    let selection = process::request(&uri)?;
    app.query(&caller, move |_, store| process::answer(store, &selection)).await.map(json)
}

/// What the proxies of a mesh cost.
pub async fn mesh(State(app): Shared, caller: Caller, uri: Uri) -> Answer {
    let request = mesh::Request::new(&uri)?;
    app.query(&caller, move |_, store| request.answer(store)).await.map(json)
}

/// Agents.
pub async fn nodes(State(app): Shared, caller: Caller) -> Answer {
    app.query(&caller, |_, store| agents::answer(store)).await.map(json)
}

/// Where every sample is.
pub async fn accounting(State(app): Shared, caller: Caller) -> Answer {
    app.query(&caller, |_, store| accounts::answer(store)).await.map(json)
}

/// Executables with an index.
pub async fn symbols(State(app): Shared, caller: Caller, uri: Uri) -> Answer {
    let selection = executables::request(&uri)?;
    app.query(&caller, move |app, store| executables::answer(store, &app.symbols, &selection)).await.map(json)
}

/// One executable.
pub async fn symbol(State(app): Shared, caller: Caller, id: Named) -> Answer {
    let Path(id) = id.map_err(not_text)?;
    let found = app.query(&caller, move |app, _| Ok(app.symbols.get(&id))).await?;
    let found = found.ok_or_else(|| ApiError::not_found("no index of this executable: PUT one here"))?;
    Ok(json(executables::about(&found).to_string().into_bytes()))
}

/// Takes an index.
pub async fn put_symbols(State(app): Shared, caller: Caller, id: Named, request: Request) -> Answer {
    let Path(id) = id.map_err(not_text)?;
    let (parts, body) = request.into_parts();
    let encoding = Encoding::of(&parts.headers)?;
    let mut held = app.budget.read(body, &parts.headers, MAX_INDEX_BYTES).await?;
    let bytes = held.take();
    // Names under a build id are believed for the whole fleet.
    let may_vouch = caller.role == Role::Admin;
    let put = app.query(&caller, move |app, _| {
        let bytes = body::decompress(bytes, encoding, MAX_INDEX_BYTES)?;
        app.symbols.put(&id, &bytes, may_vouch)
    });
    match put.await? {
        Put::Created => {
            let mut response = json(b"{}".to_vec());
            *response.status_mut() = StatusCode::CREATED;
            Ok(response)
        }
        Put::Stands => Err(ApiError::conflict("an index that is at least as good stands there: nothing to do")),
    }
}

/// Alive.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether ingest and queries work.
pub async fn readyz(State(app): Shared) -> Result<&'static str, ApiError> {
    let probed = app.clone();
    app.probe_lane.run(move || Ok(probed.whole_store.types(&Selector::default())?)).await?;
    Ok("ready\n")
}

/// Prometheus metrics.
pub async fn metrics(State(app): Shared) -> Answer {
    let probed = app.clone();
    let text = app.probe_lane.run(move || Ok(counters::write(&probed))).await?;
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

fn not_text(rejection: PathRejection) -> ApiError {
    ApiError::bad_request(format!("the path cannot be read: {rejection}: send UTF-8, percent-encoded"))
}

/// An answer in JSON.
pub fn json(bytes: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
