//! Follows the pods of one node: a list, then a watch from where the list ended. A watch that
//! ends in order goes on from its last event; what the server has forgotten (410) is listed
//! anew. While the server is away, what was known stays.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    io,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use rustc_hash::FxHashSet;
use serde::{
    Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{
    client::{Client, ClientError},
    config::Access,
    object::{Event, Metadata, Object, OwnerReference},
    owners::Owners,
    pods::{GRACE, Pods},
};
use crate::export::Backoff;

/// How long one watch lasts at most: so long, and up to a quarter less.
const WATCH: Duration = Duration::from_secs(300);
/// How long a watch may be silent. The server sends a bookmark about once a minute.
const SILENCE: Duration = Duration::from_secs(150);
/// How long a list may pause.
const LIST_PAUSE: Duration = Duration::from_secs(30);
/// Longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often the gone are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// What to follow.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// The API server.
    pub access: Access,
    /// The node's name in Kubernetes.
    pub node: String,
    /// Labels of pods that become attributes.
    pub labels: Vec<String>,
}

impl WatchOptions {
    /// With further labels.
    pub fn with_labels<'a>(mut self, labels: impl IntoIterator<Item = &'a str>) -> Self {
        for label in labels {
            if self.labels.iter().all(|known| known != label) {
                self.labels.push(label.to_owned());
            }
        }
        self
    }
}

/// What became of it, since it began.
#[derive(Debug, Default)]
pub struct WatchStats {
    /// Events, bookmarks left out.
    pub events: AtomicU64,
    /// Bookmarks.
    pub bookmarks: AtomicU64,
    /// Complete lists.
    pub lists: AtomicU64,
    /// Watches begun.
    pub watches: AtomicU64,
    /// Attempts that failed.
    pub failures: AtomicU64,
    /// Times that the server had forgotten where we were.
    pub expired: AtomicU64,
    /// Owners that were asked for.
    pub owners_asked: AtomicU64,
    /// Whether the last attempt succeeded.
    pub connected: AtomicBool,
    failure: Mutex<Option<String>>,
}

impl WatchStats {
    /// Why the last attempt failed, if it did.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A watch under way. Its thread waits on the network and is left behind when this is dropped:
/// it ends with what it waits for.
#[derive(Debug)]
pub struct Watch {
    pods: Arc<Pods>,
    stats: Arc<WatchStats>,
    stop: Arc<Stop>,
}

#[derive(Debug, Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Waits; whether to stop.
    fn wait(&self, pause: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(stopped, pause, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Watch {
    /// Begins to follow.
    pub fn start(options: WatchOptions) -> io::Result<Self> {
        let (pods, stats, stop) = (Arc::<Pods>::default(), Arc::<WatchStats>::default(), Arc::<Stop>::default());
        let follower = Follower {
            client: Client::new(options.access),
            selector: selector(&options.node),
            node: options.node,
            labels: options.labels,
            owners: Owners::default(),
            since: Since::Any,
            swept: Instant::now(),
            pods: Arc::clone(&pods),
            stats: Arc::clone(&stats),
            stop: Arc::clone(&stop),
        };
        thread::Builder::new().name("kubernetes".into()).spawn(move || follower.run())?;
        Ok(Self { pods, stats, stop })
    }

    /// The pods, as they are known at each moment.
    pub fn pods(&self) -> &Arc<Pods> {
        &self.pods
    }

    /// What became of it.
    pub fn stats(&self) -> &Arc<WatchStats> {
        &self.stats
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        *self.stop.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.changed.notify_all();
    }
}

/// The part of a URL that asks for one node's pods.
fn selector(node: &str) -> String {
    let mut text = String::from("/api/v1/pods?fieldSelector=spec.nodeName%3D");
    for byte in node.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// What a look at a node tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodePods {
    /// Pods on it.
    pub pods: usize,
    /// Whether they may be watched.
    pub may_watch: bool,
}

/// Looks at the pods of a node once, for those who want to know whether that works.
pub fn node_pods(client: &Client, node: &str) -> Result<NodePods, ClientError> {
    let selector = selector(node);
    let mut pods = 0;
    let reader = client.get(&format!("{selector}&resourceVersion=0"), LIST_PAUSE)?;
    let version = serde_json::Deserializer::from_reader(reader).deserialize_map(ListVisitor(&mut |_| pods += 1))?;
    let watch = client.get(&format!("{selector}&watch=1&resourceVersion={version}&timeoutSeconds=1"), LIST_PAUSE);
    match watch {
        Err(ClientError::Status { code: 403, .. }) => Ok(NodePods { pods, may_watch: false }),
        Err(e) => Err(e),
        Ok(_) => Ok(NodePods { pods, may_watch: true }),
    }
}

/// Where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Since {
    /// With a list of any state: one that the server has at hand.
    Any,
    /// With a list of the newest state: it has forgotten where we were.
    Newest,
    /// With a watch from a version on.
    Version(String),
}

struct Follower {
    client: Client,
    selector: String,
    node: String,
    labels: Vec<String>,
    owners: Owners,
    since: Since,
    swept: Instant,
    pods: Arc<Pods>,
    stats: Arc<WatchStats>,
    stop: Arc<Stop>,
}

impl Follower {
    fn run(mut self) {
        tracing::info!("follows the pods of node {} as {} tells them", self.node, self.client.server());
        let mut backoff = Backoff::up_to(LONGEST_PAUSE);
        let random = RandomState::new();
        let mut turn = 0u64;
        loop {
            turn += 1;
            let length = WATCH - WATCH / 4 * (random.hash_one(turn) % 256) as u32 / 256;
            let (began, since) = (Instant::now(), self.since.clone());
            let done = match &since {
                Since::Version(version) => self.watch(version, length),
                _ => self.list(),
            };
            self.sweep();
            let pause = match done {
                Ok(()) => {
                    self.succeeded();
                    backoff.succeeded();
                    Duration::ZERO
                }
                Err(e) => {
                    // A server that has forgotten where we were is there: it is asked for a list at once. And
                    // one that has told of pods for a while is as good as new when it goes.
                    let forgot = e.is_gone() && matches!(since, Since::Version(_));
                    if forgot || began.elapsed() > LONGEST_PAUSE {
                        backoff.succeeded();
                    }
                    self.failed(&e);
                    backoff.failed(None)
                }
            };
            if self.stop.wait(pause) {
                return;
            }
        }
    }

    fn succeeded(&self) {
        let failed = self.stats.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        if failed.is_some() {
            tracing::info!("the API server is there again: {} pods are known", self.pods.len().0);
        }
        self.stats.connected.store(true, Relaxed);
    }

    fn failed(&mut self, error: &ClientError) {
        if error.is_gone() {
            self.stats.expired.fetch_add(1, Relaxed);
            self.since = Since::Newest;
            return;
        }
        self.stats.failures.fetch_add(1, Relaxed);
        self.stats.connected.store(false, Relaxed);
        let mut failure = self.stats.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_none() {
            tracing::warn!("pods are not known: {error}; {}", error.remedy());
        }
        *failure = Some(error.to_string());
    }

    fn sweep(&mut self) {
        if self.swept.elapsed() >= SWEEP_EVERY {
            self.swept = Instant::now();
            self.pods.sweep(GRACE);
        }
        self.stats.owners_asked.store(self.owners.asked, Relaxed);
    }

    fn list(&mut self) -> Result<(), ClientError> {
        // Version 0 lets the server answer from memory, by node, instead of reading every pod
        // of the cluster from its store.
        let any = if self.since == Since::Any { "&resourceVersion=0" } else { "" };
        let reader = self.client.get(&format!("{}{any}", self.selector), LIST_PAUSE)?;
        let mut uids = FxHashSet::default();
        let mut to_ask = Vec::new();
        let mut text = serde_json::Deserializer::from_reader(reader);
        let version = text.deserialize_map(ListVisitor(&mut |pod: Object| {
            uids.insert(pod.metadata.uid.clone());
            to_ask.extend(self.take(pod));
        }))?;
        self.pods.keep_only(&uids);
        if self.stats.lists.fetch_add(1, Relaxed) == 0 && uids.is_empty() {
            tracing::warn!("there is no pod on node {}: if that is not its name, give it by --node", self.node);
        }
        self.since = Since::Version(version);
        self.succeeded();
        for pod in to_ask {
            self.ask(&pod);
        }
        Ok(())
    }

    fn watch(&mut self, version: &str, length: Duration) -> Result<(), ClientError> {
        self.stats.watches.fetch_add(1, Relaxed);
        let path = format!(
            "{}&watch=1&allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds={}",
            self.selector,
            length.as_secs()
        );
        let reader = self.client.get(&path, SILENCE)?;
        self.succeeded();
        let events = serde_json::Deserializer::from_reader(reader).into_iter::<Event>();
        let mut came = false;
        for event in events {
            let Event { kind, object } = event?;
            if kind == "ERROR" {
                return Err(ClientError::Status { code: object.code, message: object.message });
            }
            came = true;
            if !object.metadata.resource_version.is_empty() {
                self.since = Since::Version(object.metadata.resource_version.clone());
            }
            match kind.as_str() {
                "BOOKMARK" => _ = self.stats.bookmarks.fetch_add(1, Relaxed),
                "DELETED" => {
                    self.stats.events.fetch_add(1, Relaxed);
                    let uid = object.metadata.uid.clone();
                    // Its last state may be the first that names its containers.
                    self.take(object);
                    self.pods.remove(&uid);
                }
                _ => {
                    self.stats.events.fetch_add(1, Relaxed);
                    if let Some(pod) = self.take(object) {
                        self.ask(&pod);
                    }
                }
            }
            self.sweep();
            if *self.stop.stopped.lock().unwrap_or_else(PoisonError::into_inner) {
                return Ok(());
            }
        }
        if !came {
            // A server that ends each watch at once is not asked again at once.
            self.stop.wait(Duration::from_secs(1));
        }
        Ok(())
    }

    /// Takes a pod in; gives back what is needed to ask for its owners, if that would tell more.
    fn take(&self, pod: Object) -> Option<Metadata> {
        let (owners, to_ask) = self.owners.of(&pod.metadata);
        let rest = to_ask.is_some().then(|| Metadata {
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            creation_timestamp: pod.metadata.creation_timestamp.clone(),
            owner_references: pod.metadata.owner_references.clone(),
            ..Metadata::default()
        });
        self.pods.update(pod, &self.labels, owners, to_ask.is_none());
        rest
    }

    fn ask(&mut self, pod: &Metadata) {
        // Another pod of the same owner may have brought the answer already.
        let (known, to_ask) = self.owners.of(pod);
        let asked = |owner: OwnerReference| self.owners.ask(&owner, pod, &self.client);
        if let Some(owners) = to_ask.map_or(Some(known), asked) {
            self.pods.owned(&pod.uid, owners);
        }
    }
}

/// Hands the items of a list over one by one, and answers with its version.
struct ListVisitor<'a>(&'a mut dyn FnMut(Object));

impl<'de> Visitor<'de> for ListVisitor<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of pods")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<String, A::Error> {
        let mut version = String::new();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "metadata" => version = map.next_value::<Metadata>()?.resource_version,
                "items" => map.next_value_seed(Items(self.0))?,
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(version)
    }
}

struct Items<'a>(&'a mut dyn FnMut(Object));

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        // A list of none may be null.
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pods")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(pod) = items.next_element()? {
            (self.0)(pod);
        }
        Ok(())
    }
}
