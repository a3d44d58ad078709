//! The API as a client sees it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::graph::Graph;
use crate::machine::wait_for;

/// A server's address and a client for it.
#[derive(Debug, Clone)]
pub struct Api {
    url: String,
    agent: ureq::Agent,
    /// What `authorization` says, where the server wants to know who asks.
    authorization: Option<String>,
}

/// Parameters of a query.
pub type Parameters<'a> = &'a [(&'a str, &'a str)];

const ANSWER_LIMIT: u64 = 1 << 30;

impl Api {
    /// A client of `url` (`http://ADDR:PORT`).
    pub fn new(url: &str) -> Self {
        Self { url: url.trim_end_matches('/').to_owned(), agent: client(None), authorization: None }
    }

    /// The same over TLS, with the certificate (PEM) of the one authority that is believed, and a token.
    pub fn closed(url: &str, authority: &str, token: &str) -> Self {
        let certificate = ureq::tls::Certificate::from_pem(authority.as_bytes()).unwrap();
        let tls = ureq::tls::TlsConfig::builder()
            .root_certs(ureq::tls::RootCerts::Specific(Arc::new(vec![certificate])))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        Self { agent: client(Some(tls)), authorization: Some(format!("Bearer {token}")), ..Self::new(url) }
    }

    /// The same with a token.
    #[must_use]
    pub fn with_token(self, token: &str) -> Self {
        Self { authorization: Some(format!("Bearer {token}")), ..self }
    }

    fn ask(&self, path: &str) -> ureq::RequestBuilder<ureq::typestate::WithoutBody> {
        let request = self.agent.get(format!("{}{path}", self.url));
        match &self.authorization {
            Some(value) => request.header("authorization", value),
            None => request,
        }
    }

    /// `http://ADDR:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `ADDR:PORT`.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Status of a path, or nothing where nobody answers.
    pub fn try_status(&self, path: &str) -> Option<u16> {
        self.ask(path).call().ok().map(|answer| answer.status().as_u16())
    }

    /// Status and body of a GET.
    pub fn get(&self, path: &str, parameters: Parameters<'_>) -> (u16, String) {
        let mut request = self.ask(path);
        for (name, value) in parameters {
            request = request.query(name, value);
        }
        let mut answer = request.call().unwrap_or_else(|error| panic!("GET {path}: {error}"));
        let body = answer.body_mut().with_config().limit(ANSWER_LIMIT).read_to_string().unwrap();
        (answer.status().as_u16(), body)
    }

    /// The JSON of a GET that must succeed.
    pub fn json(&self, path: &str, parameters: Parameters<'_>) -> Value {
        let (status, body) = self.get(path, parameters);
        assert_eq!(status, 200, "GET {path} {parameters:?}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("GET {path}: {error}: {body:.200}"))
    }

    /// The JSON of a GET, or nothing where it does not succeed (a server that is away).
    pub fn try_json(&self, path: &str) -> Option<Value> {
        let mut answer = self.ask(path).call().ok()?;
        if answer.status().as_u16() != 200 {
            return None;
        }
        serde_json::from_str(&answer.body_mut().read_to_string().ok()?).ok()
    }

    /// Status and body of a POST of bytes.
    pub fn post(&self, path: &str, headers: Parameters<'_>, body: &[u8]) -> (u16, Vec<u8>) {
        let mut request = self.agent.post(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut answer = request.send(body).unwrap_or_else(|error| panic!("POST {path}: {error}"));
        let bytes = answer.body_mut().with_config().limit(ANSWER_LIMIT).read_to_vec().unwrap();
        (answer.status().as_u16(), bytes)
    }

    /// Status of a PUT of bytes.
    pub fn put(&self, path: &str, body: &[u8]) -> u16 {
        let answer = self.agent.put(format!("{}{path}", self.url)).send(body);
        answer.unwrap_or_else(|error| panic!("PUT {path}: {error}")).status().as_u16()
    }

    /// The whole flame graph of a query over the last hour, without group levels.
    pub fn graph(&self, query: &str) -> Graph {
        self.graph_with(query, &[])
    }

    /// The same with further parameters.
    pub fn graph_with(&self, query: &str, more: Parameters<'_>) -> Graph {
        // `until` is exclusive: the end of the range is a second ahead.
        let until = (unix_now() + 1).to_string();
        let mut parameters =
            vec![("query", query), ("from", "now-1h"), ("until", &until), ("group", ""), ("max_nodes", "0")];
        parameters.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
        parameters.extend_from_slice(more);
        Graph::new(&self.json("/api/v1/flamegraph", &parameters))
    }

    /// Samples stored of a query in the last hour.
    pub fn samples(&self, query: &str) -> u64 {
        self.graph(query).samples
    }

    /// Waits until at least `wanted` samples of a query are stored.
    pub fn wait_for_samples(&self, query: &str, wanted: u64) -> u64 {
        wait_for(&format!("{wanted} samples of {query}"), Duration::from_secs(60), || {
            let samples = self.samples(query);
            (samples >= wanted).then_some(samples)
        })
    }

    /// Waits until the number of samples of a query has stood still for `quiet`: what was
    /// in flight has arrived.
    pub fn settle(&self, query: &str, quiet: Duration) -> u64 {
        let (mut last, mut since) = (self.samples(query), std::time::Instant::now());
        let start = since;
        while since.elapsed() < quiet {
            assert!(start.elapsed() < Duration::from_secs(120), "samples of {query} never stop arriving");
            std::thread::sleep(Duration::from_millis(500));
            let now = self.samples(query);
            if now != last {
                (last, since) = (now, std::time::Instant::now());
            }
        }
        last
    }

    /// A figure of `/metrics`, by its name with its labels as they are written there.
    pub fn figure(&self, name: &str) -> f64 {
        let text = self.get("/metrics", &[]).1;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    /// The accounting of every agent instance.
    pub fn accounting(&self) -> Vec<Value> {
        self.json("/api/v1/accounting", &[])["instances"].as_array().cloned().unwrap_or_default()
    }
}

fn client(tls: Option<ureq::tls::TlsConfig>) -> ureq::Agent {
    let config =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(60)));
    match tls {
        Some(tls) => config.tls_config(tls),
        None => config,
    }
    .build()
    .new_agent()
}

/// Unix time in seconds.
pub fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// The same with fractions.
pub fn unix_now_seconds() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// `taken - idle - stored - in flight - dropped` of an instance: 0.
pub fn residual(instance: &Value) -> i64 {
    number(&instance["taken"])
        - number(&instance["idle"])
        - number(&instance["stored"])
        - sum(&instance["in_flight"])
        - sum(&instance["dropped"])
}

/// A whole number.
pub fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("not a whole number: {value}"))
}

/// Sum of an object of whole numbers.
pub fn sum(object: &Value) -> i64 {
    object.as_object().unwrap_or_else(|| panic!("not an object: {object}")).values().map(number).sum()
}
