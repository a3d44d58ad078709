//! Noise at every other door: query parameters, gRPC messages, bytes that are no HTTP/2. The
//! server refuses, says so, and goes on.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use everflame_tests::{Everflame, Outcome};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;

const EXPORT: &str = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export";

/// Pieces of which parameters are made: right, wrong, and absurd.
const PIECES: [&str; 24] = [
    "now",
    "now-15m",
    "-1",
    "0",
    "1e308",
    "NaN",
    "18446744073709551616",
    "{process=\"a\"}",
    "{",
    "}",
    "{a=~\"(((((\"}",
    "{\"k8s.pod.name\"!=\"\"}",
    "function",
    "process,thread",
    "true",
    "cpu",
    "\u{0}",
    "ä\u{202e}",
    "1970-01-01T00:00:00Z",
    "9999-12-31T23:59:60Z",
    "{a=~\"(a*)*b\"}",
    "now-99999999999w",
    "../../etc/passwd",
    "%",
];

pub fn noise_in_query_parameters() -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Everflame::server(0, folder.path());
    let api = server.api().clone();
    let mut next = random(7);
    let paths = [
        "flamegraph",
        "top",
        "series",
        "diff",
        "labels",
        "labels/process/values",
        "processes",
        "nodes",
        "symbols",
        "types",
        "accounting",
    ];
    let names = [
        "query",
        "from",
        "until",
        "type",
        "group",
        "by",
        "step",
        "limit",
        "offset",
        "max_nodes",
        "granularity",
        "focus",
        "invert",
        "root",
        "ids",
        "sort",
    ];
    let long = "x".repeat(6_000);
    let mut seen = std::collections::BTreeMap::<u16, u32>::new();
    for round in 0..600 {
        let mut parameters: Vec<(&str, &str)> =
            (0..1 + next(4)).map(|_| (names[next(names.len())], PIECES[next(PIECES.len())])).collect();
        if round % 50 == 0 {
            parameters.push(("query", &long));
        }
        let path = format!("/api/v1/{}", paths[next(paths.len())]);
        let (status, body) = api.get(&path, &parameters);
        assert!(matches!(status, 200 | 400 | 404 | 414), "{path} {parameters:?}: {status} {body:.300}");
        assert!(
            serde_json::from_str::<serde_json::Value>(&body).is_ok(),
            "{path} {parameters:?}: no JSON: {body:.300}"
        );
        *seen.entry(status).or_default() += 1;
    }
    println!("600 odd queries: {seen:?} (status: how many)");
    lives(&mut server);
    Ok(())
}

pub fn noise_over_grpc() -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Everflame::server(0, folder.path());
    let mut next = random(11);
    let good = prost::Message::encode_to_vec(&super::otlp::request("noise", [7; 16]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut refused = 0;
    runtime.block_on(async {
        let address = tonic::transport::Endpoint::from_shared(server.api().url().to_owned()).unwrap();
        let mut grpc = tonic::client::Grpc::new(address.connect().await.unwrap());
        for round in 0..200 {
            let mut message = good.clone();
            match round % 3 {
                0 => message = (0..next(2_000)).map(|_| next(256) as u8).collect(),
                1 => message.truncate(next(good.len())),
                _ => (0..1 + next(6)).for_each(|_| message[next(good.len())] = next(256) as u8),
            }
            grpc.ready().await.unwrap();
            let answer = grpc.unary(tonic::Request::new(message), PathAndQuery::from_static(EXPORT), Bytes).await;
            if let Err(status) = answer {
                use tonic::Code::{Internal, InvalidArgument};
                // A message that cannot be decoded is the codec's to refuse.
                assert!(matches!(status.code(), InvalidArgument | Internal), "round {round}: {status:?}");
                refused += 1;
            }
        }
    });
    drop(runtime);
    println!("200 damaged gRPC messages: {refused} refused as a whole");
    assert!(refused > 50);
    // No HTTP/2 at all behind its greeting, and greetings that end in the middle.
    for round in 0..40 {
        let mut stream = TcpStream::connect(server.api().address()).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.truncate(if round % 4 == 0 { next(24) } else { 24 });
        bytes.extend((0..next(500)).map(|_| next(256) as u8));
        // It may hang up on us at any byte.
        let _ = stream.write_all(&bytes);
    }
    lives(&mut server);
    Ok(())
}

fn lives(server: &mut Everflame) {
    assert!(server.alive());
    assert_eq!(server.api().try_status("/healthz"), Some(200));
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
}

fn random(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below.max(1)
    }
}

/// Sends bytes as they are, whatever a message should be.
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Bytes;
    type Decoder = Bytes;

    fn encoder(&mut self) -> Bytes {
        Bytes
    }

    fn decoder(&mut self) -> Bytes {
        Bytes
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        prost::bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, tonic::Status> {
        let mut bytes = vec![0; prost::bytes::Buf::remaining(buffer)];
        prost::bytes::Buf::copy_to_slice(buffer, &mut bytes);
        Ok(Some(bytes))
    }
}
