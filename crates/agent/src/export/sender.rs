//! The sending side: one request at a time, oldest batch first, until each has its answer.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tonic::transport::Endpoint;

use super::{
    ExportConfig, Shared,
    backoff::Backoff,
    client::{Client, Outcome},
    credentials::Credentials,
    spool::Entry,
};
use crate::tls::Roots;

/// Sends the batches of a spool and reports.
pub(super) struct Sender {
    shared: Arc<Shared>,
    credentials: Credentials,
    roots: Roots,
    report_every: Duration,
    backoff: Backoff,
    reported: Option<Instant>,
}

/// What there is to do next.
enum Next {
    Batch(Entry),
    /// The last report of a dead instance.
    LastReport(String),
    /// A report of our own, because it is time for one.
    Report,
    Wait(Duration),
    /// Everything is delivered, as of the stop.
    Finish,
}

impl Sender {
    pub fn new(shared: Arc<Shared>, config: &ExportConfig) -> Self {
        Self {
            shared,
            credentials: config.destination.credentials.clone(),
            roots: config.destination.roots.clone(),
            report_every: config.report_every,
            backoff: Backoff::new(),
            reported: None,
        }
    }

    /// Runs until it is told to stop; answers whether all was delivered.
    pub async fn run(mut self, endpoint: Endpoint) -> bool {
        let mut client = Client::new(&endpoint, self.roots.clone(), self.credentials.clone());
        loop {
            let stopping = self.shared.stopping.load(Relaxed);
            if stopping && self.shared.left().is_some_and(|left| left.is_zero()) {
                self.shared.spool().save_own();
                return false;
            }
            match self.next(stopping) {
                Next::Batch(entry) => self.batch(&mut client, entry).await,
                Next::LastReport(instance) => {
                    if self.attempt(&mut client, Bytes::new(), &instance, 0).await.is_some() {
                        self.shared.spool().forget(&instance);
                        self.shared.ledger.close(&instance);
                    }
                }
                Next::Report => {
                    let instance = self.shared.ledger.instance();
                    self.attempt(&mut client, Bytes::new(), &instance, 0).await;
                }
                Next::Finish => {
                    let instance = self.shared.ledger.instance();
                    if self.attempt(&mut client, Bytes::new(), &instance, 0).await.is_some() {
                        self.shared.spool().forget(&instance);
                        return true;
                    }
                }
                Next::Wait(time) => {
                    let _ = tokio::time::timeout(time, self.shared.wake.notified()).await;
                }
            }
        }
    }

    fn next(&self, stopping: bool) -> Next {
        if let Some(entry) = self.shared.spool().head() {
            return Next::Batch(entry);
        }
        if let Some(instance) = self.shared.ledger.done().into_iter().next() {
            return Next::LastReport(instance);
        }
        if stopping {
            return Next::Finish;
        }
        let since = self.reported.map_or(self.report_every, |then| then.elapsed());
        match self.report_every.checked_sub(since) {
            Some(left) if !left.is_zero() => Next::Wait(left),
            _ => Next::Report,
        }
    }

    async fn batch(&mut self, client: &mut Client, entry: Entry) {
        let (instance, samples) = (entry.name.instance.clone(), entry.name.samples);
        let ledger = &self.shared.ledger;
        ledger.change(&instance, |f| {
            f.spool = f.spool.saturating_sub(samples);
            f.sent += samples;
        });
        let read = self.shared.spool().packed(&entry);
        let request = match read {
            Ok(request) => request,
            Err(e) => {
                let file = entry.name.file_name();
                tracing::error!(
                    "batch {file} of the spool: {e}; its {samples} samples are counted as spool_unreadable"
                );
                return self.shared.spool().unreadable();
            }
        };
        match self.attempt(client, request, &instance, samples).await {
            Some(true) => self.shared.spool().acknowledged(),
            Some(false) => self.shared.spool().refused(),
            None => {
                self.shared.ledger.change(&instance, |f| {
                    f.sent = f.sent.saturating_sub(samples);
                    f.spool += samples;
                });
            }
        }
    }

    /// One request (compressed) about `instance`: whether the server took it, or `None` (after the
    /// pause that goes with a failure) if it is to be sent again.
    async fn attempt(&mut self, client: &mut Client, request: Bytes, instance: &str, samples: u64) -> Option<bool> {
        let report = self.shared.ledger.report_of(instance, samples);
        let send = client.export(request, report.as_ref());
        let outcome = match self.shared.left() {
            None => self.until_stopped(send).await,
            Some(left) => tokio::time::timeout(left, send).await.ok(),
        };
        let outcome = outcome.unwrap_or(Outcome::Retry { why: "no answer before the end".to_string(), after: None });
        let (counters, exporter) = (&self.shared.counters, self.shared.name.as_str());
        let (taken, why, after) = match outcome {
            Outcome::Stored { warning, ours } => {
                self.shared.ours.say(ours);
                counters.acknowledged.fetch_add(1, Relaxed);
                self.shared.ledger.acknowledged();
                if let Some(warning) = warning {
                    counters.partial.fetch_add(1, Relaxed);
                    tracing::warn!(exporter, "the server took a batch in part: {warning}");
                }
                (Some(true), None, None)
            }
            Outcome::Refused(why) => {
                counters.refused.fetch_add(1, Relaxed);
                tracing::error!(exporter, "the server refused a request for good ({samples} samples): {why}");
                (Some(false), None, None)
            }
            Outcome::Retry { why, after } => (None, Some(why), after),
        };
        let failed_before =
            std::mem::replace(&mut *self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner), why.clone());
        match why {
            None => {
                self.backoff.succeeded();
                if instance == self.shared.ledger.instance() {
                    self.reported = Some(Instant::now());
                }
                if let Some(before) = failed_before {
                    tracing::info!(exporter, "the server takes batches again; it did not before: {before}");
                }
            }
            Some(why) => {
                counters.retries.fetch_add(1, Relaxed);
                if failed_before.as_ref() != Some(&why) {
                    tracing::warn!(exporter, "the server does not take batches, they stay in the spool: {why}");
                }
                let pause = self.backoff.failed(after);
                self.pause(pause).await;
            }
        }
        taken
    }

    /// Waits for an answer; a stop in between limits the wait to the time it leaves.
    async fn until_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                () = self.shared.wake.notified() => {
                    if let Some(left) = self.shared.left() {
                        return tokio::time::timeout(left, work).await.ok();
                    }
                }
            }
        }
    }

    async fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // A stop does not wait out a long pause, but does not hammer either.
            let left = self.shared.left().map_or(left, |end| left.min(end).min(super::backoff::SHORTEST));
            if left.is_zero() {
                return;
            }
            let woken = tokio::time::timeout(left, self.shared.wake.notified()).await.is_ok();
            if !woken || self.shared.left().is_some() {
                return;
            }
        }
    }
}
