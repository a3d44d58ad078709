//! Sends the load as OTLP over HTTP. Every request is made before the clock starts, so that
//! what is measured is the server.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use everflame_profile::otlp::encode_to_bytes;

use super::batches::Batches;

/// How requests are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Compression {
    None,
    Zstd,
}

/// What came of it.
#[derive(Debug, serde::Serialize)]
pub struct Sent {
    pub requests: usize,
    pub bytes: u64,
    pub seconds: f64,
    /// Milliseconds until the acknowledgement: half of the requests, 99 in 100, all.
    pub ack_p50_ms: f64,
    pub ack_p99_ms: f64,
    pub ack_max_ms: f64,
    /// Requests that had to be repeated because the server was busy.
    pub repeated: usize,
}

const PATIENCE: Duration = Duration::from_secs(60);

/// Every request of a load, ready to be sent.
pub fn encode_all(batches: &mut Batches, compression: Compression) -> Result<Vec<Vec<u8>>> {
    batches.map(|batch| compress(&encode_to_bytes(&batch), compression)).collect()
}

fn compress(bytes: &[u8], compression: Compression) -> Result<Vec<u8>> {
    Ok(match compression {
        Compression::None => bytes.to_vec(),
        Compression::Zstd => {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1)?;
            encoder.write_all(bytes)?;
            encoder.finish()?
        }
    })
}

/// Sends all requests, `connections` at a time, each until it is acknowledged.
pub fn send(server: &str, requests: &[Vec<u8>], compression: Compression, connections: usize) -> Result<Sent> {
    let (next, repeated, start) = (AtomicUsize::new(0), AtomicUsize::new(0), Instant::now());
    let lanes: Vec<Result<Vec<f64>>> = std::thread::scope(|scope| {
        let lane = || -> Result<Vec<f64>> {
            let agent = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .timeout_global(Some(PATIENCE))
                .build()
                .new_agent();
            let mut times = Vec::new();
            while let Some(body) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                let began = Instant::now();
                deliver(&agent, server, body, compression, &repeated)?;
                times.push(began.elapsed().as_secs_f64() * 1e3);
            }
            Ok(times)
        };
        let threads: Vec<_> = (0..connections.max(1)).map(|_| scope.spawn(lane)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a sender failed"))).collect()
    });
    let mut times: Vec<f64> = lanes.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1))).copied().unwrap_or(0.0)
    };
    Ok(Sent {
        requests: requests.len(),
        bytes: requests.iter().map(|body| body.len() as u64).sum(),
        seconds: start.elapsed().as_secs_f64(),
        ack_p50_ms: at(0.5),
        ack_p99_ms: at(0.99),
        ack_max_ms: at(1.0),
        repeated: repeated.into_inner(),
    })
}

fn deliver(
    agent: &ureq::Agent,
    server: &str,
    body: &[u8],
    compression: Compression,
    repeated: &AtomicUsize,
) -> Result<()> {
    let began = Instant::now();
    loop {
        let mut request =
            agent.post(format!("{server}/v1development/profiles")).header("content-type", "application/x-protobuf");
        if compression == Compression::Zstd {
            request = request.header("content-encoding", "zstd");
        }
        let mut answer = request.send(body).with_context(|| format!("sending to {server}"))?;
        match answer.status().as_u16() {
            200 => return Ok(()),
            429 | 503 if began.elapsed() < PATIENCE => {
                repeated.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(100));
            }
            status => bail!("{status}: {}", answer.body_mut().read_to_string().unwrap_or_default()),
        }
    }
}
