//! The agent's own listener over real connections.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use everflame_agent::status::{Metrics, Status, StatusServer};

#[derive(Default)]
struct Facts {
    ready: AtomicBool,
}

impl Status for Facts {
    fn ready(&self) -> Result<(), String> {
        if self.ready.load(SeqCst) { Ok(()) } else { Err("no batch yet".to_string()) }
    }

    fn metrics(&self, metrics: &mut Metrics) {
        metrics.counter("samples_dropped", "Samples dropped.", &[("reason", "a\"b")], 3.0);
        metrics.counter("samples_dropped", "Samples dropped.", &[("reason", "c")], 4.0);
        metrics.gauge("cpus", "CPUs.", &[], 2.0);
    }
}

fn ask(address: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{head}\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn answers_under_its_own_name_only() {
    let facts = Arc::new(Facts::default());
    let server =
        StatusServer::start(StatusServer::bind("127.0.0.1:0".parse().unwrap()).unwrap(), facts.clone()).unwrap();
    let own = server.address();
    let get = |path: &str, host: &str| ask(own, &format!("GET {path} HTTP/1.1\r\nHost: {host}"));
    let own_name = own.to_string();
    assert!(get("/healthz", &own_name).starts_with("HTTP/1.1 200"));
    assert!(get("/healthz", &format!("localhost:{}", own.port())).starts_with("HTTP/1.1 200"));
    for other in ["evil.example", "127.0.0.1", &format!("evil.example:{}", own.port()), "127.0.0.1:1", ""] {
        assert!(get("/metrics", other).starts_with("HTTP/1.1 403"), "{other}");
    }
    let from_page = ask(own, &format!("GET /metrics HTTP/1.1\r\nHost: {own_name}\r\nOrigin: http://evil.example"));
    assert!(from_page.starts_with("HTTP/1.1 403"));
    assert!(get("/readyz", &own_name).starts_with("HTTP/1.1 503"));
    facts.ready.store(true, SeqCst);
    assert!(get("/readyz", &own_name).starts_with("HTTP/1.1 200"));
    assert!(get("/other", &own_name).starts_with("HTTP/1.1 404"));
    assert!(ask(own, &format!("POST /healthz HTTP/1.1\r\nHost: {own_name}")).starts_with("HTTP/1.1 405"));
    let text = get("/metrics", &own_name);
    let body = text.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(
        body,
        "# HELP everflame_agent_samples_dropped_total Samples dropped.\n\
         # TYPE everflame_agent_samples_dropped_total counter\n\
         everflame_agent_samples_dropped_total{reason=\"a\\\"b\"} 3\n\
         everflame_agent_samples_dropped_total{reason=\"c\"} 4\n\
         # HELP everflame_agent_cpus CPUs.\n\
         # TYPE everflame_agent_cpus gauge\n\
         everflame_agent_cpus 2\n"
    );
}
