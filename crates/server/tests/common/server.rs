//! A real server on a free port of the loopback, over a real store in a directory.

use std::{net::SocketAddr, path::Path, sync::Arc, thread::JoinHandle};

use everflame_server::{Config, Server};
use everflame_store::{Embedded, Options, Store};
use serde_json::Value;
use tokio::sync::oneshot;

pub struct Running {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("not JSON: {e}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Checks that this is a refusal in the contract's form, with a message.
    pub fn refuses(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        let error = &self.json()["error"];
        assert_eq!(error["code"], code);
        let message = error["message"].as_str().expect("a message");
        assert!(!message.is_empty());
        message.to_owned()
    }
}

/// A store as the program opens it.
pub fn store(directory: &Path) -> Arc<dyn Store> {
    Arc::new(Embedded::open(Options::new(directory)).expect("a store"))
}

impl Running {
    pub fn start(directory: &Path) -> Self {
        Self::with(Config::new("127.0.0.1:0".parse().expect("an address"), directory), store(directory))
    }

    pub fn with(config: Config, store: Arc<dyn Store>) -> Self {
        let server = Server::bind(config, store).expect("a port");
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            let shutdown = async {
                let _ = stopped.await;
            };
            runtime.expect("a runtime").block_on(server.serve(shutdown)).expect("a clean stop");
        });
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], &[])
    }

    pub fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    pub fn ingest(&self, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut all = vec![("content-type", "application/x-protobuf")];
        all.extend_from_slice(headers);
        self.request("POST", "/v1development/profiles", &all, body)
    }

    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).allow_non_standard_methods(true).build().into();
        let mut request = http::Request::builder().method(method).uri(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = if method == "GET" || method == "HEAD" {
            agent.run(request.body(()).expect("a request"))
        } else {
            agent.run(request.body(body).expect("a request"))
        };
        let mut response = response.unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        let body = response.body_mut().with_config().limit(1 << 30).read_to_vec().expect("a body");
        Answer { status: response.status().as_u16(), headers: response.headers().clone(), body }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.expect("a thread").expect("no panic");
        }
    }
}
