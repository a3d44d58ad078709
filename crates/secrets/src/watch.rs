//! A secret that may change: fetched at the start, every few minutes, and at once when the
//! destination refuses it. The old value stays for as long as no new one is to be had.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Condvar, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{Secret, SecretError};

/// How often to fetch.
#[derive(Debug, Clone, Copy)]
pub struct WatchOptions {
    /// Time from one fetch to the next, give or take a tenth.
    pub every: Duration,
    /// Shortest time from one fetch to the next, however often the destination refuses. It doubles
    /// while refusals go on and the value stays as it is, up to `every`.
    pub at_least: Duration,
    /// How long the first fetch is tried again where it may work a moment later.
    pub start_within: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(300),
            at_least: Duration::from_secs(10),
            start_within: Duration::from_secs(30),
        }
    }
}

/// What has happened since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Fetches that had an answer.
    pub fetched: u64,
    /// Fetches that failed.
    pub failed: u64,
    /// New values.
    pub changed: u64,
    /// Refusals that led to no fetch of their own, since one was not long ago.
    pub held_back: u64,
}

/// Watches a secret in a thread of its own, which ends when this is dropped.
pub struct Watch(Arc<Shared>);

struct Shared {
    options: WatchOptions,
    now: RwLock<Arc<Secret>>,
    state: Mutex<State>,
    wake: Condvar,
    fetched: AtomicU64,
    failed: AtomicU64,
    changed: AtomicU64,
    held_back: AtomicU64,
}

#[derive(Default)]
struct State {
    refused: bool,
    stopping: bool,
}

/// Fetches a secret.
type Source = Box<dyn FnMut() -> Result<Secret, SecretError> + Send>;

impl Watch {
    /// Fetches a first value (blocks until it is there) and begins to watch.
    pub fn start(
        fetch: impl FnMut() -> Result<Secret, SecretError> + Send + 'static,
        options: WatchOptions,
    ) -> Result<Self, SecretError> {
        let mut fetch: Source = Box::new(fetch);
        let first = first(&mut fetch, options)?;
        let shared = Arc::new(Shared {
            options,
            now: RwLock::new(Arc::new(first)),
            state: Mutex::default(),
            wake: Condvar::new(),
            fetched: AtomicU64::new(1),
            failed: AtomicU64::new(0),
            changed: AtomicU64::new(0),
            held_back: AtomicU64::new(0),
        });
        let watcher = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("everflame-secret".to_owned())
            .spawn(move || watcher.run(&mut fetch))
            .map_err(|e| SecretError::Thread(e.to_string()))?;
        Ok(Self(shared))
    }

    /// The value as of the last fetch that had an answer.
    pub fn current(&self) -> Arc<Secret> {
        Arc::clone(&self.0.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The destination refused it: it is fetched again soon.
    pub fn refused(&self) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut state.refused, true) {
            self.0.held_back.fetch_add(1, Relaxed);
        }
        self.0.wake.notify_all();
    }

    /// What has happened.
    pub fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        Counts {
            fetched: of(&self.0.fetched),
            failed: of(&self.0.failed),
            changed: of(&self.0.changed),
            held_back: of(&self.0.held_back),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // A fetch under way may take its time.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).stopping = true;
        self.0.wake.notify_all();
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

/// The first value: what is merely not there yet (a network, an agent of the node) is waited for.
fn first(fetch: &mut Source, options: WatchOptions) -> Result<Secret, SecretError> {
    let until = Instant::now() + options.start_within;
    let mut pause = Duration::from_millis(500);
    loop {
        match fetch() {
            Err(error) if error.is_transient() && Instant::now() + pause < until => {
                tracing::warn!("{error}; trying again");
                std::thread::sleep(pause);
                pause *= 2;
            }
            done => return done,
        }
    }
}

impl Shared {
    fn run(&self, fetch: &mut Source) {
        let mut pause = self.options.at_least;
        let mut wait = jittered(self.options.every);
        let mut failing = false;
        loop {
            let Some(because_refused) = self.wait(wait, pause) else { return };
            match fetch() {
                Ok(secret) => {
                    self.fetched.fetch_add(1, Relaxed);
                    if std::mem::take(&mut failing) {
                        tracing::info!("the secret can be fetched again");
                    }
                    let changed = self.take(secret);
                    pause = match because_refused && !changed {
                        true => (pause * 2).min(self.options.every).max(self.options.at_least),
                        false => self.options.at_least,
                    };
                    wait = jittered(self.options.every);
                }
                Err(error) => {
                    self.failed.fetch_add(1, Relaxed);
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!("{error}; the value of before stays in use");
                    }
                    wait = jittered(pause);
                    pause = (pause * 2).min(self.options.every).max(self.options.at_least);
                }
            }
        }
    }

    /// Whether it is a new value.
    fn take(&self, secret: Secret) -> bool {
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        if **now == secret {
            return false;
        }
        tracing::info!("the secret has a new value, which is used from now on");
        if now.endpoint != secret.endpoint {
            tracing::warn!("the secret names another endpoint now: restart the agent to send there");
        }
        *now = Arc::new(secret);
        self.changed.fetch_add(1, Relaxed);
        true
    }

    /// Waits for the time of the next fetch, or less after a refusal; answers which, `None` at the end.
    fn wait(&self, usual: Duration, pause: Duration) -> Option<bool> {
        let began = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let whole = if state.refused { usual.min(pause) } else { usual };
            let left = whole.saturating_sub(began.elapsed());
            if state.stopping {
                return None;
            }
            if left.is_zero() {
                return Some(std::mem::take(&mut state.refused));
            }
            state = self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A time, give or take a tenth, so that a fleet does not ask all at once.
fn jittered(time: Duration) -> Duration {
    let share = (RandomState::new().hash_one(0u8) % 1024) as u32;
    time - time / 10 + time / 5 * share / 1024
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
