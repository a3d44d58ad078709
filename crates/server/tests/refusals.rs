//! What must not get in, or must not hurt: strangers, noise, bombs, broken requests.
//! Each is refused with a code and what to do, and the server goes on answering.

mod common;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use common::{
    batch::{Made, now, report},
    raw::{self, framed},
    server::{Running, store},
    theirs,
};
use everflame_profile::{Completeness, report::REPORT_HEADER};
use everflame_server::{Config, web};
use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesServiceRequest, ExportProfilesServiceResponse,
};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use prost::Message;
use tokio::net::TcpSocket;

/// Bytes that compress to next to nothing.
const BOMB: usize = 200 << 20;

fn bomb_gzip() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![0; 1 << 20];
    for _ in 0..BOMB >> 20 {
        encoder.write_all(&zeros).expect("bytes");
    }
    encoder.finish().expect("gzip")
}

fn bomb_zstd() -> Vec<u8> {
    zstd::encode_all(std::io::repeat(0).take(BOMB as u64), 1).expect("zstd")
}

fn running() -> (tempfile::TempDir, Running) {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Running::start(directory.path());
    (directory, server)
}

/// Noise of many lengths, the same in every run.
fn noise(count: usize) -> Vec<Vec<u8>> {
    let mut runner = TestRunner::deterministic();
    let strategy = proptest::collection::vec(proptest::num::u8::ANY, 0..2_000);
    (0..count).map(|_| strategy.new_tree(&mut runner).expect("noise").current()).collect()
}

#[test]
fn strangers_are_refused_by_name() {
    let (_directory, server) = running();
    let port = server.address.port();
    let status = |headers: &str| {
        let request = format!("GET /api/v1/types HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
        raw::status(&raw::send(server.address, request.as_bytes()))
    };
    for own in ["127.0.0.1", "localhost", "[::1]", "LocalHost"] {
        assert_eq!(status(&format!("Host: {own}:{port}\r\n")), 200, "{own}");
        assert_eq!(status(&format!("Host: {own}:{port}\r\nOrigin: http://{own}:{port}\r\n")), 200, "{own}");
    }
    assert_eq!(status(""), 403);
    for other in ["evil.example", "localhost", "127.0.0.1:1", "localhost.evil.example:4040", "a b", ""] {
        assert_eq!(status(&format!("Host: {other}\r\n")), 403, "{other}");
    }
    for origin in ["http://evil.example", "null", "http://localhost:1", "https://localhost.evil.example"] {
        assert_eq!(status(&format!("Host: localhost:{port}\r\nOrigin: {origin}\r\n")), 403, "{origin}");
    }
    // Every route, the page and ingest too.
    for (method, path) in web::route_names().into_iter().chain([("GET", "/"), ("GET", "/nothing")]) {
        let request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nHost: evil.example\r\n\r\n");
        let answer = raw::send(server.address, request.as_bytes());
        assert_eq!(raw::status(&answer), 403, "{method} {path}");
        assert!(method == "HEAD" || answer.contains("\"forbidden\"") && answer.contains("--allowed-hosts"), "{answer}");
    }
    let origin = [("origin", "http://evil.example")];
    let (code, message, _) = raw::grpc(server.address, &origin, framed(0, &[]));
    assert_eq!(code, "7", "{message}");
}

#[test]
fn a_configured_name_is_let_in() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut config = Config::new("127.0.0.1:0".parse().expect("an address"), directory.path());
    config.allowed_hosts = vec!["profiles.example".into()];
    let server = Running::with(config, store(directory.path()));
    let get = |host: &str| {
        raw::status(&raw::send(
            server.address,
            format!("GET /healthz HTTP/1.1\r\nConnection: close\r\nHost: {host}\r\n\r\n").as_bytes(),
        ))
    };
    assert_eq!((get("profiles.example"), get("Profiles.Example:8443"), get("other.example")), (200, 200, 403));
}

#[test]
fn an_address_with_too_many_connections_gets_no_more() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut config = Config::new("127.0.0.1:0".parse().expect("an address"), directory.path());
    config.connections_per_address = 3;
    let server = Running::with(config, store(directory.path()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let connect = |from: &str| {
        let _entered = runtime.enter();
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(format!("{from}:0").parse().expect("an address")).expect("bound");
        let stream = runtime.block_on(socket.connect(server.address)).expect("connected").into_std().expect("a stream");
        stream.set_nonblocking(false).expect("set");
        stream
    };
    let answers = |mut stream: &TcpStream| {
        let request = format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n", server.address);
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        let sent = stream.write_all(request.as_bytes());
        sent.and_then(|()| stream.read(&mut [0; 12])).is_ok_and(|read| read > 0)
    };
    let held: Vec<TcpStream> = (0..3).map(|_| connect("127.0.0.1")).collect();
    assert!(held.iter().all(answers));
    assert!(!answers(&connect("127.0.0.1")), "one too many");
    let other = connect("127.0.0.2");
    assert!(answers(&other), "others get in");
    drop(held);
    wait_until(|| answers(&connect("127.0.0.1")));
    let metrics = server.get("/metrics").text();
    let line = metrics.lines().find_map(|line| line.strip_prefix("everflame_refused_connections_total "));
    assert!(line.expect("a figure").parse::<u64>().expect("a number") >= 1);
}

fn wait_until(done: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < until, "it takes too long");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn paths_methods_and_types_that_are_not_there() {
    let (_directory, server) = running();
    for path in
        ["/api/v1/nothing", "/api", "/api/v2/top", "/missing.js", "/assets/none.css", "/nothing", "/../etc/passwd"]
    {
        server.get(path).refuses(404, "not_found");
    }
    server.request("POST", "/nothing", &[], b"").refuses(404, "not_found");
    let answer = server.request("DELETE", "/api/v1/top", &[], b"");
    answer.refuses(405, "method_not_allowed");
    assert!(answer.headers.get("allow").is_some_and(|allow| allow.as_bytes().starts_with(b"GET")));
    server.request("GET", "/v1development/profiles", &[], b"").refuses(405, "method_not_allowed");
    let json = [("content-type", "application/json")];
    server.request("POST", "/v1development/profiles", &json, b"{}").refuses(415, "unsupported_media_type");
    server.request("POST", "/v1development/profiles", &[], b"").refuses(415, "unsupported_media_type");
    for encoding in ["br", "deflate", "gzip, zstd", "\u{fe}"] {
        server.ingest(&[("content-encoding", encoding)], b"").refuses(415, "unsupported_media_type");
    }
    let page = server.get("/");
    assert_eq!(page.status, 200);
    assert!(page.headers.get("content-security-policy").is_some());
    let text = page.text();
    match text.split_once("\"./assets/").and_then(|(_, rest)| rest.split('"').next()) {
        Some(name) => {
            let asset = server.get(&format!("/assets/{name}"));
            let cache = asset.headers.get("cache-control").map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
            assert_eq!((asset.status, cache.as_deref()), (200, Some("public, max-age=31536000, immutable")));
        }
        None => assert!(text.contains("run make build"), "{text}"),
    }
    for path in ["/api/v1/labels/%ff/values", "/api/v1/symbols/%ff"] {
        server.get(path).refuses(400, "bad_request");
    }
    assert_eq!(
        server.get("/api/v1/types").headers.get("x-content-type-options").map(|v| v.as_bytes()),
        Some(&b"nosniff"[..])
    );
}

#[test]
fn parameters_that_are_wrong() {
    let (_directory, server) = running();
    let wrong = [
        "flamegraph?from=tomorrow",
        "flamegraph?from=2&until=1",
        "flamegraph?from=1&until=1",
        "flamegraph?until=now%2B1h",
        "flamegraph?query=%7B",
        "flamegraph?query=%7Ba%3D~%22(%22%7D",
        "flamegraph?query=%7Ba%3D%22b%22",
        "flamegraph?granularity=word",
        "flamegraph?invert=maybe",
        "flamegraph?max_nodes=-1",
        "flamegraph?max_nodes=99999999999999",
        "flamegraph?root=xyz",
        "flamegraph?root=00112233445566zz",
        "flamegraph?group=a,b,c,d,e,f,g,h,i",
        "flamegraph?from=1&from=2",
        "top?by=line",
        "top?sort=name",
        "top?limit=many",
        "top?offset=1.5",
        "series?step=0",
        "series?step=1ms",
        "series?step=1s&from=0",
        "series?limit=x",
        "labels?from=x",
        "labels/process/values?limit=x",
        "diff?base_from=5&base_until=5",
        "diff?base_query=%7B",
        "processes?until=x",
        "symbols?from=x",
    ];
    for query in wrong {
        let message = server.get(&format!("/api/v1/{query}")).refuses(400, "bad_request");
        assert!(message.len() > 15, "{query}: {message}");
    }
    let long = "a".repeat(1_100);
    server.get(&format!("/api/v1/top?query=%7Ba%3D~%22{long}%22%7D")).refuses(400, "bad_request");
    server.get(&format!("/api/v1/top?x={}", "a".repeat(17_000))).refuses(400, "bad_request");
    // A match of nothing is no error, and what is not known is left aside.
    let none = server.json("/api/v1/flamegraph?query=%7Bprocess%3D%22nobody%22%7D&type=alloc&color=red");
    assert_eq!(none["samples"], 0);
    assert_eq!(server.json("/api/v1/top")["count"], 0);
    assert_eq!(server.json("/api/v1/series")["series"], serde_json::json!([]));
    assert_eq!(server.json("/api/v1/labels/nothing/values")["count"], 0);
}

#[test]
fn bombs_and_giants_are_cut_short() {
    let (_directory, server) = running();
    for (encoding, bomb) in [("gzip", bomb_gzip()), ("zstd", bomb_zstd())] {
        server.ingest(&[("content-encoding", encoding)], &bomb).refuses(413, "too_large");
        let (code, message, _) = raw::grpc(server.address, &[("grpc-encoding", encoding)], framed(1, &bomb));
        assert_eq!(code, "8", "{message}");
        let many: Vec<u8> = std::iter::repeat_n(bomb.as_slice(), 2).flatten().copied().collect();
        server
            .request(
                "PUT",
                "/api/v1/symbols/00000000000000000000000000000000",
                &[("content-encoding", encoding)],
                &many,
            )
            .refuses(413, "too_large");
    }
    // A body that is too long as it is, announced and not.
    server.ingest(&[], &vec![0; (64 << 20) + 1]).refuses(413, "too_large");
    let (code, _, _) = raw::grpc(server.address, &[], framed(0, &vec![0; (64 << 20) + 1]));
    assert_eq!(code, "8");
    // A length that is claimed and never comes reserves nothing.
    let (code, _, _) = raw::grpc(server.address, &[], vec![0, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(code, "8");
    let (code, _, _) = raw::grpc(server.address, &[], vec![0, 0, 0xff, 0xff, 0xff, 1, 2]);
    assert_eq!(code, "3");
    assert_eq!(server.get("/readyz").status, 200);
}

#[test]
fn noise_is_refused_everywhere_and_the_server_goes_on() {
    let (_directory, server) = running();
    for bytes in noise(60) {
        for encoding in ["identity", "gzip", "zstd"] {
            let answer = server.ingest(&[("content-encoding", encoding)], &bytes);
            // By chance, noise can be a message whose fields nobody knows.
            assert!(matches!(answer.status, 200 | 400), "{}", answer.text());
        }
        for frame in [bytes.clone(), framed(0, &bytes), framed(1, &bytes), framed(7, &bytes)] {
            let (code, message, _) = raw::grpc(server.address, &[("grpc-encoding", "zstd")], frame);
            assert!(matches!(code.as_str(), "0" | "3" | "8"), "{code} {message}");
        }
        let answer = server.request("PUT", "/api/v1/symbols/00000000000000000000000000000000", &[], &bytes);
        answer.refuses(422, "invalid");
        raw::send(server.address, &bytes);
        let target: String = bytes.iter().take(200).map(|b| format!("%{b:02x}")).collect();
        for path in ["flamegraph?query=", "top?from=", "series?by=", "labels/", "symbols/", "flamegraph?group="] {
            let answer = server.get(&format!("/api/v1/{path}{target}"));
            assert!(matches!(answer.status, 200 | 400 | 404), "{path}: {}", answer.text());
        }
    }
    let header = "x".repeat(20_000);
    server.ingest(&[(REPORT_HEADER, &header)], b"").refuses(400, "bad_request");
    assert_eq!(server.get("/readyz").status, 200);
    assert_eq!(server.json("/api/v1/flamegraph")["samples"], 0);
}

#[test]
fn reports_that_are_wrong() {
    let (_directory, server) = running();
    let made = Made::of(1, "cart", 1).stack(&["main"], Completeness::Complete, now() - 1_000_000_000, 3);
    let mut crowded = report(1, 3, 0);
    crowded.dropped = (0..100).map(|n| (format!("reason_{n}"), 1)).collect();
    let mut nameless = report(1, 3, 0);
    nameless.instance = "me".into();
    let json = |report| serde_json::to_string(report).expect("JSON");
    for header in ["", "{", "[]", "{\"taken\":-1}", "{\"taken\":\"x\"}", &json(&crowded), &json(&nameless)] {
        let message = server.ingest(&[(REPORT_HEADER, header)], &made.bytes()).refuses(400, "bad_request");
        assert!(message.contains(REPORT_HEADER), "{message}");
        let (code, _, _) = raw::grpc(server.address, &[(REPORT_HEADER, header)], framed(0, &made.bytes()));
        assert_eq!(code, "3");
    }
    assert_eq!(server.json("/api/v1/flamegraph")["samples"], 0);
}

/// What the answer says of the part that was rejected.
fn rejected(server: &Running, request: &ExportProfilesServiceRequest) -> (i64, String) {
    let answer = server.ingest(&[], &request.encode_to_vec());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let partial = ExportProfilesServiceResponse::decode(answer.body.as_slice()).expect("protobuf").partial_success;
    partial.map(|p| (p.rejected_profiles, p.error_message)).unwrap_or_default()
}

#[test]
fn bad_indexes_reject_what_they_spoil_and_no_more() {
    let (_directory, server) = running();
    let time = now() - 10_000_000_000;
    type Change = fn(&mut ExportProfilesServiceRequest);
    let changes: [(&str, Change); 6] = [
        ("stack", |r| r.resource_profiles[0].scope_profiles[0].profiles[0].samples[0].stack_index = i32::MAX),
        ("negative stack", |r| r.resource_profiles[0].scope_profiles[0].profiles[0].samples[0].stack_index = -1),
        ("location", |r| {
            if let Some(d) = &mut r.dictionary {
                d.stack_table[1].location_indices[0] = 99;
            }
        }),
        ("mapping", |r| {
            if let Some(d) = &mut r.dictionary {
                d.location_table[1].mapping_index = -7;
            }
        }),
        ("string", |r| {
            if let Some(d) = &mut r.dictionary {
                d.function_table[1].name_strindex = i32::MIN;
            }
        }),
        ("no dictionary", |r| r.dictionary = None),
    ];
    for (what, change) in changes {
        let mut request = theirs::request(time);
        change(&mut request);
        let (profiles, message) = rejected(&server, &request);
        assert_eq!(profiles, 1, "{what}: {message}");
        assert!(message.contains("3 samples"), "{what}: {message}");
    }
    assert_eq!(server.json("/api/v1/flamegraph")["samples"], 0);
    // One bad sample beside a good one.
    let mut request = theirs::request(time);
    let samples = &mut request.resource_profiles[0].scope_profiles[0].profiles[0].samples;
    let mut bad = samples[0].clone();
    bad.stack_index = 99;
    samples.push(bad);
    let (_, message) = rejected(&server, &request);
    assert!(message.contains("3 samples"), "{message}");
    assert_eq!(server.json("/api/v1/flamegraph")["samples"], 3);
    // Too old.
    let old = theirs::request(time - 60 * 86_400 * 1_000_000_000);
    let (profiles, message) = rejected(&server, &old);
    assert!(profiles == 1 && message.contains("retention"), "{message}");
}
