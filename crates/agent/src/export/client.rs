//! One request to the server over gRPC, and what its answer means for the batch.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use everflame_profile::{
    Report,
    report::{REPORT_HEADER, SERVER_HEADER},
};
use http::{HeaderValue, uri::PathAndQuery};
use http_body_util::BodyExt;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceResponse;
use prost::Message;
use tonic::{
    Code, Request, Status,
    body::Body,
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::Service,
    metadata::{AsciiMetadataValue, MetadataKey},
    transport::{Channel, Endpoint},
};

use super::{connect, credentials::Credentials, pack::unpack};
use crate::tls::Roots;

const METHOD: &str = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export";
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// What became of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The server has it for good; it may have something to say about parts of it. `ours`: it is an
    /// Everflame server.
    Stored { warning: Option<String>, ours: bool },
    /// It will never take it.
    Refused(String),
    /// It does not have it, or did not say.
    Retry { why: String, after: Option<Duration> },
}

/// A connection that comes back by itself.
pub(super) struct Client {
    channel: Channel,
    credentials: Credentials,
    compression: Option<CompressionEncoding>,
}

/// Checks an endpoint.
pub(super) fn endpoint(text: &str) -> Result<Endpoint, String> {
    let url = if text.contains("://") { text.to_string() } else { format!("http://{text}") };
    let endpoint = Endpoint::from_shared(url).map_err(|e| e.to_string())?;
    if !matches!(endpoint.uri().scheme_str(), Some("http" | "https")) || endpoint.uri().host().is_none() {
        return Err("write it as http://HOST:PORT or https://HOST:PORT".to_string());
    }
    let agent = concat!("everflame/", env!("CARGO_PKG_VERSION"));
    let endpoint = endpoint.user_agent(agent).map_err(|e| e.to_string())?;
    Ok(endpoint.connect_timeout(CONNECT_WITHIN).timeout(ANSWER_WITHIN).tcp_nodelay(true))
}

impl Client {
    /// Connects with the first request. Needs a tokio runtime.
    pub fn new(endpoint: &Endpoint, roots: Roots, credentials: Credentials) -> Self {
        Self { channel: connect::channel(endpoint, roots), credentials, compression: Some(CompressionEncoding::Zstd) }
    }

    /// Sends one request (as `pack` made it; empty for none) with a report.
    pub async fn export(&mut self, packed: Bytes, report: Option<&Report>) -> Outcome {
        let compression = self.compression.filter(|_| !packed.is_empty());
        let as_packed = compression == Some(CompressionEncoding::Zstd);
        let request = match as_packed || packed.is_empty() {
            true => packed,
            false => match unpack(&packed) {
                Ok(request) => request.into(),
                Err(e) => return Outcome::Refused(format!("the batch cannot be decompressed: {e}")),
            },
        };
        let request = match self.with_headers(request, report) {
            Ok(request) => request,
            Err(why) => return Outcome::Retry { why, after: None },
        };
        let mut grpc = tonic::client::Grpc::new(Packed { channel: self.channel.clone(), as_packed });
        if let Some(encoding) = compression.filter(|_| !as_packed) {
            grpc = grpc.send_compressed(encoding);
        }
        if let Err(e) = grpc.ready().await {
            return Outcome::Retry { why: chain(&e), after: None };
        }
        match grpc.unary(request, PathAndQuery::from_static(METHOD), BytesCodec).await {
            Ok(response) => {
                let ours = response.metadata().contains_key(SERVER_HEADER);
                Outcome::Stored { warning: warning(response.into_inner()), ours }
            }
            Err(status) => self.judge(&status),
        }
    }

    fn with_headers(&self, request: Bytes, report: Option<&Report>) -> Result<Request<Bytes>, String> {
        let mut request = Request::new(request);
        let metadata = request.metadata_mut();
        for (name, value) in self.credentials.read().map_err(|e| e.to_string())? {
            let key = MetadataKey::from_bytes(name.as_str().as_bytes()).map_err(|e| e.to_string())?;
            let mut text = AsciiMetadataValue::try_from(value.as_bytes()).map_err(|e| e.to_string())?;
            text.set_sensitive(value.is_sensitive());
            metadata.insert(key, text);
        }
        if let Some(report) = report {
            let json = serde_json::to_string(report).map_err(|e| e.to_string())?;
            metadata.insert(REPORT_HEADER, ascii(&json).parse().map_err(|_| "the report is no header".to_string())?);
        }
        Ok(request)
    }

    fn judge(&mut self, status: &Status) -> Outcome {
        let why = match refused_by(status.code(), self.credentials.have_a_source()) {
            Some(what) => format!("{what} ({})", status.message()),
            None => format!("{:?}: {}", status.code(), chain(status)),
        };
        let after = retry_delay(status);
        match status.code() {
            // A server that cannot read this compression says so; one that is none at all
            // says the same, and then less compression does no harm.
            Code::Unimplemented => {
                self.compression = match self.compression {
                    Some(CompressionEncoding::Zstd) => Some(CompressionEncoding::Gzip),
                    _ => None,
                };
                Outcome::Retry { why, after }
            }
            Code::Unauthenticated | Code::PermissionDenied => {
                self.credentials.refused();
                Outcome::Retry { why, after }
            }
            Code::InvalidArgument => Outcome::Refused(why),
            Code::ResourceExhausted if after.is_none() => Outcome::Refused(why),
            // How tonic servers say that a message is over their limit.
            Code::OutOfRange if status.message().contains("too large") => Outcome::Refused(why),
            // Everything else can be mended at the other end (a token, a version, a disk),
            // and until then the spool holds what it can.
            _ => Outcome::Retry { why, after },
        }
    }
}

/// A channel whose messages are compressed before they come to it, which tonic cannot know.
#[derive(Debug, Clone)]
struct Packed {
    channel: Channel,
    as_packed: bool,
}

impl Service<http::Request<Body>> for Packed {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = <Channel as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if self.as_packed {
            request.headers_mut().insert("grpc-encoding", HeaderValue::from_static("zstd"));
            request = request.map(|body| {
                let mut first = true;
                Body::new(body.map_frame(move |frame| {
                    frame.map_data(|bytes| match std::mem::take(&mut first) {
                        true => flagged(bytes),
                        false => bytes,
                    })
                }))
            });
        }
        self.channel.call(request)
    }
}

/// The beginning of a message with the first byte, its flag, saying that it is compressed.
fn flagged(bytes: Bytes) -> Bytes {
    let mut bytes = BytesMut::from(bytes);
    if let Some(flag) = bytes.first_mut() {
        *flag = 1;
    }
    bytes.freeze()
}

/// What a server said about a request that it took.
fn warning(response: ExportProfilesServiceResponse) -> Option<String> {
    let partial = response.partial_success?;
    let said = partial.rejected_profiles != 0 || !partial.error_message.is_empty();
    said.then(|| format!("{} profiles rejected: {}", partial.rejected_profiles, partial.error_message))
}

/// What a refusal of who we are means, which new credentials can mend.
fn refused_by(code: Code, from_a_source: bool) -> Option<&'static str> {
    match code {
        Code::Unauthenticated | Code::PermissionDenied if from_a_source => Some(
            "401 or 403: the server does not accept the key of the secret (--secret, --also), which is fetched again: \
             put one that may write there into it",
        ),
        Code::Unauthenticated => Some(
            "401: the server does not accept our token: put a valid one of role agent into the file of --token-file \
             (token-file= of --also), which is read again by itself",
        ),
        Code::PermissionDenied => {
            Some("403: the server does not let us write: give --token-file a token of role agent")
        }
        _ => None,
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// JSON with everything beyond ASCII escaped, since headers hold nothing else.
fn ascii(json: &str) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            text.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(text, "\\u{unit:04x}").expect("a string takes any text");
            }
        }
    }
    text
}

/// The delay of a `google.rpc.RetryInfo` in the status's details.
fn retry_delay(status: &Status) -> Option<Duration> {
    #[derive(Message)]
    struct Details {
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
        #[prost(int32, tag = "2")]
        nanos: i32,
    }
    let details = Details::decode(status.details()).ok()?.details;
    let info = details.into_iter().find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay.unwrap_or_default();
    Some(Duration::new(
        u64::try_from(delay.seconds).unwrap_or(0),
        u32::try_from(delay.nanos).unwrap_or(0) % 1_000_000_000,
    ))
}

/// Sends bytes that are a protobuf message already.
#[derive(Debug, Clone, Copy)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = ExportProfilesServiceResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = ExportProfilesServiceResponse;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        Message::decode(bytes).map(Some).map_err(|e| Status::internal(format!("the server's answer: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        assert_eq!(endpoint("127.0.0.1:4040").unwrap().uri(), "http://127.0.0.1:4040/");
        assert!(endpoint("http://server:4040").is_ok());
        assert!(endpoint("https://server").is_ok());
        for bad in ["", "http://", "http://a b", "ftp://x:1"] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reports_fit_a_header() {
        let json = ascii("{\"node\":\"knörz😀\"}");
        assert!(json.is_ascii());
        let back: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(back["node"], "knörz😀");
    }
}
