//! The routes of the one port, as a table that the checked-in OpenAPI document is
//! tested against, and what stands around every request.

mod account;
pub mod error;
pub mod guard;
pub mod metrics;
mod pages;
pub mod ui;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Response, header},
    middleware::{self, Next},
    response::IntoResponse,
    routing::{MethodRouter, delete, get, head, post, put},
};

use self::error::ApiError;
use crate::{
    access::{self, Needs},
    app::App,
    ingest::{grpc, http},
};

/// A route: method, path (parameters in braces), whom it is for, and what answers.
type Route = (&'static str, &'static str, Needs, MethodRouter<Arc<App>>);

/// Path of OTLP over HTTP.
const OTLP_HTTP: &str = "/v1development/profiles";

/// Headers of every answer.
const ALWAYS: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

fn routes() -> Vec<Route> {
    vec![
        ("GET", "/api/v1/flamegraph", Needs::Reader, get(pages::flamegraph)),
        ("GET", "/api/v1/top", Needs::Reader, get(pages::top)),
        ("GET", "/api/v1/series", Needs::Reader, get(pages::series)),
        ("GET", "/api/v1/diff", Needs::Reader, get(pages::diff)),
        ("GET", "/api/v1/types", Needs::Reader, get(pages::types)),
        ("GET", "/api/v1/labels", Needs::Reader, get(pages::labels)),
        ("GET", "/api/v1/labels/{name}/values", Needs::Reader, get(pages::label_values)),
        ("GET", "/api/v1/processes", Needs::Reader, get(pages::processes)),
        ("GET", "/api/v1/mesh", Needs::Reader, get(pages::mesh)),
        ("GET", "/api/v1/nodes", Needs::Reader, get(pages::nodes)),
        ("GET", "/api/v1/accounting", Needs::Reader, get(pages::accounting)),
        ("GET", "/api/v1/symbols", Needs::Reader, get(pages::symbols)),
        ("PUT", "/api/v1/symbols/{id}", Needs::Writer, put(pages::put_symbols)),
        ("HEAD", "/api/v1/symbols/{id}", Needs::Index, head(pages::symbol)),
        ("GET", "/api/v1/symbols/{id}", Needs::Index, get(pages::symbol)),
        ("POST", OTLP_HTTP, Needs::Writer, post(http::export)),
        ("POST", grpc::EXPORT, Needs::Writer, post(grpc::export)),
        ("GET", "/api/v1/session", Needs::Token, get(account::session)),
        ("POST", "/api/v1/session", Needs::Nothing, post(account::log_in)),
        ("DELETE", "/api/v1/session", Needs::Nothing, delete(account::log_out)),
        ("GET", "/api/v1/tokens", Needs::Admin, get(account::tokens)),
        ("POST", "/api/v1/tokens", Needs::Admin, post(account::create)),
        ("POST", "/api/v1/tokens/{id}/rotate", Needs::Admin, post(account::rotate)),
        ("DELETE", "/api/v1/tokens/{id}", Needs::Admin, delete(account::revoke)),
        ("GET", "/metrics", Needs::Figures, get(pages::metrics)),
        ("GET", "/healthz", Needs::Nothing, get(pages::healthz)),
        ("GET", "/readyz", Needs::Nothing, get(pages::readyz)),
    ]
}

/// Methods and paths of all routes but the web application's files.
pub fn route_names() -> Vec<(&'static str, &'static str)> {
    routes().into_iter().map(|(method, path, ..)| (method, path)).collect()
}

/// The whole port.
pub fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for (method, path, needs, answer) in routes() {
        let answer = answer.route_layer(middleware::from_fn_with_state((app.clone(), needs), access::check));
        // A GET route answers HEAD as well.
        if method != "HEAD" {
            router = router.route(path, answer);
        }
    }
    router
        .fallback(fallback)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(app.clone(), guard::guard))
        .layer(middleware::from_fn_with_state(app.clone(), around))
        .with_state(app)
}

/// Everything that has no route: the web application for GET, else nothing.
async fn fallback(request: Request) -> Response<Body> {
    if grpc::is_grpc(request.headers()) {
        let path = request.uri().path();
        return grpc::refusal(&ApiError::not_found(format!("there is no method {path}: use {}", grpc::EXPORT)));
    }
    if !matches!(request.method().as_str(), "GET" | "HEAD") {
        return ApiError::not_found("there is nothing to send to here: docs/api.md lists what there is")
            .into_response();
    }
    ui::file(request.uri().clone()).await.into_response()
}

async fn wrong_method(request: Request) -> ApiError {
    let (method, path) = (request.method(), request.uri().path());
    ApiError::method_not_allowed(format!("{path} does not take {method}: the header Allow says what it takes"))
}

/// Counts the answer and adds the headers that every answer has.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response<Body> {
    let mut response = next.run(request).await;
    app.metrics.answered(response.status().as_u16());
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
