//! OTLP over gRPC: `ProfilesService/Export`, one message in and one out.
//!
//! The framing is done here rather than by a generated server so that one pipeline
//! with one set of limits serves both transports: what a message claims to be long
//! reserves nothing, and every refusal has the code that the contract names.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};
use bytes::{BufMut, Bytes, BytesMut};
use everflame_profile::report::SERVER_HEADER;
use http_body_util::{BodyExt, Full};
use prost::Message;
use tonic::{Code, Status};

use super::{body::Encoding, report};
use crate::{access::Caller, app::App, web::error::ApiError};

/// Path of the method.
pub const EXPORT: &str = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export";
/// A flag and a length stand before a message.
const PREFIX: usize = 5;

/// Takes one request.
pub async fn export(State(app): State<Arc<App>>, caller: Caller, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    match take(&app, &caller, &parts.headers, body).await {
        Ok(message) => success(message),
        Err(error) => refusal(&error),
    }
}

/// Whether a request speaks gRPC, so that its refusals must too.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"))
}

/// An error as a gRPC answer: trailers only.
pub fn refusal(error: &ApiError) -> Response<Body> {
    let code = match error.status {
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Code::InvalidArgument,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND | StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::Unimplemented,
        StatusCode::REQUEST_TIMEOUT => Code::DeadlineExceeded,
        StatusCode::PAYLOAD_TOO_LARGE => Code::ResourceExhausted,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        _ => Code::Internal,
    };
    let status = if error.retryable() {
        Status::with_details(code, error.message.clone(), retry_details(code, error))
    } else {
        Status::new(code, error.message.clone())
    };
    status.into_http()
}

async fn take(app: &Arc<App>, caller: &Caller, headers: &HeaderMap, body: Body) -> Result<Vec<u8>, ApiError> {
    if !is_grpc(headers) {
        return Err(ApiError::unsupported_media_type("this method speaks gRPC: send content type application/grpc"));
    }
    let limit = app.config.max_request_bytes;
    let report = report(headers)?;
    let named = headers.get("grpc-encoding").map(|v| String::from_utf8_lossy(v.as_bytes()));
    let mut held = app.budget.read(body, headers, limit.saturating_add(PREFIX)).await?;
    let compressed = check_frame(held.bytes(), limit)?;
    let encoding = if compressed { Encoding::parse(named.as_deref().unwrap_or(""))? } else { Encoding::Identity };
    let mut bytes = held.take();
    bytes.drain(..PREFIX);
    Ok(app.ingest(caller, bytes, encoding, report).await?.encode_to_vec())
}

/// Checks that a body is exactly one message, and answers whether it is compressed.
fn check_frame(body: &[u8], limit: usize) -> Result<bool, ApiError> {
    let [flag, a, b, c, d, message @ ..] = body else {
        return Err(ApiError::bad_request("the body is not a gRPC message: it is shorter than its prefix"));
    };
    let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
    if length > limit {
        return Err(ApiError::too_large(format!(
            "a message of {length} bytes is over the limit of {limit}: send smaller ones"
        )));
    }
    if length != message.len() {
        let came = message.len();
        return Err(ApiError::bad_request(format!(
            "the message says {length} bytes but {came} came: send one message"
        )));
    }
    match flag {
        0 => Ok(false),
        1 => Ok(true),
        flag => Err(ApiError::bad_request(format!("flag {flag} of the message is not known: use 0 or 1"))),
    }
}

fn success(message: Vec<u8>) -> Response<Body> {
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(&message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(frame.freeze()).with_trailers(async move { Some(Ok(trailers)) });
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity,gzip,zstd"));
    headers.insert(SERVER_HEADER, HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
    response
}

/// `google.rpc.Status` with a `google.rpc.RetryInfo`, by their published definitions.
fn retry_details(code: Code, error: &ApiError) -> Bytes {
    #[derive(Message)]
    struct Details {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
        #[prost(message, repeated, tag = "3")]
        details: Vec<Any>,
    }
    #[derive(Message)]
    struct Any {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }
    #[derive(Message)]
    struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        retry_delay: Option<Delay>,
    }
    #[derive(Message)]
    struct Delay {
        #[prost(int64, tag = "1")]
        seconds: i64,
    }
    let retry = RetryInfo { retry_delay: Some(Delay { seconds: i64::from(error.retry_seconds) }) };
    let any = Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(), value: retry.encode_to_vec() };
    let details = Details { code: code as i32, message: error.message.clone(), details: vec![any] };
    details.encode_to_vec().into()
}
