//! The web application, embedded in the program.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, Uri, header},
    response::IntoResponse,
};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::error::ApiError;

/// Built by `make build` from `ui/`; empty if that has not been done.
#[derive(RustEmbed)]
#[folder = "../../ui/dist"]
struct Files;

const INDEX: &str = "index.html";
/// Folder of files that bear a hash of their content in their names.
const HASHED: &str = "assets/";
/// Nothing from elsewhere, nothing embedded elsewhere.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; \
                      form-action 'self'; frame-ancestors 'none'";
const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><title>Everflame</title>\
    <h1>ui not built: run make build</h1>\
    <p>The API answers: <a href=\"/api/v1/types\">/api/v1/types</a>.</p></html>";

/// A file of the application; its one page stands at `/`.
pub async fn file(uri: Uri) -> Result<Response<Body>, ApiError> {
    let path = uri.path().trim_start_matches('/');
    if let Some(file) = Files::get(path).filter(|_| !path.is_empty()) {
        return Ok(answer(path, file));
    }
    if !path.is_empty() && path != INDEX {
        return Err(ApiError::not_found(format!(
            "there is no /{}: docs/api.md lists what there is",
            path.chars().take(100).collect::<String>()
        )));
    }
    Ok(match Files::get(INDEX) {
        Some(index) => answer(INDEX, index),
        None => html(Body::from(NOT_BUILT)),
    })
}

fn answer(path: &str, file: EmbeddedFile) -> Response<Body> {
    let kind = match path.rsplit('.').next().unwrap_or("") {
        "html" => return html(Body::from(file.data)),
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    };
    let cache = if path.starts_with(HASHED) { "public, max-age=31536000, immutable" } else { "no-cache" };
    let mut response = Response::new(Body::from(file.data));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    // A picture opened on its own is a document as well.
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

fn html(body: Body) -> Response<Body> {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    (StatusCode::OK, headers, body).into_response()
}
