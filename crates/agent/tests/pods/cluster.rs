//! An API server that can be made to do what a real one does rarely: forget, refuse, go away.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use everflame_agent::who::kubernetes::{Access, Secret, Watch, WatchOptions};
use serde_json::{Value, json};

pub const NODE: &str = "node-1";

#[derive(Debug, Default)]
pub struct State {
    version: u64,
    pods: BTreeMap<String, Value>,
    /// Version, type and object of each event.
    log: Vec<(u64, &'static str, Value)>,
    /// Watches from before this version are told that it is gone.
    oldest: u64,
    /// The token that is asked for.
    pub token: Option<String>,
    /// Paths that are forbidden, by how they begin.
    pub forbidden: Vec<String>,
    /// Connections are closed without an answer.
    pub down: bool,
    /// Watches that are under way say nothing from now on, and stay open.
    pub silent: bool,
    /// Other objects by path.
    pub objects: HashMap<String, Value>,
    /// Every request's path and query.
    pub requests: Vec<String>,
}

/// A cluster, and the address of its API server.
#[derive(Debug, Clone)]
pub struct Cluster {
    state: Arc<(Mutex<State>, Condvar)>,
    pub url: String,
}

impl Cluster {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let cluster = Self { state: Arc::default(), url };
        cluster.state().version = 100;
        let serving = cluster.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let cluster = serving.clone();
                std::thread::spawn(move || cluster.serve(stream.unwrap()));
            }
        });
        cluster
    }

    /// Follows the node's pods with no token.
    pub fn watch(&self) -> Watch {
        self.watch_with(None, &[])
    }

    pub fn watch_with(&self, token: Option<Secret>, labels: &[&str]) -> Watch {
        let access = Access { server: self.url.clone(), token, ..Access::default() };
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        Watch::start(WatchOptions { access, node: NODE.into(), labels }).unwrap()
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap()
    }

    /// Changes something and wakes who waits.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.state.1.notify_all();
        result
    }

    pub fn put(&self, pod: Value) {
        self.change(|state| state.put(pod));
    }

    pub fn delete(&self, uid: &str) {
        self.change(|state| {
            state.version += 1;
            let mut pod = state.pods.remove(uid).unwrap();
            pod["metadata"]["resourceVersion"] = json!(state.version.to_string());
            state.log.push((state.version, "DELETED", pod));
        });
    }

    /// Sends a bookmark to who watches.
    pub fn bookmark(&self) {
        self.change(|state| {
            state.version += 1;
            let object = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": state.version.to_string(), "creationTimestamp": null}, "spec": {"containers": null}, "status": {}});
            state.log.push((state.version, "BOOKMARK", object));
        });
    }

    /// Forgets what happened up to now.
    pub fn forget(&self) {
        self.change(|state| {
            state.version += 1;
            state.oldest = state.version;
            state.log.clear();
        });
    }

    /// Ends every watch, as a server does that restarts, and takes new ones.
    pub fn hang_up(&self) {
        self.change(|state| state.down = true);
        std::thread::sleep(Duration::from_millis(100));
        self.change(|state| state.down = false);
    }

    pub fn requests(&self, containing: &str) -> usize {
        self.state().requests.iter().filter(|request| request.contains(containing)).count()
    }

    fn serve(&self, stream: TcpStream) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        loop {
            let Some(Ok(request)) = lines.next() else { return };
            let mut authorization = String::new();
            for line in lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()) {
                if let Some((name, value)) = line.split_once(": ")
                    && name.eq_ignore_ascii_case("authorization")
                {
                    authorization = value.to_owned();
                }
            }
            if self.state().down {
                return;
            }
            let target = request.split(' ').nth(1).unwrap().to_owned();
            self.state().requests.push(target.clone());
            if self.answer(&stream, &target, &authorization).is_none() {
                return;
            }
        }
    }

    /// `None` where the connection is to be closed.
    fn answer(&self, mut stream: &TcpStream, target: &str, authorization: &str) -> Option<()> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query: HashMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let state = self.state();
        let (code, body) = if state.token.as_ref().is_some_and(|token| authorization != format!("Bearer {token}")) {
            (401, failure(401, "Unauthorized"))
        } else if state.forbidden.iter().any(|start| path.starts_with(start.as_str())) {
            (403, failure(403, "the account may not do that"))
        } else if path != "/api/v1/pods" {
            match state.objects.get(path) {
                Some(object) => (200, object.clone()),
                None => (404, failure(404, "not found")),
            }
        } else if query.get("fieldSelector") != Some(&"spec.nodeName%3Dnode-1") {
            (400, failure(400, "the test wants a watch limited to its node"))
        } else if query.contains_key("watch") {
            let from: u64 = query["resourceVersion"].parse().unwrap();
            if from >= state.oldest {
                assert_eq!(query["allowWatchBookmarks"], "true");
                drop(state);
                return self.stream(stream, from);
            }
            (410, failure(410, "too old resource version"))
        } else {
            let items: Vec<_> = state.pods.values().collect();
            let version = state.version.to_string();
            (
                200,
                json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}),
            )
        };
        drop(state);
        let body = body.to_string();
        let head =
            format!("HTTP/1.1 {code} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body.as_bytes()).ok()
    }

    /// Events from a version on, until the server goes down.
    fn stream(&self, mut stream: &TcpStream, mut from: u64) -> Option<()> {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
            .ok()?;
        let until = Instant::now() + Duration::from_secs(60);
        let mut state = self.state();
        let mut silent = false;
        while (silent || Instant::now() < until) && !state.down {
            silent |= state.silent;
            if silent {
                state = self.state.1.wait_timeout(state, Duration::from_millis(50)).unwrap().0;
                continue;
            }
            if from < state.oldest {
                let event = json!({"type": "ERROR", "object": failure(410, "too old resource version")});
                return chunk(stream, &event).and_then(|()| stream.write_all(b"0\r\n\r\n").ok());
            }
            let before = from;
            for (version, kind, object) in state.log.iter().filter(|(version, ..)| *version > before) {
                chunk(stream, &json!({"type": kind, "object": object}))?;
                from = *version;
            }
            state = self.state.1.wait_timeout(state, Duration::from_millis(50)).unwrap().0;
        }
        None
    }
}

impl State {
    pub fn put(&mut self, mut pod: Value) {
        self.version += 1;
        pod["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
        let kind = if self.pods.insert(uid, pod.clone()).is_none() { "ADDED" } else { "MODIFIED" };
        self.log.push((self.version, kind, pod));
    }
}

fn chunk(mut stream: &TcpStream, event: &Value) -> Option<()> {
    let text = format!("{event}\n");
    stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).ok()
}

fn failure(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": code})
}

/// Waits until it is so.
pub fn until(what: &str, so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !so() {
        assert!(Instant::now() < end, "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn uid(number: usize) -> String {
    format!("{number:08x}-b29f-11e7-9350-020968147796")
}

pub fn id(number: usize) -> String {
    format!("{number:064x}")
}

/// A pod of a Deployment as the API server has it, large as real ones are, with a container `app`
/// and a sidecar; of ids 2n and 2n + 1 once they `run`.
pub fn pod(number: usize, runs: bool) -> Value {
    let status = |name: &str, number: usize| {
        json!({"name": name, "image": format!("registry.example/shop/{name}:v1"), "containerID": format!("containerd://{}", id(number)),
               "state": {"running": {"startedAt": "2026-11-27T08:00:05Z"}}, "lastState": {}, "ready": true, "restartCount": 0})
    };
    let statuses =
        if runs { json!([status("app", 2 * number), status("istio-proxy", 2 * number + 1)]) } else { json!([]) };
    let ballast = "x".repeat(4096);
    json!({
        "metadata": {
            "name": format!("cart-7d9f-{number}"), "namespace": "shop", "uid": uid(number),
            "creationTimestamp": "2026-11-27T08:00:05Z",
            "labels": {"app.kubernetes.io/name": "cart", "pod-template-hash": "7d9f", "version": "v1"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": ballast},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-7d9f", "uid": "rs-1", "controller": true}],
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {"f:conditions": ballast}}}],
        },
        "spec": {
            "nodeName": NODE,
            "containers": [{"name": "app", "image": "registry.example/shop/app:v1"}, {"name": "istio-proxy", "image": "istio/proxyv2:1.28.0"}],
        },
        "status": {"phase": "Running", "containerStatuses": statuses},
    })
}
