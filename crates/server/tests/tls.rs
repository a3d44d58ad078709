//! TLS on the one port: both protocols, certificates that change under open connections,
//! files that cannot be used.

mod common;

use std::fs;

use bytes::Bytes;
use common::{
    authority::Authority,
    batch::{Made, now},
    closed::Closed,
    raw::framed,
    server::store,
};
use everflame_profile::Completeness;
use everflame_server::{Config, Error, Server, tls::TlsFiles};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

fn running(authority: &Authority) -> (Closed, TlsFiles) {
    let mut files = None;
    let server = Closed::on(|config| {
        files = Some(authority.write(&NAMES, &config.data_dir));
        config.tls.clone_from(&files);
    });
    (server, files.expect("files"))
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

async fn connect(server: &Closed, authority: &Authority, protocol: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(server.running.address).await.expect("a connection");
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(authority.client(protocol)).connect(name, stream).await
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().expect("certificates")[0].clone()
}

fn request(server: &Closed, method: &str, path: &str, kind: &str) -> http::request::Builder {
    let uri = format!("https://localhost:{}{path}", server.running.address.port());
    http::Request::builder()
        .method(method)
        .uri(uri)
        .header("host", format!("localhost:{}", server.running.address.port()))
        .header("authorization", format!("Bearer {}", server.token(kind)))
}

#[test]
fn both_protocols_and_grpc_over_tls() {
    let authority = Authority::new();
    let (server, _) = running(&authority);
    block_on(async {
        let stream = connect(&server, &authority, b"http/1.1").await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        let _driver = tokio::spawn(connection);
        let get = request(&server, "GET", "/api/v1/session", "reader of shop").body(Full::<Bytes>::default());
        let answer = sender.send_request(get.expect("a request")).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        drop(answer.into_body().collect().await.expect("a body"));
        // The session's cookie is for TLS only.
        let body = format!("{{\"token\":\"{}\"}}", server.token("reader of shop"));
        let post = request(&server, "POST", "/api/v1/session", "").header("content-type", "application/json");
        let post = post.body(Full::new(Bytes::from(body))).expect("a request");
        let answer = sender.send_request(post).await.expect("an answer");
        let cookie = answer.headers().get("set-cookie").and_then(|v| v.to_str().ok()).expect("a cookie");
        assert!(cookie.contains("; Secure"), "{cookie}");

        let stream = connect(&server, &authority, b"h2").await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
        let _driver = tokio::spawn(connection);
        let made = Made::of(1, "cart", 1).stack(&["main"], Completeness::Complete, now() - 1_000_000_000, 3);
        let uri =
            format!("https://localhost:{}{}", server.running.address.port(), everflame_server::ingest::grpc::EXPORT);
        let post = http::Request::post(uri)
            .header("content-type", "application/grpc")
            .header("authorization", format!("Bearer {}", server.token("agent of shop")))
            .body(Full::new(Bytes::from(framed(0, &made.bytes()))))
            .expect("a request");
        let answer = sender.send_request(post).await.expect("an answer").into_body().collect().await.expect("a body");
        let trailers = answer.trailers().expect("trailers");
        assert_eq!(trailers.get("grpc-status").map(|v| v.as_bytes()), Some(&b"0"[..]));
    });
}

#[test]
fn a_new_certificate_is_used_at_once_and_a_broken_one_is_not() {
    let authority = Authority::new();
    let (server, files) = running(&authority);
    block_on(async {
        let stream = connect(&server, &authority, b"http/1.1").await.expect("a handshake");
        let first = shown(&stream);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        let _driver = tokio::spawn(connection);
        let mut ask = async || {
            let get = request(&server, "GET", "/readyz", "").body(Full::<Bytes>::default()).expect("a request");
            let answer = sender.send_request(get).await.expect("the connection is as it was");
            let status = answer.status().as_u16();
            drop(answer.into_body().collect().await.expect("a body"));
            status
        };
        assert_eq!(ask().await, 200);
        let current = async || shown(&connect(&server, &authority, b"http/1.1").await.expect("a handshake"));
        // Half of a pair, as it stands between two writes, is not used.
        let (certificate, key) = authority.pair(&NAMES);
        fs::write(&files.certificate, &certificate).expect("a write");
        assert_eq!(current().await, first);
        fs::write(&files.key, &key).expect("a write");
        let second = current().await;
        assert_ne!(second, first);
        for (path, content) in [(&files.certificate, "no certificate"), (&files.key, ""), (&files.key, "-----BEGIN")] {
            fs::write(path, content).expect("a write");
            assert_eq!(current().await, second);
        }
        fs::remove_file(&files.key).expect("a removal");
        assert_eq!(current().await, second);
        assert_eq!(ask().await, 200);
        // What was put in place of files, as secrets are mounted, is new as well.
        let (certificate, key) = authority.pair(&NAMES);
        fs::write(&files.key, &key).expect("a write");
        fs::write(&files.certificate, &certificate).expect("a write");
        assert_ne!(current().await, second);
        assert_eq!(ask().await, 200);
        let get = request(&server, "GET", "/metrics", "admin").body(Full::<Bytes>::default()).expect("a request");
        let figures = sender.send_request(get).await.expect("an answer").into_body().collect().await.expect("a body");
        let figures = String::from_utf8_lossy(&figures.to_bytes()).into_owned();
        assert!(figures.contains("everflame_tls_reloads_total 2"), "{figures}");
        assert!(!figures.contains("everflame_tls_failed_reloads_total 0"), "{figures}");
    });
}

#[test]
fn strangers_to_tls_hurt_nobody() {
    let authority = Authority::new();
    let (server, _) = running(&authority);
    let plain = common::raw::send(server.running.address, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(!plain.contains("200 OK"), "{plain}");
    block_on(async {
        let other = Authority::new();
        let error = connect(&server, &other, b"h2").await.expect_err("another authority");
        assert!(error.to_string().contains("UnknownIssuer"), "{error}");
        connect(&server, &authority, b"h2").await.expect("a handshake");
    });
}

#[test]
fn files_that_cannot_be_used_are_named_at_the_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let files = Authority::new().write(&NAMES, directory.path());
    let bind = |files: &TlsFiles| {
        let mut config = Config::new("127.0.0.1:0".parse().expect("an address"), directory.path());
        config.tls = Some(files.clone());
        match Server::bind(config, store(directory.path())) {
            Ok(server) => panic!("{server:?} was started"),
            Err(error @ Error::Tls(_)) => error.to_string(),
            Err(error) => panic!("{error}"),
        }
    };
    let missing = TlsFiles { certificate: directory.path().join("nowhere.pem"), ..files.clone() };
    assert!(bind(&missing).contains("nowhere.pem"));
    let swapped = TlsFiles { certificate: files.key.clone(), key: files.certificate.clone() };
    assert!(bind(&swapped).contains("server.key"), "{}", bind(&swapped));
    let other = directory.path().join("other.key");
    fs::write(&other, Authority::new().pair(&NAMES).1).expect("a write");
    let wrong = bind(&TlsFiles { key: other, ..files.clone() });
    assert!(wrong.contains("other.key") && wrong.contains("cannot be used together"), "{wrong}");
}
