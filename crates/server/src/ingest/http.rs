//! OTLP over HTTP: `POST /v1development/profiles`, protobuf in and out.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Response, header},
};
use prost::Message;

use super::{body::Encoding, report};
use crate::{access::Caller, app::App, web::error::ApiError};

const PROTOBUF: &str = "application/x-protobuf";

/// Takes one request.
pub async fn export(State(app): State<Arc<App>>, caller: Caller, request: Request) -> Result<Response<Body>, ApiError> {
    let (parts, body) = request.into_parts();
    is_protobuf(&parts.headers)?;
    let encoding = Encoding::of(&parts.headers)?;
    let report = report(&parts.headers)?;
    let mut held = app.budget.read(body, &parts.headers, app.config.max_request_bytes).await?;
    let answer = app.ingest(&caller, held.take(), encoding, report).await?;
    let mut response = Response::new(Body::from(answer.encode_to_vec()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
    Ok(response)
}

fn is_protobuf(headers: &HeaderMap) -> Result<(), ApiError> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let essence = value.split(';').next().unwrap_or("").trim();
    if essence.eq_ignore_ascii_case(PROTOBUF) || essence.eq_ignore_ascii_case("application/protobuf") {
        return Ok(());
    }
    Err(ApiError::unsupported_media_type(format!(
        "content type \"{}\" is not understood: send {PROTOBUF}",
        essence.escape_default()
    )))
}
