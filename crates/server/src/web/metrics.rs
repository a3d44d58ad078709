//! Counters of the server and `/metrics`, in Prometheus' text form.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

use everflame_store::StoreStats;

use crate::app::App;

/// Statuses that are counted on their own; index 0 is all others.
const STATUSES: [u16; 17] = [0, 200, 201, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 500, 503, 304];

/// Counters of ingest.
#[derive(Debug, Default)]
pub struct IngestCounters {
    /// Requests.
    pub requests: AtomicU64,
    /// Requests of which nothing was stored.
    pub refused: AtomicU64,
    /// Bytes as they came.
    pub bytes: AtomicU64,
    /// Samples stored.
    pub samples: AtomicU64,
    /// Samples that had been stored before.
    pub duplicates: AtomicU64,
    /// Samples too far in the future.
    pub rejected_future: AtomicU64,
    /// Samples older than the retention.
    pub rejected_old: AtomicU64,
    /// Samples over a limit of the store.
    pub rejected_limit: AtomicU64,
    /// Samples that were not well formed.
    pub rejected_invalid: AtomicU64,
    /// Attributes left out.
    pub skipped_attributes: AtomicU64,
}

/// Counters of the server.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Of ingest.
    pub ingest: IngestCounters,
    /// Requests refused because of the name they bore.
    pub refused_names: AtomicU64,
    /// Requests refused because of who made them.
    pub refused_callers: AtomicU64,
    /// Connections whose TLS handshake failed.
    pub failed_handshakes: AtomicU64,
    /// Connections refused because their address had too many.
    pub refused_connections: AtomicU64,
    responses: [AtomicU64; STATUSES.len()],
}

impl Metrics {
    /// Counts an answer.
    pub fn answered(&self, status: u16) {
        let at = STATUSES.iter().position(|s| *s == status).unwrap_or(0);
        if let Some(counter) = self.responses.get(at) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// All metrics of a server.
pub fn write(app: &App) -> String {
    let mut text = Text(String::with_capacity(8 << 10));
    text.head("everflame_build_info", "gauge", "The version that runs.");
    text.sample("everflame_build_info", &format!("{{version=\"{}\"}}", escaped(&app.config.version)), 1);

    let metrics = &app.metrics;
    let name = "everflame_http_responses_total";
    text.head(name, "counter", "Answers by status.");
    for (status, counter) in STATUSES.iter().zip(&metrics.responses) {
        let label = if *status == 0 { "other".to_owned() } else { status.to_string() };
        text.sample(name, &format!("{{status=\"{label}\"}}"), counter.load(Ordering::Relaxed));
    }
    text.counter("everflame_refused_names_total", "Requests whose Host or Origin is not ours.", &metrics.refused_names);

    access(&mut text, app);

    let ingest = &metrics.ingest;
    text.counter("everflame_ingest_requests_total", "Ingest requests.", &ingest.requests);
    text.counter("everflame_ingest_refused_total", "Ingest requests of which nothing was stored.", &ingest.refused);
    text.counter("everflame_ingest_bytes_total", "Bytes of ingest requests as they came.", &ingest.bytes);
    text.counter("everflame_ingest_samples_total", "Samples stored.", &ingest.samples);
    text.counter("everflame_ingest_duplicates_total", "Samples that had been stored before.", &ingest.duplicates);
    let name = "everflame_ingest_rejected_samples_total";
    text.head(name, "counter", "Samples rejected, by cause.");
    let causes = [
        ("future", &ingest.rejected_future),
        ("old", &ingest.rejected_old),
        ("limit", &ingest.rejected_limit),
        ("invalid", &ingest.rejected_invalid),
    ];
    for (cause, counter) in causes {
        text.sample(name, &format!("{{cause=\"{cause}\"}}"), counter.load(Ordering::Relaxed));
    }
    text.counter("everflame_ingest_skipped_attributes_total", "Attributes left out.", &ingest.skipped_attributes);
    text.counter("everflame_body_budget_refused_total", "Requests over the budget of bodies.", &app.budget.refused);
    let name = "everflame_busy_total";
    text.head(name, "counter", "Requests told to come again, by lane.");
    for (lane, refused) in [("ingest", &app.ingest_lane.refused), ("query", &app.query_lane.refused)] {
        text.sample(name, &format!("{{lane=\"{lane}\"}}"), refused.load(Ordering::Relaxed));
    }

    store(&mut text, &app.whole_store.stats());

    let counters = &app.symbols.counters;
    let ((bytes, files), (mapped_bytes, mapped)) = (app.symbols.stored(), app.symbols.mapped());
    text.gauge("everflame_symbols_files", "Symbol indexes on disk.", files as u64);
    text.gauge("everflame_symbols_bytes", "Bytes of symbol indexes on disk.", bytes);
    text.gauge("everflame_symbols_mapped_files", "Symbol indexes that are mapped.", mapped as u64);
    text.gauge("everflame_symbols_mapped_bytes", "Bytes of them.", mapped_bytes);
    text.counter("everflame_symbols_stored_total", "Symbol indexes stored.", &counters.stored);
    text.counter("everflame_symbols_refused_total", "Uploads refused because they were broken.", &counters.refused);
    text.counter("everflame_symbols_evicted_total", "Symbol indexes deleted to keep within bounds.", &counters.evicted);
    text.counter("everflame_symbols_unmapped_total", "Symbol indexes unmapped for others.", &counters.unmapped);
    text.counter("everflame_symbols_unreadable_total", "Files left aside as unreadable.", &counters.unreadable);
    process(&mut text);
    text.0
}

fn store(text: &mut Text, stats: &StoreStats) {
    let gauges = [
        ("everflame_store_head_rows", "Rows in memory.", stats.head_rows),
        ("everflame_store_block_rows", "Rows in blocks.", stats.block_rows),
        ("everflame_store_blocks", "Blocks.", stats.blocks),
        ("everflame_store_block_bytes", "Bytes of blocks.", stats.block_bytes),
        ("everflame_store_wal_bytes", "Bytes of the write-ahead log.", stats.wal_bytes),
        ("everflame_store_cache_bytes", "Bytes of caches.", stats.cache_bytes),
        ("everflame_store_series", "Series known.", stats.series),
        ("everflame_store_series_limit", "Most series.", stats.series_limit),
    ];
    for (name, help, value) in gauges {
        text.gauge(name, help, value);
    }
    let counters = [
        ("everflame_store_stored_samples_total", "Samples stored since start.", stats.stored),
        ("everflame_store_duplicate_samples_total", "Duplicate samples since start.", stats.duplicates),
        ("everflame_store_dedup_evicted_total", "Profile ids that left the full window.", stats.dedup_evicted),
        ("everflame_store_expired_samples_total", "Samples that retention deleted.", stats.expired),
        ("everflame_store_torn_records_total", "Torn records of the log left out.", stats.torn_records),
        ("everflame_store_series_overflowed_total", "Samples under the overflow series.", stats.series_overflowed),
    ];
    for (name, help, value) in counters {
        text.head(name, "counter", help);
        text.sample(name, "", value);
    }
}

/// Who was let in and who was not; no token and no address is told.
fn access(text: &mut Text, app: &App) {
    let access = &app.access;
    text.counter("everflame_refused_callers_total", "Requests without a right to them.", &app.metrics.refused_callers);
    let name = "everflame_refused_rate_total";
    text.head(name, "counter", "Requests refused because there were too many, by what was counted.");
    let refused = [
        ("address", &access.addresses.refused),
        ("token", &access.callers.refused),
        ("failed_login", &access.failures.refused),
    ];
    for (what, counter) in refused {
        text.sample(name, &format!("{{counted=\"{what}\"}}"), counter.load(Ordering::Relaxed));
    }
    let name = "everflame_shared_buckets_total";
    text.head(name, "counter", "Requests counted in a shared bucket, since the table of buckets was full.");
    for (what, counter) in [("address", &access.addresses.shared), ("token", &access.callers.shared)] {
        text.sample(name, &format!("{{counted=\"{what}\"}}"), counter.load(Ordering::Relaxed));
    }
    text.gauge("everflame_tokens", "Tokens.", access.tokens.list().len() as u64);
    text.counter("everflame_tokens_unreadable_total", "Times the tokens could not be read.", &access.tokens.unreadable);
    text.gauge("everflame_sessions", "Sessions of browsers.", access.sessions.len() as u64);
    text.counter("everflame_sessions_evicted_total", "Sessions ended by the limit.", &access.sessions.evicted);
    let help = "Connections refused because their address had too many.";
    text.counter("everflame_refused_connections_total", help, &app.metrics.refused_connections);
    let help = "Connections whose TLS handshake failed.";
    text.counter("everflame_tls_failed_handshakes_total", help, &app.metrics.failed_handshakes);
    if let Some(tls) = &app.tls {
        let help = "Times that certificate and key were read anew.";
        text.counter("everflame_tls_reloads_total", help, &tls.certificate().reloads);
        let help = "Times that a new certificate or key could not be used.";
        text.counter("everflame_tls_failed_reloads_total", help, &tls.certificate().failures);
    }
}

/// Memory of the process, where the system says it.
fn process(text: &mut Text) {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return };
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok());
    if let Some(kib) = kib {
        text.gauge("process_resident_memory_bytes", "Resident memory.", kib << 10);
    }
}

struct Text(String);

impl Text {
    // Writing to a string cannot fail, so that its results mean nothing here.
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: u64) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "gauge", help);
        self.sample(name, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, counter: &AtomicU64) {
        self.head(name, "counter", help);
        self.sample(name, "", counter.load(Ordering::Relaxed));
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
