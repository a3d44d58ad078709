//! The server under the generator's load: ingest, exactness, queries, disk, start.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use everflame_tests::machine::free_port;
use everflame_tests::{Api, Everflame};
use serde_json::{Value, json};

use super::process;
use crate::generate::{self, Batches, Compression, Shape, send, totals};

/// Queries are repeated this often; the median counts.
const ROUNDS: usize = 5;

/// Measures everything.
pub fn measure(seed: u64) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let port = free_port();
    let start = Instant::now();
    let server = Everflame::server(port, folder.path());
    let ready_empty = start.elapsed();
    let pid = server.pid();

    let mut batches = Batches::new(&Shape { seed, ..Shape::default() }, generate::end_now());
    let requests = send::encode_all(&mut batches, Compression::Zstd)?;
    let millions = batches.totals().samples(|_| true) as f64 / 1e6;
    println!("sending {} requests with {millions:.2} million samples", requests.len());
    let before = process::cpu_seconds(pid);
    let sent = send::send(server.api().url(), &requests, Compression::Zstd, 4)?;
    let acknowledged = process::cpu_seconds(pid) - before;
    let (rss, peak_load) = process::memory(pid);
    let disk_load = disk_bytes(folder.path());
    // What the server does with it afterwards is part of the price, to the last block that
    // it writes before it ends.
    std::thread::sleep(Duration::from_secs(10));
    let children = process::ended_children_cpu_seconds();
    server.stop();
    let settled = process::ended_children_cpu_seconds() - children;
    let disk = disk_bytes(folder.path());

    let start = Instant::now();
    let server = Everflame::server(port, folder.path());
    let ready_full = start.elapsed();
    let queries = queries(server.api(), &batches)?;
    let (_, peak_queries) = process::memory(server.pid());
    let exact = exactness(server.api(), &batches)?;
    server.stop();
    Ok(json!({
        "expected": batches.totals().summary(&batches),
        "sent": sent,
        "exact": exact,
        "cpu_seconds_per_million": {"acknowledged": acknowledged / millions, "settled": settled / millions},
        "disk_bytes_per_sample": {"after_load": disk_load as f64 / millions / 1e6, "after_stop": disk as f64 / millions / 1e6},
        "rss_bytes": {"settled": rss, "peak_load": peak_load, "peak_queries": peak_queries},
        "ready_ms": {"empty": ready_empty.as_secs_f64() * 1e3, "full": ready_full.as_secs_f64() * 1e3},
        "queries": queries,
    }))
}

fn queries(api: &Api, batches: &Batches) -> Result<Value> {
    let (from, until) = range(batches);
    let services = &batches.cluster().services;
    let graph = |query: &str, nodes: &str| {
        timed(api, "/api/v1/flamegraph", &[("query", query), ("from", &from), ("until", &until), ("max_nodes", nodes)])
    };
    let mut one_service: Vec<Value> = services
        .iter()
        .map(|service| graph(&format!("{{service=\"{}\"}}", service.name), "20000"))
        .collect::<Result<_>>()?;
    one_service.sort_by(|a, b| a["ms"].as_f64().unwrap_or(0.0).total_cmp(&b["ms"].as_f64().unwrap_or(0.0)));
    let median = one_service.swap_remove(one_service.len() / 2);
    let namespace = format!("{{namespace=\"{}\"}}", services.first().context("services")?.namespace);
    let other = |path: &str, more: &[(&str, &str)]| {
        let mut parameters = vec![("from", from.as_str()), ("until", until.as_str())];
        parameters.extend_from_slice(more);
        timed(api, path, &parameters)
    };
    Ok(json!({
        "flamegraph_service_median": median,
        "flamegraph_namespace_page": graph(&namespace, "20000")?,
        "flamegraph_namespace_full": graph(&namespace, "0")?,
        "flamegraph_cluster_page": graph("", "20000")?,
        "flamegraph_cluster_full": graph("", "0")?,
        "top_cluster": other("/api/v1/top", &[("by", "function")])?,
        "series_by_service": other("/api/v1/series", &[("by", "service")])?,
        "processes": other("/api/v1/processes", &[])?,
    }))
}

/// Median time to the last byte of the answer.
fn timed(api: &Api, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let (status, body) = api.get(path, parameters);
        times.push(start.elapsed().as_secs_f64() * 1e3);
        ensure!(status == 200, "{path} {parameters:?}: {status} {body:.300}");
        bytes = body.len();
    }
    times.sort_by(f64::total_cmp);
    Ok(json!({"ms": times[ROUNDS / 2], "slowest_ms": times[ROUNDS - 1], "bytes": bytes}))
}

/// Whole flame graphs against what was sent.
fn exactness(api: &Api, batches: &Batches) -> Result<Value> {
    let (from, until) = range(batches);
    let answer = |query: &str| {
        let parameters =
            [("query", query), ("from", from.as_str()), ("until", &until), ("max_nodes", "0"), ("group", "")];
        totals::digest_of_answer(&api.json("/api/v1/flamegraph", &parameters)).context("a flame graph with its columns")
    };
    let (cluster, wanted) = (answer("")?, batches.totals().digest(batches, |_| true));
    if cluster != wanted {
        println!("cluster: answered {cluster:?}, sent {wanted:?}");
    }
    let services = &batches.cluster().services;
    let mut exact_services = 0;
    for (number, service) in services.iter().enumerate() {
        let wanted = batches.totals().digest(batches, |other| other == number);
        exact_services += usize::from(answer(&format!("{{service=\"{}\"}}", service.name))? == wanted);
    }
    Ok(json!({"cluster": cluster == wanted, "services": exact_services, "of": services.len(), "answered": cluster}))
}

fn range(batches: &Batches) -> (String, String) {
    let (from, until) = batches.range();
    let seconds = |time: i64| (time / 1_000_000_000).to_string();
    (seconds(from), seconds(until))
}

fn disk_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(about) if about.is_dir() => disk_bytes(&entry.path()),
            Ok(about) => about.len(),
            Err(_) => 0,
        })
        .sum()
}
