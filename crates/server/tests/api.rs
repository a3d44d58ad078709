//! Ingest to answers, over the wire, on the real store.

mod common;

use std::{io::Write, sync::Arc};

use common::{
    batch::{Made, in_executable, now, report, s},
    flame::{check, integers, nodes, paths},
    raw,
    server::{Running, store},
    sums::{Fixed, PERIOD, Sums},
};
use everflame_profile::{Completeness, ContentId, Mapping, report::REPORT_HEADER};
use everflame_server::{Config, Error, Server};
use everflame_store::StoreError;
use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesServiceRequest, ExportProfilesServiceResponse, profiles_service_client::ProfilesServiceClient,
};
use prost::Message;
use serde_json::{Value, json};

const COMPLETE: Completeness = Completeness::Complete;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("bytes");
    encoder.finish().expect("gzip")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("zstd")
}

fn partial(body: &[u8]) -> Option<(i64, String)> {
    let answer = ExportProfilesServiceResponse::decode(body).expect("a protobuf answer");
    answer.partial_success.map(|partial| (partial.rejected_profiles, partial.error_message))
}

/// Two processes within the last minute.
fn shop(time: i64) -> [Made; 2] {
    let cart = Made::of(1, "cart", 10)
        .stack(&["_start", "main", "serve", "parse"], COMPLETE, time, 5)
        .stack(&["_start", "main", "walk", "walk"], COMPLETE, time + 2_000_000_000, 3)
        .stack(&["walk", "parse"], Completeness::DepthLimit, time, 4);
    let pay = Made::of(2, "pay", 20).stack(&["_start", "main", "sign"], COMPLETE, time + 4_000_000_000, 6);
    [cart, pay]
}

#[test]
fn what_comes_in_is_answered_exactly() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Running::start(directory.path());
    // The start of a second, so that buckets are known.
    let time = (now() / 1_000_000_000 - 60) * 1_000_000_000;
    let [cart, pay] = shop(time);
    let header = serde_json::to_string(&report(1, 20, 2)).expect("JSON");
    let first = server.ingest(&[(REPORT_HEADER, &header), ("content-encoding", "gzip")], &gzip(&cart.bytes()));
    assert_eq!((first.status, partial(&first.body)), (200, None), "{}", first.text());
    let second = server.ingest(&[("content-encoding", "zstd")], &zstd(&pay.bytes()));
    assert_eq!((second.status, partial(&second.body)), (200, None));
    // The same profile again counts once.
    assert_eq!(server.ingest(&[], &pay.bytes()).status, 200);

    let answer = server.json("/api/v1/flamegraph");
    check(&answer);
    let tree = nodes(&answer);
    assert_eq!(answer["samples"], 18);
    assert_eq!(answer["value"], json!((18 * PERIOD) as f64 / 1e9));
    assert_eq!(answer["complete"], json!({"samples": 14, "incomplete": {"depth_limit": 4}}));
    assert_eq!(tree["total;cart;_start;main"].total, 8);
    assert_eq!(tree["total;cart;_start;main;walk;walk"].own, 3);
    assert_eq!(tree["total;cart;[incomplete: depth_limit];walk;parse"].own, 4);
    assert_eq!(tree["total;pay;_start;main;sign"].own, 6);

    let selected = server.json("/api/v1/flamegraph?query=%7Bprocess=%22pay%22%7D&group=pid,thread");
    assert_eq!(nodes(&selected)["total;20;worker;_start;main;sign"].own, 6);
    let by_name = server.json("/api/v1/flamegraph?query=%7Bservice_name=~%22ca.*%22,%22host.name%22!=%22n2%22%7D");
    assert_eq!(by_name["samples"], 12);

    // Half-open: from on the first sample, until on the last.
    let (from, until) = (time / 1_000_000_000 + 2, time / 1_000_000_000 + 4);
    let middle = server.json(&format!("/api/v1/flamegraph?from={from}&until={until}"));
    assert_eq!(middle["samples"], 3);
    assert_eq!((middle["from"].as_f64(), middle["until"].as_f64()), (Some(from as f64), Some(until as f64)));

    // Both processes against the first second: what is in both is one node.
    let second = time / 1_000_000_000;
    let ranges = format!("from={second}&until=now&base_from={second}&base_until={}", second + 1);
    let diff = server.json(&format!("/api/v1/diff?{ranges}&base_query=%7Bprocess=%22cart%22%7D"));
    check(&diff);
    let (now, then) = (integers(&diff, "total"), integers(&diff, "base_total"));
    let both: Vec<(String, u64, u64)> =
        paths(&diff).into_iter().enumerate().map(|(at, path)| (path, now[at], then[at])).collect();
    let has = |path: &str, now: u64, then: u64| both.contains(&(path.to_owned(), now, then));
    assert!(has("total", 18, 9) && has("total;cart;_start;main", 8, 5), "{both:?}");
    assert!(has("total;pay;_start;main;sign", 6, 0) && has("total;cart;_start;main;serve;parse", 5, 5), "{both:?}");
    assert_eq!((&diff["base"]["samples"], &diff["samples"]), (&json!(9), &json!(18)));
    assert_eq!(diff["base"]["complete"], json!({"samples": 5, "incomplete": {"depth_limit": 4}}));
    assert_eq!(diff["base"]["until"], second + 1);
    let before = server.json(&format!("/api/v1/diff?from={}&until=now", second + 1));
    assert_eq!((&before["samples"], before["base"]["until"].as_i64()), (&json!(9), Some(second + 1)));

    let top = server.json("/api/v1/top?limit=2");
    assert_eq!(top["count"], 6);
    assert_eq!(top["rows"][0]["name"], "parse");
    assert_eq!((&top["rows"][0]["self"], &top["rows"][1]["name"]), (&json!(9), &json!("sign")));

    let series = server.json(&format!("/api/v1/series?by=process&step=2s&from={}&until=now", from - 2));
    let start = (from - 2) / 2 * 2;
    assert_eq!(series["step_s"], 2);
    let buckets: u64 = (series["series"][0]["points"].as_array().expect("points").iter())
        .map(|point| point[1].as_u64().expect("samples"))
        .sum();
    assert_eq!((&series["series"][0]["value"], buckets), (&json!("cart"), 12));
    assert_eq!(series["series"][0]["points"][0][0], start);
    let rest = server.json("/api/v1/series?by=process&limit=1");
    assert_eq!((&rest["series"][1]["rest"], rest["series"].as_array().map(Vec::len)), (&json!(true), Some(2)));
    assert_eq!(rest["series"][1]["points"][0][1], 6);

    let labels = server.json("/api/v1/labels");
    assert!(labels["labels"].as_array().expect("labels").contains(&json!("service.name")), "{labels}");
    let values = server.json("/api/v1/labels/process/values");
    let expected = json!([{"value": "cart", "samples": 12}, {"value": "pay", "samples": 6}]);
    assert_eq!((&values["values"], &values["count"]), (&expected, &json!(2)));
    assert_eq!(server.json("/api/v1/labels/process.executable.name/values?limit=1")["count"], 2);
    assert_eq!(server.json("/api/v1/types"), json!({"types": [{"type": "cpu", "unit": "seconds"}]}));

    let processes = server.json("/api/v1/processes");
    let first = &processes["processes"][0];
    assert_eq!((&first["process"], &first["pid"], &first["samples"]), (&json!("cart"), &json!(10), &json!(12)));
    assert_eq!((&first["complete"], &first["thread_count"], &first["node"]), (&json!(8), &json!(1), &json!("n1")));
    assert_eq!(server.json("/api/v1/nodes")["nodes"][0]["node"], "n1");

    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.get("/readyz").status, 200);
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains("\neverflame_ingest_samples_total 18\n"), "{metrics}");
    assert!(metrics.contains("\neverflame_ingest_duplicates_total 6\n"), "{metrics}");
}

fn residual(account: &Value) -> i64 {
    let sum = |v: &Value| v.as_object().expect("counts").values().map(|n| n.as_i64().expect("a count")).sum::<i64>();
    let count = |key: &str| account[key].as_i64().expect("a count");
    count("taken") - count("idle") - count("stored") - sum(&account["in_flight"]) - sum(&account["dropped"])
}

#[test]
fn the_account_adds_up_also_with_what_the_server_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Running::start(directory.path());
    let time = now() - 60_000_000_000;
    let [cart, _] = shop(time);
    let mut first = report(1, 20, 2);
    first.in_flight.insert("ring".into(), 5);
    first.dropped.insert("spool_full".into(), 1);
    let header = serde_json::to_string(&first).expect("JSON");
    assert_eq!(server.ingest(&[(REPORT_HEADER, &header)], &cart.bytes()).status, 200);
    let account = server.json("/api/v1/accounting")["instances"][0].clone();
    assert_eq!((account["stored"].as_u64(), residual(&account)), (Some(12), 0), "{account}");
    assert_eq!((&account["complete"], &account["incomplete"]), (&json!(8), &json!({"depth_limit": 4})));

    let future = Made::of(3, "cart", 10).stack(&["main"], COMPLETE, now() + 3_600_000_000_000, 5);
    let mut second = report(2, 20, 2);
    second.dropped.insert("spool_full".into(), 1);
    let header = serde_json::to_string(&second).expect("JSON");
    let answer = server.ingest(&[(REPORT_HEADER, &header)], &future.bytes());
    let (profiles, message) = partial(&answer.body).expect("a partial success");
    assert_eq!(profiles, 1);
    assert!(message.contains("5 samples") && message.contains("future"), "{message}");
    let account = server.json("/api/v1/accounting")["instances"][0].clone();
    assert_eq!((account["stored"].as_u64(), residual(&account)), (Some(12), 0), "{account}");
    assert_eq!(account["dropped"]["rejected_future"], 5);
    assert_eq!((&account["taken"], &account["in_flight"]), (&json!(20), &json!({})));

    // A broken sample beside a good one, twice: its answer was lost.
    let broken = Made::of(4, "cart", 10).stack(&["main"], COMPLETE, time, 1).bytes();
    let mut broken = ExportProfilesServiceRequest::decode(&*broken).expect("a request");
    let samples = &mut broken.resource_profiles[0].scope_profiles[0].profiles[0].samples;
    samples.push(samples[0].clone());
    samples[1].stack_index = 99;
    let mut third = report(3, 22, 2);
    third.dropped.insert("spool_full".into(), 1);
    let header = serde_json::to_string(&third).expect("JSON");
    for _ in 0..2 {
        assert_eq!(server.ingest(&[(REPORT_HEADER, &header)], &broken.encode_to_vec()).status, 200);
        let account = server.json("/api/v1/accounting")["instances"][0].clone();
        assert_eq!((account["stored"].as_u64(), residual(&account)), (Some(13), 0), "{account}");
        assert_eq!(account["dropped"]["rejected_invalid"], 1);
    }
}

#[tokio::test]
async fn grpc_takes_what_http_takes() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Running::start(directory.path());
    let time = now() - 60_000_000_000;
    for (at, compression) in
        [None, Some(tonic::codec::CompressionEncoding::Gzip), Some(tonic::codec::CompressionEncoding::Zstd)]
            .into_iter()
            .enumerate()
    {
        let mut client = ProfilesServiceClient::connect(server.url("")).await.expect("a connection");
        if let Some(compression) = compression {
            client = client.send_compressed(compression).accept_compressed(compression);
        }
        let made = Made::of(at as u8, "cart", 10).stack(&["_start", "main"], COMPLETE, time, 2);
        let mut request = tonic::Request::new(everflame_profile::otlp::encode(&made.batch));
        let report = serde_json::to_string(&report(at as u64 + 1, 2 * (at as u64 + 1), 0)).expect("JSON");
        request.metadata_mut().insert(REPORT_HEADER, report.parse().expect("a header"));
        let answer = client.export(request).await.expect("success");
        assert_eq!(answer.into_inner().partial_success, None);
    }
    let (total, account) = tokio::task::spawn_blocking(move || {
        (
            server.json("/api/v1/flamegraph")["samples"].clone(),
            server.json("/api/v1/accounting")["instances"][0].clone(),
        )
    })
    .await
    .expect("answers");
    assert_eq!(total, 6);
    assert_eq!((account["stored"].as_u64(), residual(&account)), (Some(6), 0));
}

#[test]
fn names_come_when_they_come_and_old_profiles_get_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Running::start(directory.path());
    let program = std::fs::read(std::env::current_exe().expect("this program")).expect("its bytes");
    let index = everflame_symbols::build_index(&program, "this-test", &Default::default()).expect("an index");
    let parsed = everflame_symbols::Index::parse(index.as_slice()).expect("an index");
    let id = parsed.content_id();
    let function = parsed.iter().filter(|f| f.name.is_some() && f.end - f.start > 8).max_by_key(|f| f.end - f.start);
    let function = function.expect("a named function");
    let name = everflame_symbols::demangle(function.name.expect("a name")).into_owned();

    let mapping = |content: Option<ContentId>, build_id: &str| {
        Arc::new(Mapping { name: s("this-test"), build_id: s(build_id), content_id: content })
    };
    let mut made = Made::of(9, "this-test", 1);
    let time = now() - 30_000_000_000;
    let stack = |mapping: &Arc<Mapping>, offset: u64| vec![in_executable(mapping, function.start + offset)];
    made.add(stack(&mapping(Some(id), parsed.build_id()), 1), COMPLETE, [time, time + 1].into_iter());
    made.add(stack(&mapping(Some(id), parsed.build_id()), 5), COMPLETE, [time].into_iter());
    // Another content that claims the same build id, and one that names no content.
    made.add(stack(&mapping(Some(ContentId(id.0 ^ 1)), parsed.build_id()), 1), COMPLETE, [time].into_iter());
    made.add(stack(&mapping(None, parsed.build_id()), 1), COMPLETE, [time].into_iter());
    assert_eq!(server.ingest(&[], &made.bytes()).status, 200);

    let rows = |server: &Running| -> Vec<(String, u64)> {
        let top = server.json("/api/v1/top");
        let rows = top["rows"].as_array().expect("rows").iter();
        rows.map(|row| (row["name"].as_str().expect("a name").to_owned(), row["self"].as_u64().expect("a count")))
            .collect()
    };
    let bare = |offset: u64| format!("this-test+{:#x}", function.start + offset);
    assert_eq!(rows(&server), [(bare(1), 4), (bare(5), 1)]);

    let path = format!("/api/v1/symbols/{id}");
    assert_eq!(server.request("HEAD", &path, &[], &[]).status, 404);
    server.request("PUT", &path, &[], b"nonsense").refuses(422, "invalid");
    server.request("PUT", "/api/v1/symbols/00000000000000000000000000000000", &[], &index).refuses(422, "invalid");
    let put = server.request("PUT", &path, &[("content-encoding", "zstd")], &zstd(&index));
    assert_eq!(put.status, 201, "{}", put.text());
    server.request("PUT", &path, &[], &index).refuses(409, "conflict");
    assert_eq!(server.request("HEAD", &path, &[], &[]).status, 200);
    assert_eq!(rows(&server), [(name.clone(), 3), (bare(1), 2)]);

    let list = server.json("/api/v1/symbols");
    let first = &list["executables"][0];
    assert_eq!((&first["content_id"], &first["samples"]), (&json!(id.to_string()), &json!(3)));
    assert_eq!((&first["name"], &first["source"]), (&json!("this-test"), &json!("agent")));
    assert_eq!(first["functions"], parsed.functions());

    // An operator vouches for the build id: all that say they have it go by that index, also
    // what runs stripped. It is their own frames that get names, nobody else's.
    if !parsed.build_id().is_empty() {
        let put = server.request("PUT", &format!("/api/v1/symbols/{}", parsed.build_id()), &[], &index);
        assert_eq!(put.status, 201, "{}", put.text());
        assert_eq!(rows(&server), [(name.clone(), 5)]);
    }
    drop(server);
    let named = if parsed.build_id().is_empty() { 3 } else { 5 };
    assert_eq!(rows(&Running::start(directory.path()))[0], (name, named), "names outlive a restart");
}

#[test]
fn what_was_acknowledged_outlives_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let [cart, pay] = shop(now() - 60_000_000_000);
    let server = Running::start(directory.path());
    assert_eq!(server.ingest(&[], &cart.bytes()).status, 200);
    drop(server);
    let server = Running::start(directory.path());
    assert_eq!(server.ingest(&[], &cart.bytes()).status, 200);
    assert_eq!(server.ingest(&[], &pay.bytes()).status, 200);
    assert_eq!(server.json("/api/v1/flamegraph")["samples"], 18);
}

#[test]
fn a_port_in_use_is_said() {
    let directory = tempfile::tempdir().expect("a directory");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let error = Server::bind(Config::new(address, directory.path()), store(directory.path())).expect_err("a refusal");
    assert!(matches!(error, Error::AddressInUse(a) if a == address), "{error:?}");
    assert!(error.to_string().contains("--listen"), "{error}");
}

#[test]
fn a_directory_that_cannot_be_written_is_said() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    std::fs::write(&file, b"").expect("a file");
    let config = Config::new("127.0.0.1:0".parse().expect("an address"), &file);
    let error = Server::bind(config, store(directory.path())).expect_err("a refusal");
    assert!(matches!(error, Error::Symbols { .. }), "{error:?}");
    assert!(error.to_string().contains("--data"), "{error}");
}

#[test]
fn the_opentelemetry_profilers_request_is_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Running::start(directory.path());
    let request: ExportProfilesServiceRequest = common::theirs::request(now() - 30_000_000_000);
    let (status, message, _) = raw::grpc(server.address, &[], raw::framed(0, &request.encode_to_vec()));
    assert_eq!((status.as_str(), message.as_str()), ("0", ""));
    let answer = server.json("/api/v1/flamegraph?group=thread");
    check(&answer);
    let tree = nodes(&answer);
    assert_eq!(answer["samples"], 3);
    assert_eq!(answer["complete"], json!({"samples": 0, "incomplete": {"not_said": 3}}));
    let path = "total;MainThread;[incomplete: not_said];libpython3.11.so.1.0+0x1000;handler";
    assert_eq!((tree[path].own, tree[path].kind.as_str()), (3, "cpython"));
    assert_eq!(server.json("/api/v1/labels/container.id/values")["values"][0]["samples"], 3);
}

/// A store that cannot take anything now.
#[test]
fn what_the_store_refuses_is_said_with_when_to_come_again() {
    type Cause = fn() -> StoreError;
    let causes: [(Cause, u16, &str); 2] = [
        (|| StoreError::Busy(256), 429, "busy"),
        (|| StoreError::DiskFull { path: "/data".into() }, 503, "unavailable"),
    ];
    for (cause, status, code) in causes {
        let directory = tempfile::tempdir().expect("a directory");
        let config = Config::new("127.0.0.1:0".parse().expect("an address"), directory.path());
        let server = Running::with(config, Arc::new(Fixed { sums: Sums::new().0, append: cause }));
        let body = Made::of(1, "cart", 1).stack(&["main"], COMPLETE, now(), 1).bytes();
        let answer = server.ingest(&[], &body);
        answer.refuses(status, code);
        assert!(answer.headers.get("retry-after").is_some());
        // RetryInfo is in the details, in base64.
        let (code, message, details) = raw::grpc(server.address, &[], raw::framed(0, &body));
        assert_eq!(code, "14", "{message}");
        assert!(details.len() > 80, "{details}");
    }
}
