//! Symbol indexes on their way: each goes to the server once per content, from a queue on
//! disk that outlives the agent, or from a small one in memory where the disk cannot be written.

use std::{
    collections::{HashSet, VecDeque},
    fs, io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use everflame_profile::ContentId;

use super::{Destination, Ours, backoff::Backoff, credentials::Credentials};
use crate::tls::{Roots, remedy};

/// Bytes of indexes that wait, on disk, for all destinations together.
pub const MAX_QUEUED_BYTES: u64 = 512 << 20;
/// Bytes of indexes that wait in memory, likewise.
pub const MAX_MEMORY_BYTES: u64 = 16 << 20;
/// Number of indexes that wait for one destination.
pub const MAX_QUEUED_INDEXES: usize = 4096;
/// Contents that are remembered as delivered; beyond it, all are forgotten, which costs a
/// question to the server each.
const MAX_DELIVERED: usize = 65_536;
const EXTENSION: &str = ".index";
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// What became of the indexes so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SymbolUploads {
    /// Waiting now.
    pub queued: usize,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Taken by the server.
    pub uploaded: u64,
    /// Bytes of those.
    pub uploaded_bytes: u64,
    /// The server had them already.
    pub known: u64,
    /// The server refused them as broken.
    pub refused: u64,
    /// Not queued because the queue was full or could not be written.
    pub dropped: u64,
    /// Attempts that failed and are made again.
    pub retries: u64,
}

/// Uploads symbol indexes in a thread of its own.
#[derive(Debug)]
pub struct SymbolUploader {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    ours: Ours,
    /// Those that share the limits.
    uploaders: u64,
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    delivered: HashSet<ContentId>,
    uploads: SymbolUploads,
    /// Whether it was said that the disk cannot be written.
    in_memory: bool,
    stopping: bool,
}

#[derive(Debug)]
struct Waiting {
    id: ContentId,
    bytes: u64,
    /// The index, where it could not be written.
    memory: Option<Arc<[u8]>>,
}

/// How an attempt ended.
enum Delivery {
    Uploaded,
    Known,
    Refused(String),
    Retry(String),
}

impl SymbolUploader {
    /// Begins to upload what is queued in `directory`, unless the destination turns out to be no server
    /// of ours; `uploaders` in all share the limits.
    pub fn start(to: &Destination, ours: Ours, directory: PathBuf, uploaders: usize) -> io::Result<Self> {
        let Destination { endpoint, credentials, roots, .. } = to.clone();
        let base = if endpoint.contains("://") { endpoint } else { format!("http://{endpoint}") };
        let (queue, wake) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { directory, ours, uploaders: uploaders.max(1) as u64, queue, wake });
        shared.take_over();
        let worker = shared.clone();
        let base = base.trim_end_matches('/').to_string();
        let thread = std::thread::Builder::new()
            .name("everflame-symbols".to_string())
            .spawn(move || worker.run(&base, &credentials, &roots))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Queues an index. `false`: there was no room for it; offer it again later.
    pub fn offer(&self, content_id: ContentId, bytes: &[u8]) -> bool {
        self.shared.offer(content_id, bytes)
    }

    /// Whether the server has an index for this content, will get one from the queue, or takes none.
    pub fn has(&self, content_id: ContentId) -> bool {
        self.shared.ours.is_not() || self.shared.queue().has(content_id)
    }

    /// What became of the indexes so far.
    pub fn uploads(&self) -> SymbolUploads {
        let queue = self.shared.queue();
        SymbolUploads { queued: queue.waiting.len(), queued_bytes: queue.bytes(|_| true), ..queue.uploads }
    }

    /// Waits until nothing is queued, at most `within`; answers whether that is so.
    pub fn flush(&self, within: Duration) -> bool {
        let empty = |queue: &mut Queue| !queue.waiting.is_empty();
        let waited = self.shared.wake.wait_timeout_while(self.shared.queue(), within, empty);
        waited.unwrap_or_else(PoisonError::into_inner).0.waiting.is_empty()
    }
}

impl Drop for SymbolUploader {
    fn drop(&mut self) {
        self.shared.queue().stopping = true;
        self.shared.wake.notify_all();
        // An upload under way may take its time; the next agent finds the queue on disk.
        drop(self.thread.take());
    }
}

impl Queue {
    fn has(&self, id: ContentId) -> bool {
        self.delivered.contains(&id) || self.waiting.iter().any(|waiting| waiting.id == id)
    }

    fn bytes(&self, of: impl Fn(&Waiting) -> bool) -> u64 {
        self.waiting.iter().filter(|waiting| of(waiting)).map(|waiting| waiting.bytes).sum()
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, id: ContentId) -> PathBuf {
        self.directory.join(format!("{id}{EXTENSION}"))
    }

    fn take_over(&self) {
        let Ok(listing) = fs::read_dir(&self.directory) else { return };
        let mut queue = self.queue();
        for file in listing.flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            match name.strip_suffix(EXTENSION).and_then(ContentId::parse) {
                Some(id) if queue.waiting.len() < MAX_QUEUED_INDEXES => {
                    let bytes = file.metadata().map_or(0, |m| m.len());
                    queue.waiting.push_back(Waiting { id, bytes, memory: None });
                }
                _ => drop(fs::remove_file(file.path())),
            }
        }
    }

    fn offer(&self, id: ContentId, bytes: &[u8]) -> bool {
        let mut queue = self.queue();
        if queue.has(id) || self.ours.is_not() {
            return true;
        }
        let length = bytes.len() as u64;
        let on_disk = MAX_QUEUED_BYTES / self.uploaders;
        let room = queue.waiting.len() < MAX_QUEUED_INDEXES && queue.bytes(|_| true) + length <= on_disk;
        let memory = match room.then(|| self.write(id, bytes)) {
            Some(Ok(())) => Some(None),
            Some(Err(e)) => {
                if !std::mem::replace(&mut queue.in_memory, true) {
                    let directory = self.directory.display();
                    tracing::warn!("symbol indexes cannot be queued in {directory}: {e}; few are kept in memory");
                }
                let in_memory = queue.bytes(|waiting| waiting.memory.is_some()) + length;
                let fits = in_memory <= MAX_MEMORY_BYTES / self.uploaders;
                fits.then(|| Some(Arc::from(bytes)))
            }
            None => None,
        };
        match memory {
            Some(memory) => {
                queue.waiting.push_back(Waiting { id, bytes: length, memory });
                self.wake.notify_all();
            }
            None => {
                if queue.uploads.dropped == 0 {
                    tracing::warn!("a symbol index is left out: the queue of those that wait for the server is full");
                }
                queue.uploads.dropped += 1;
            }
        }
        queue.has(id)
    }

    fn write(&self, id: ContentId, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.directory.join(format!("{id}.tmp"));
        fs::create_dir_all(&self.directory)
            .and_then(|()| fs::write(&temporary, bytes))
            .and_then(|()| fs::rename(&temporary, self.path(id)))
            .inspect_err(|_| drop(fs::remove_file(&temporary)))
    }

    fn run(&self, base: &str, credentials: &Credentials, roots: &Roots) {
        let mut agent = None;
        let mut backoff = Backoff::new();
        let mut failing = false;
        while let Some((id, memory)) = self.next() {
            let read = memory.map_or_else(|| fs::read(self.path(id)).map(Arc::from), Ok);
            let outcome = match read {
                Ok(bytes) => agent
                    .get_or_insert_with(|| client(base, roots))
                    .as_ref()
                    .map_err(String::clone)
                    .and_then(|agent| deliver(agent, base, credentials, id, &bytes))
                    .map(|delivery| (delivery, bytes.len() as u64)),
                Err(e) => Ok((Delivery::Refused(format!("its file cannot be read: {e}")), 0)),
            };
            let (outcome, bytes) = outcome.unwrap_or_else(|why| (Delivery::Retry(why), 0));
            let mut queue = self.queue();
            match outcome {
                Delivery::Uploaded => {
                    queue.uploads.uploaded += 1;
                    queue.uploads.uploaded_bytes += bytes;
                }
                Delivery::Known => queue.uploads.known += 1,
                Delivery::Refused(why) => {
                    tracing::warn!("the server refused the symbol index {id}: {why}");
                    queue.uploads.refused += 1;
                }
                Delivery::Retry(why) => {
                    if !std::mem::replace(&mut failing, true) && !self.ours.is_not() {
                        tracing::warn!("symbol indexes wait: {why}");
                    }
                    queue.uploads.retries += 1;
                    // The next attempt reads the roots anew.
                    agent = None;
                    let pause = backoff.failed(None);
                    let waited = self.wake.wait_timeout_while(queue, pause, |queue| !queue.stopping);
                    drop(waited.unwrap_or_else(PoisonError::into_inner));
                    continue;
                }
            }
            backoff.succeeded();
            failing = false;
            if queue.delivered.len() >= MAX_DELIVERED {
                queue.delivered.clear();
            }
            queue.delivered.insert(id);
            queue.waiting.retain(|waiting| waiting.id != id);
            drop(queue);
            drop(fs::remove_file(self.path(id)));
            self.wake.notify_all();
        }
    }

    /// The index to send next; `None` at the end.
    fn next(&self) -> Option<(ContentId, Option<Arc<[u8]>>)> {
        let idle = |queue: &mut Queue| queue.waiting.is_empty() && !queue.stopping;
        loop {
            let mut queue = self.wake.wait_while(self.queue(), idle).unwrap_or_else(PoisonError::into_inner);
            if queue.stopping {
                return None;
            }
            if !self.ours.is_not() {
                return queue.waiting.front().map(|waiting| (waiting.id, waiting.memory.clone()));
            }
            // It takes none: what waits for it would wait for ever.
            for waiting in queue.waiting.drain(..) {
                drop(fs::remove_file(self.path(waiting.id)));
            }
            self.wake.notify_all();
        }
    }
}

fn client(base: &str, roots: &Roots) -> Result<ureq::Agent, String> {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(ANSWER_WITHIN))
        .user_agent(concat!("everflame/", env!("CARGO_PKG_VERSION")));
    let config = match base.starts_with("https://") {
        true => config.tls_config(roots.http1().map_err(|e| e.to_string())?),
        false => config,
    };
    Ok(config.build().into())
}

fn failed(error: ureq::Error) -> String {
    match remedy(&error) {
        Some(remedy) => format!("{error}: {remedy}"),
        None => error.to_string(),
    }
}

/// Asks the server whether it has the index, and gives it if not.
fn deliver(
    agent: &ureq::Agent,
    base: &str,
    credentials: &Credentials,
    id: ContentId,
    bytes: &[u8],
) -> Result<Delivery, String> {
    let url = format!("{base}/api/v1/symbols/{id}");
    let headers = credentials.read().map_err(|e| e.to_string())?;
    let mut head = agent.head(&url);
    let mut put = agent.put(&url).header("content-type", "application/octet-stream");
    for (name, value) in &headers {
        head = head.header(name, value);
        put = put.header(name, value);
    }
    if head.call().map_err(failed)?.status() == 200 {
        return Ok(Delivery::Known);
    }
    let mut answer = put.send(bytes).map_err(failed)?;
    let status = answer.status().as_u16();
    if matches!(status, 401 | 403) {
        credentials.refused();
    }
    let mut said = || answer.body_mut().with_config().limit(4096).read_to_string().unwrap_or_default();
    Ok(match status {
        200..300 => Delivery::Uploaded,
        409 => Delivery::Known,
        400 | 413 | 415 | 422 => Delivery::Refused(format!("{status} {}", said())),
        _ => Delivery::Retry(format!("{status} {}", said())),
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        net::TcpListener,
        sync::atomic::{AtomicU32, Ordering::Relaxed},
    };

    use super::*;
    use crate::export::{Authorization, AuthorizationSource};

    #[derive(Debug, Default)]
    struct Key(AtomicU32);

    impl AuthorizationSource for Key {
        fn header(&self) -> String {
            "ApiKey k".to_owned()
        }

        fn refused(&self) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn a_key_that_is_refused_is_said_to_its_source() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let lines = BufReader::new(&stream).lines().map_while(Result::ok);
                lines.take_while(|line| !line.is_empty()).for_each(drop);
                let _ = (&stream).write_all(b"HTTP/1.1 401 x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
        });
        let key = Arc::new(Key::default());
        let authorization = Some(Authorization::Source(key.clone()));
        let credentials = Credentials { authorization, headers: vec![] };
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let outcome = deliver(&agent, &base, &credentials, ContentId(1), b"");
        assert!(matches!(outcome, Ok(Delivery::Retry(why)) if why.starts_with("401")));
        assert_eq!(key.0.load(Relaxed), 1);
    }
}
