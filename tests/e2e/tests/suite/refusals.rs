//! What the server refuses: bytes that are no profile, requests that are too large, strangers
//! from other web pages, parameters that make no sense. It says what to do and goes on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use everflame_tests::{Api, Everflame, Outcome};
use prost::Message;
use serde_json::Value;

const PROFILES: &str = "/v1development/profiles";
const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");

pub fn random_bytes_are_refused_clearly() -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Everflame::server(0, folder.path());
    let api = server.api().clone();
    let good = super::otlp::request("mutant", [9; 16]).encode_to_vec();
    let mut random = 42u64;
    let mut next = move |below: usize| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) as usize % below
    };
    let mut seen = std::collections::BTreeMap::<u16, u32>::new();
    for round in 0..400 {
        let mut body = good.clone();
        match round % 4 {
            0 => body = (0..next(4096)).map(|_| next(256) as u8).collect(),
            1 => body.truncate(next(good.len())),
            _ => (0..1 + next(8)).for_each(|_| body[next(good.len())] = next(256) as u8),
        }
        let encoding = ["identity", "gzip", "zstd"][next(3)];
        let headers = if round % 8 == 7 { vec![PROTOBUF, ("content-encoding", encoding)] } else { vec![PROTOBUF] };
        let (status, answer) = api.post(PROFILES, &headers, &body);
        assert!(
            matches!(status, 200 | 400 | 413 | 415 | 422),
            "round {round}: {status} {}",
            String::from_utf8_lossy(&answer)
        );
        *seen.entry(status).or_default() += 1;
        if round % 20 == 0 {
            let status = api.put("/api/v1/symbols/00ff", &body);
            assert!(matches!(status, 400 | 413 | 415 | 422), "an index of noise: {status}");
        }
    }
    println!("400 damaged requests: {seen:?} (status: how many)");
    assert!(seen.contains_key(&400), "random bytes are no profile");
    // A length of an exabyte, and a table of a million empty entries.
    let (status, answer) = api.post(PROFILES, &[PROTOBUF], &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    refused(status, &answer, 400);
    // 100 MB of zeros in 100 kB of gzip: more than 64 MiB after decompression.
    let (status, answer) = api.post(PROFILES, &[PROTOBUF, ("content-encoding", "gzip")], &zeros(100_000_000));
    refused(status, &answer, 413);
    let (status, answer) = api.post(PROFILES, &[("content-type", "text/plain")], b"hello");
    refused(status, &answer, 415);
    assert_eq!(api.try_status("/healthz"), Some(200));
    assert!(server.alive());
    let log = server.stop();
    assert!(!log.contains("panicked"), "{log}");
    Ok(())
}

pub fn strangers_and_wrong_parameters() -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let server = Everflame::server(0, folder.path());
    let api = server.api();
    let own = api.address();
    assert_eq!(raw(api, own, ""), 200);
    assert_eq!(raw(api, "evil.example", ""), 403, "a Host that is not the listener's");
    assert_eq!(raw(api, own, "Origin: http://evil.example\r\n"), 403, "an Origin that is not the listener's");
    assert_eq!(raw(api, own, &format!("Origin: http://{own}\r\n")), 200);

    let wrong: &[(&str, &[(&str, &str)])] = &[
        ("/api/v1/flamegraph", &[("from", "now"), ("until", "now-1h")]),
        ("/api/v1/flamegraph", &[("from", "yesterday")]),
        ("/api/v1/flamegraph", &[("query", "{process=")]),
        ("/api/v1/flamegraph", &[("query", "{process=~\"(\"}")]),
        ("/api/v1/flamegraph", &[("max_nodes", "-1")]),
        ("/api/v1/top", &[("by", "colour")]),
        ("/api/v1/series", &[("step", "0")]),
    ];
    for (path, parameters) in wrong {
        let (status, body) = api.get(path, parameters);
        assert_eq!(status, 400, "{path} {parameters:?}: {body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["error"]["code"], "bad_request", "{body}");
        assert!(answer["error"]["message"].as_str().is_some_and(|message| message.len() > 10), "{body}");
    }
    let (status, body) = api.get("/api/v1/nothing-here", &[]);
    assert_eq!(status, 404, "{body}");
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["error"]["code"], "not_found");
    assert_eq!(api.post("/api/v1/flamegraph", &[], b"").0, 405);
    // No match is no error.
    let graph = api.graph("{process=\"there is no such\"}");
    assert_eq!((graph.samples, graph.paths.len()), (0, 0));
    for path in ["/healthz", "/readyz", "/metrics", "/"] {
        assert_eq!(api.try_status(path), Some(200), "{path}");
    }
    server.stop();
    Ok(())
}

fn refused(status: u16, answer: &[u8], expected: u16) {
    assert_eq!(status, expected, "{}", String::from_utf8_lossy(answer));
}

/// Zeros in gzip, by the machine's own.
fn zeros(bytes: usize) -> Vec<u8> {
    let output = std::process::Command::new("sh")
        .args(["-c", &format!("head -c {bytes} /dev/zero | gzip -9")])
        .output()
        .unwrap();
    output.stdout
}

/// Status of a request with headers of one's own choice.
fn raw(api: &Api, host: &str, more: &str) -> u16 {
    let mut stream = TcpStream::connect(api.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET /api/v1/types HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status in {answer:?}"))
}
