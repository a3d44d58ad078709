//! Request bodies: read within a limit, a time and a budget shared by all requests,
//! and decompressed within the same limit, whatever their bytes claim.

use std::{
    io::Read,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use http_body_util::BodyExt;

use crate::web::error::ApiError;

/// Time in which a body must have come.
pub const BODY_TIME: Duration = Duration::from_secs(60);
/// Bytes of bodies that are held at once by all requests.
pub const HELD_BYTES: usize = 768 << 20;
/// Bytes of a body beyond its limit that are read and thrown away, so that a sender
/// that writes before it reads still hears why it was refused.
pub const DRAINED_BYTES: usize = 256 << 20;
/// Time in which such a sender must go on, before it is answered all the same.
pub const DRAIN_PATIENCE: Duration = Duration::from_secs(2);
/// Largest window of a zstd frame, as a power of two.
const ZSTD_WINDOW_LOG: u32 = 26;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Encoding {
    /// Reads the name of an encoding.
    pub fn parse(name: &str) -> Result<Self, ApiError> {
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            other => Err(ApiError::unsupported_media_type(format!(
                "encoding \"{}\" is not understood: use gzip, zstd or identity",
                other.escape_default()
            ))),
        }
    }

    /// Reads `Content-Encoding`.
    pub fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let value = headers.get(header::CONTENT_ENCODING).map(|v| String::from_utf8_lossy(v.as_bytes()));
        Self::parse(value.as_deref().unwrap_or(""))
    }
}

/// What all requests together may hold.
#[derive(Debug)]
pub struct Budget {
    most: usize,
    held: AtomicUsize,
    /// Requests refused because the budget was used up.
    pub refused: AtomicU64,
}

/// A body and its share of the budget, given back when it is dropped.
#[derive(Debug)]
pub struct Held<'a> {
    budget: &'a Budget,
    bytes: Vec<u8>,
    reserved: usize,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(most: usize) -> Self {
        Self { most, held: AtomicUsize::new(0), refused: AtomicU64::new(0) }
    }

    /// Reads a body of at most `limit` bytes.
    pub async fn read(&self, body: Body, headers: &HeaderMap, limit: usize) -> Result<Held<'_>, ApiError> {
        let reading = self.read_all(body, headers, limit);
        let late =
            || ApiError::timeout(format!("the body did not come within {} s: send it faster", BODY_TIME.as_secs()));
        tokio::time::timeout(BODY_TIME, reading).await.unwrap_or_else(|_| Err(late()))
    }

    async fn read_all(&self, mut body: Body, headers: &HeaderMap, limit: usize) -> Result<Held<'_>, ApiError> {
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
        let mut held = Held { budget: self, bytes: Vec::new(), reserved: 0 };
        let mut drained = 0;
        if announced.is_some_and(|length| length > limit) {
            // What would not be read to its end need not be begun.
            if announced.is_some_and(|length| length <= limit + DRAINED_BYTES) {
                drain(&mut body, &mut drained).await;
            }
            return Err(over(limit));
        }
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| ApiError::bad_request(format!("the body broke off: {e}: send it again")))?;
            let Ok(data) = frame.into_data() else { continue };
            if held.bytes.len() + data.len() > limit {
                drop(held);
                drain(&mut body, &mut drained).await;
                return Err(over(limit));
            }
            held.reserve(data.len())?;
            held.bytes.extend_from_slice(&data);
        }
        Ok(held)
    }
}

impl Held<'_> {
    /// The bytes that came.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes the bytes out, to be given to a thread; the share is held on.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    fn reserve(&mut self, more: usize) -> Result<(), ApiError> {
        let before = self.budget.held.fetch_add(more, Ordering::Relaxed);
        self.reserved += more;
        if before + more > self.budget.most {
            self.budget.refused.fetch_add(1, Ordering::Relaxed);
            return Err(ApiError::busy("the requests being read are too large together: try again in a second"));
        }
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.reserved, Ordering::Relaxed);
    }
}

/// Undoes the compression of a body, into at most `limit` bytes.
pub fn decompress(bytes: Vec<u8>, encoding: Encoding, limit: usize) -> Result<Vec<u8>, ApiError> {
    let broken = |e: std::io::Error| {
        ApiError::bad_request(format!("the compressed body cannot be read: {e}: check its encoding"))
    };
    match encoding {
        Encoding::Identity if bytes.len() > limit => Err(over(limit)),
        Encoding::Identity => Ok(bytes),
        Encoding::Gzip => capped(flate2::read::MultiGzDecoder::new(bytes.as_slice()), bytes.len(), limit, broken),
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes.as_slice()).map_err(broken)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(broken)?;
            capped(decoder, bytes.len(), limit, broken)
        }
    }
}

fn capped(
    reader: impl Read,
    compressed: usize,
    limit: usize,
    broken: impl Fn(std::io::Error) -> ApiError,
) -> Result<Vec<u8>, ApiError> {
    let mut plain = Vec::with_capacity(compressed.saturating_mul(3).min(limit));
    reader.take(limit as u64 + 1).read_to_end(&mut plain).map_err(broken)?;
    if plain.len() > limit { Err(over(limit)) } else { Ok(plain) }
}

async fn drain(body: &mut Body, drained: &mut usize) {
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(DRAIN_PATIENCE, body.frame()).await {
        *drained += frame.data_ref().map_or(0, bytes::Bytes::len);
        if *drained > DRAINED_BYTES {
            return;
        }
    }
}

fn over(limit: usize) -> ApiError {
    ApiError::too_large(format!(
        "the request is over the limit of {limit} bytes after decompression: send smaller ones"
    ))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn a_full_budget_says_so_and_recovers() {
        let budget = Budget::new(100);
        let none = HeaderMap::new();
        let read = |bytes: usize| budget.read(Body::from(vec![7; bytes]), &none, 90);
        let mut held = read(90).await.expect("room");
        assert_eq!(held.take(), vec![7; 90]);
        assert_eq!(read(11).await.expect_err("no room").code, "busy");
        assert_eq!(budget.refused.load(Ordering::Relaxed), 1);
        drop(held);
        assert_eq!(read(91).await.expect_err("over the limit of one").code, "too_large");
        assert!(read(90).await.is_ok());
        assert_eq!(budget.held.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_sender_that_announces_too_much_and_stops_hears_so() {
        let budget = Budget::new(100);
        for length in ["91", "99999999999999"] {
            let headers = HeaderMap::from_iter([(header::CONTENT_LENGTH, length.parse().expect("a number"))]);
            assert_eq!(
                budget.read(Body::new(Silent), &headers, 90).await.expect_err("too long").code,
                "too_large",
                "{length}"
            );
        }
    }

    /// A body that never comes.
    struct Silent;

    impl axum::body::HttpBody for Silent {
        type Data = bytes::Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }

    #[test]
    fn the_limit_holds_to_the_byte() {
        let gzip = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).expect("bytes");
            encoder.finish().expect("gzip")
        };
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).expect("zstd");
        for length in [0, 999, 1_000, 1_001] {
            let plain = vec![3; length];
            let coded =
                [(Encoding::Identity, plain.clone()), (Encoding::Gzip, gzip(&plain)), (Encoding::Zstd, zstd(&plain))];
            for (encoding, bytes) in coded {
                match decompress(bytes, encoding, 1_000) {
                    Ok(back) => assert!(length <= 1_000 && back == plain, "{encoding:?} {length}"),
                    Err(error) => assert!(length > 1_000 && error.code == "too_large", "{encoding:?} {length} {error}"),
                }
            }
        }
    }
}
