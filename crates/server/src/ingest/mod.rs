//! Ingest: bytes of a request to a batch in the store. What answers success is on disk.

pub mod body;
pub mod grpc;
pub mod http;

use std::sync::{Arc, atomic::Ordering};

use ::http::HeaderMap;
use everflame_profile::{Report, otlp, report::REPORT_HEADER};
use everflame_store::{Append, Appended, Store};
use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesPartialSuccess, ExportProfilesServiceResponse,
};

use self::body::Encoding;
use crate::{
    access::{Caller, Scoped},
    app::App,
    query::time,
    web::error::ApiError,
};

/// Longest value of the header `everflame-report`.
pub const MAX_REPORT_BYTES: usize = 16 << 10;
/// Bytes of memory that one decoded request may take.
pub const MAX_DECODED_BYTES: usize = 512 << 20;
/// Most stages, reasons and executables in a report.
pub const MAX_REPORT_KEYS: usize = 64;

/// Reads the sender's report, where there is one.
pub fn report(headers: &HeaderMap) -> Result<Option<Report>, ApiError> {
    let Some(value) = headers.get(REPORT_HEADER) else { return Ok(None) };
    let wrong = |what: String| ApiError::bad_request(format!("header {REPORT_HEADER}: {what}"));
    if value.len() > MAX_REPORT_BYTES {
        return Err(wrong(format!("longer than {MAX_REPORT_BYTES} bytes: shorten it")));
    }
    let report: Report =
        serde_json::from_slice(value.as_bytes()).map_err(|e| wrong(format!("not the JSON of a report: {e}")))?;
    if report.instance.len() != 32 || !report.instance.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(wrong("instance must be 32 hexadecimal digits".to_owned()));
    }
    if report.in_flight.len() > MAX_REPORT_KEYS || report.dropped.len() > MAX_REPORT_KEYS {
        return Err(wrong(format!("more than {MAX_REPORT_KEYS} stages or reasons: merge some")));
    }
    let opinion = report.second_opinion.as_ref();
    if opinion.is_some_and(|o| o.executables.len() > MAX_REPORT_KEYS || o.not_judged.len() > MAX_REPORT_KEYS) {
        return Err(wrong(format!("more than {MAX_REPORT_KEYS} executables or reasons: merge some")));
    }
    Ok(Some(report))
}

impl App {
    /// Decodes and stores what one request carried.
    pub async fn ingest(
        self: &Arc<Self>,
        caller: &Caller,
        bytes: Vec<u8>,
        encoding: Encoding,
        report: Option<Report>,
    ) -> Result<ExportProfilesServiceResponse, ApiError> {
        let (app, store) = (self.clone(), self.store(caller));
        let counters = &self.metrics.ingest;
        counters.requests.fetch_add(1, Ordering::Relaxed);
        counters.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let outcome = self.ingest_lane.run(move || app.store_request(&store, bytes, encoding, report)).await;
        if outcome.is_err() {
            counters.refused.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    fn store_request(
        &self,
        store: &Scoped,
        bytes: Vec<u8>,
        encoding: Encoding,
        report: Option<Report>,
    ) -> Result<ExportProfilesServiceResponse, ApiError> {
        let plain = body::decompress(bytes, encoding, self.config.max_request_bytes)?;
        let limits = otlp::Limits { memory_bytes: MAX_DECODED_BYTES, ..otlp::Limits::default() };
        let mut decoded = otlp::decode_bytes(&plain, &limits)
            .map_err(|e| ApiError::bad_request(format!("the body is not an OTLP profiles request: {e}")))?;
        drop(plain);
        let appended = store.take(Append {
            batch: std::mem::take(&mut decoded.batch),
            invalid: decoded.rejected_samples,
            report,
            received: time::now(),
        })?;
        let counters = &self.metrics.ingest;
        counters.samples.fetch_add(appended.stored, Ordering::Relaxed);
        counters.duplicates.fetch_add(appended.duplicates, Ordering::Relaxed);
        counters.rejected_future.fetch_add(appended.rejected_future, Ordering::Relaxed);
        counters.rejected_old.fetch_add(appended.rejected_old, Ordering::Relaxed);
        counters.rejected_limit.fetch_add(appended.rejected_limit, Ordering::Relaxed);
        counters.rejected_invalid.fetch_add(decoded.rejected_samples, Ordering::Relaxed);
        counters.skipped_attributes.fetch_add(decoded.skipped_attributes, Ordering::Relaxed);
        Ok(ExportProfilesServiceResponse { partial_success: partial_success(&decoded, &appended) })
    }
}

/// What the sender is told about the part that was not taken.
fn partial_success(decoded: &otlp::Decoded, appended: &Appended) -> Option<ExportProfilesPartialSuccess> {
    let causes = [
        (appended.rejected_future, "more than 5 minutes in the future: check the sender's clock"),
        (appended.rejected_old, "older than the retention: send earlier or keep longer"),
        (appended.rejected_limit, "over a limit of the store: send fewer distinct labels"),
    ];
    let by_store: u64 = causes.iter().map(|(samples, _)| samples).sum();
    let samples = by_store + decoded.rejected_samples;
    let profiles = decoded.rejected_profiles + appended.rejected_profiles;
    if samples == 0 && profiles == 0 {
        return None;
    }
    let first = (decoded.first_cause.as_deref())
        .or_else(|| causes.iter().find(|(samples, _)| *samples > 0).map(|(_, cause)| *cause))
        .unwrap_or("not said");
    Some(ExportProfilesPartialSuccess {
        rejected_profiles: i64::try_from(profiles).unwrap_or(i64::MAX),
        error_message: format!("{samples} samples rejected; first cause: {first}"),
    })
}
