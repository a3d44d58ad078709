//! The tracker: one thread that follows all processes and executables.

use std::{
    io::Read,
    os::{fd::AsFd, unix::net::UnixStream},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::Ordering,
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::Duration,
};

use rustc_hash::FxHashSet;

use super::{
    handle::Handle,
    late::Late,
    records::{self, Event, Record},
    shared::Shared,
    sink::{MappingSink, TableSink},
    table::{MAX_PROCESSES, Processes},
};
use crate::{
    bpf::{BpfError, monotonic_ns, sideband::SideBand},
    executables::{Builder, CACHE_BYTES, Change, IndexTaker, IndexWanted, Lane, Outcome, Queue, Registry, TableCache},
    sys,
    worker::{
        client::{TIMEOUT, Worker, WorkerCommand},
        protocol::MAX_ANSWER,
    },
};

/// Unwind tables in the kernel, in bytes, unless told otherwise.
pub const TABLE_BUDGET: u64 = 64 << 20;
/// Outcomes of the worker that wait for the tracker.
const MAX_OUTCOMES: usize = 16;
/// After the first record, how long others are waited for.
const COALESCE: Duration = Duration::from_millis(12);
/// The times of records are in order within a CPU only: a record is used once it is this old.
const HOLD_NS: u64 = 10_000_000;
/// How long is waited while records are held or processes are ending, milliseconds: at first,
/// and at most. It doubles with each turn that finds news again, so that a process that comes
/// alone is known at once and a storm of them costs a few turns a second.
const SHORT_WAIT: i32 = 15;
/// See [`SHORT_WAIT`].
const BUSY_WAIT: i32 = 120;
/// Without news, milliseconds.
const LONG_WAIT: i32 = 1000;
/// Seconds between two sweeps, and between two looks for CPUs that came.
const SWEEP_EVERY: u32 = 60;
/// Seconds between two readings of all of /proc, at least.
const SCAN_EVERY: u32 = 2;
/// They rest so many times longer than the last one took.
const SCAN_SHARE: u32 = 10;
/// Records that are held at most; of more, the oldest count as lost.
const MAX_HELD: usize = 65_536;
/// How long after the start the facts of executables are waited for until the tracker says
/// that it is ready.
const READY_WITHIN_NS: u64 = 2_000_000_000;

/// How to track.
pub struct TrackerOptions {
    /// Bytes of unwind tables in the kernel.
    pub table_budget_bytes: u64,
    /// Processes that are known at the same time.
    pub max_processes: usize,
    /// Whether `OTEL_SERVICE_NAME` is read from processes' environments.
    pub read_service_env: bool,
    /// Directory that keeps unwind tables for the next start; where there is none, none are kept.
    pub table_cache: Option<PathBuf>,
    /// How to start the worker.
    pub worker: WorkerCommand,
    /// Longest time it may take for one file.
    pub worker_timeout: Duration,
    /// Bytes that it may answer.
    pub worker_answer: usize,
    /// Takes symbol indexes as they are made; where there is nobody, none are.
    pub indexes: Option<IndexTaker>,
    /// Asked before an index is made; where there is nobody, all are.
    pub index_wanted: Option<IndexWanted>,
}

impl Default for TrackerOptions {
    fn default() -> Self {
        Self {
            table_budget_bytes: TABLE_BUDGET,
            max_processes: MAX_PROCESSES,
            read_service_env: true,
            table_cache: None,
            worker: WorkerCommand::default(),
            worker_timeout: TIMEOUT,
            worker_answer: MAX_ANSWER,
            indexes: None,
            index_wanted: None,
        }
    }
}

impl std::fmt::Debug for TrackerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrackerOptions")
            .field("table_budget_bytes", &self.table_budget_bytes)
            .field("read_service_env", &self.read_service_env)
            .field("worker", &self.worker)
            .field("worker_timeout", &self.worker_timeout)
            .finish_non_exhaustive()
    }
}

/// The tracker's own state; the thread owns it.
#[derive(Debug)]
pub struct Tracker {
    band: SideBand,
    woken: UnixStream,
    outcomes: Receiver<Outcome>,
    shared: Arc<Shared>,
    processes: Processes,
    registry: Registry,
    builder: Builder,
    late: Late,
    /// Records that are not old enough, in order.
    held: Vec<Record>,
    scratch: Vec<u8>,
    scan_wanted: bool,
    scanned: u32,
    scan_from: u32,
    ticked: u32,
    swept: u32,
    started: u64,
    /// The next short wait, milliseconds.
    pace: i32,
    /// Whether records came since the last wait.
    news: bool,
}

impl Tracker {
    /// Opens the side band, so that nothing is missed from here on, and starts the thread.
    pub fn start(
        options: TrackerOptions,
        mappings: Box<dyn MappingSink + Send>,
        tables: Box<dyn TableSink + Send>,
    ) -> Result<Handle, BpfError> {
        let cannot = |what, e: std::io::Error| BpfError::Refused {
            what,
            reason: e.to_string(),
            remedy: "raise the limits on open files and threads",
        };
        let (wake, woken) = UnixStream::pair().map_err(|e| cannot("open a socket", e))?;
        for end in [&wake, &woken] {
            end.set_nonblocking(true).map_err(|e| cannot("set up a socket", e))?;
        }
        let band = SideBand::open()?;
        let shared = Arc::new(Shared::new(wake));
        let queue = Arc::new(Queue::default());
        let (done, outcomes) = sync_channel(MAX_OUTCOMES);
        let waker = Arc::clone(&shared);
        let worker = |lane: Lane| {
            let command = WorkerCommand { share: lane.share(), ..options.worker.clone() };
            Worker::new(command, options.worker_timeout).answering(options.worker_answer)
        };
        let cache = options.table_cache.and_then(|directory| {
            TableCache::open(directory.clone(), CACHE_BYTES)
                .inspect_err(|e| tracing::info!("unwind tables are not kept in {}: {e}", directory.display()))
                .ok()
        });
        let builder = Builder::start(&queue, worker, cache, &done, move || waker.wake())
            .map_err(|e| cannot("start a thread", e))?;
        let tracker = Self {
            band,
            woken,
            outcomes,
            processes: Processes::new(
                mappings,
                Arc::clone(&shared),
                options.max_processes.min(MAX_PROCESSES),
                options.read_service_env,
            ),
            registry: Registry::new(
                tables,
                options.table_budget_bytes,
                Arc::clone(&queue),
                Arc::clone(&shared),
                options.indexes,
                options.index_wanted,
            ),
            builder,
            late: Late::default(),
            held: Vec::new(),
            scratch: Vec::new(),
            scan_wanted: true,
            scanned: 0,
            scan_from: 0,
            ticked: shared.seconds(),
            swept: shared.seconds(),
            started: monotonic_ns(),
            pace: SHORT_WAIT,
            news: false,
            shared: Arc::clone(&shared),
        };
        let thread = thread::Builder::new()
            .name("tracker".into())
            .spawn(move || tracker.run())
            .map_err(|e| cannot("start a thread", e))?;
        Ok(Handle { shared, queue, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    fn run(mut self) {
        while !self.shared.stopped.load(Ordering::Acquire) {
            self.turn();
        }
        drop(self.outcomes);
        drop(self.builder);
    }

    fn turn(&mut self) {
        self.shared.tick();
        self.scan();
        let horizon = self.take_records();
        self.take_outcomes();
        self.keep_house();
        self.processes.settle(&mut self.registry, horizon);
        if self.scanned != 0 && !self.processes.is_scanning() {
            self.shared.known_until.store(horizon, Ordering::Release);
        }
        self.late.turn(horizon, &self.processes, &self.registry, &self.shared);
        self.shared.asked.answer(&self.processes, &self.registry);
        if !self.shared.ready.load(Ordering::Relaxed) {
            let waited = monotonic_ns() - self.started > READY_WITHIN_NS;
            if self.scanned != 0 && !self.processes.is_scanning() && (waited || !self.registry.is_looking()) {
                self.shared.ready.store(true, Ordering::Release);
            }
        }
        self.wait();
    }

    fn wait(&mut self) {
        let unsettled = self.processes.unsettled();
        let soon = !self.held.is_empty() || unsettled == Some(0) || self.late.is_soon();
        self.shared.stats.turns.add(1);
        let pace = self.pace;
        let news = std::mem::take(&mut self.news) || soon;
        self.pace = if news { (pace * 2).min(BUSY_WAIT) } else { (pace / 2).max(SHORT_WAIT) };
        let timeout = match unsettled {
            _ if self.processes.is_scanning() => 0,
            _ if soon => pace,
            Some(ns) => (ns / 1_000_000) as i32,
            None => LONG_WAIT,
        };
        let mut fds = vec![self.woken.as_fd()];
        // With records held there is a next look soon enough: no wake-up for each new one.
        if !soon {
            fds.extend(self.band.descriptors());
        }
        let ready = sys::poll(&fds, timeout).unwrap_or_default();
        drop(fds);
        if ready.first() == Some(&true) {
            let mut bytes = [0; 256];
            while matches!((&self.woken).read(&mut bytes), Ok(n) if n == bytes.len()) {}
        }
        if ready.iter().skip(1).any(|ready| *ready) {
            // In a storm there is more to come: one look at all of it.
            let busy = pace > SHORT_WAIT;
            thread::sleep(if busy { Duration::from_millis(pace as u64) } else { COALESCE });
        }
    }

    /// Applies the records that are old enough, and says up to when that is.
    fn take_records(&mut self) -> u64 {
        let horizon = monotonic_ns().saturating_sub(HOLD_NS);
        let held = &mut self.held;
        let before = held.len();
        self.band.drain(&mut self.scratch, |bytes| records::parse(bytes, held));
        self.shared.stats.records.add((held.len() - before) as u64);
        self.news |= held.len() > before;
        held.sort_by_key(|record| record.time);
        if let Some(excess) = held.len().checked_sub(MAX_HELD + 1) {
            held.drain(..=excess);
            self.shared.stats.records_lost.add(excess as u64 + 1);
            self.scan_wanted = true;
        }
        let old = held.partition_point(|record| record.time <= horizon);
        for record in held.drain(..old) {
            if let Event::Lost { records } = record.event {
                self.shared.stats.records_lost.add(records);
                self.scan_wanted = true;
            }
            self.processes.apply(record, &mut self.registry);
        }
        if held.is_empty() && held.capacity() > 4096 {
            *held = Vec::new();
        }
        horizon
    }

    fn take_outcomes(&mut self) {
        let (mut known, mut same) = (FxHashSet::default(), Vec::new());
        while let Ok(outcome) = self.outcomes.try_recv() {
            self.shared.stats.answers.add(1);
            match self.registry.done(outcome) {
                Change::None => {}
                Change::Known(number) => {
                    known.insert(number);
                }
                Change::Same(old, new) => same.push((old, new)),
            }
        }
        self.processes.renew(&known, &same);
    }

    /// Reads all of /proc, a slice at a time, at the start and when records were lost.
    fn scan(&mut self) {
        if self.processes.is_scanning() {
            self.processes.scan_on(&mut self.registry);
            let rest = SCAN_EVERY.max(SCAN_SHARE * (self.shared.seconds() - self.scanned));
            self.scan_from = self.shared.seconds() + rest;
            return;
        }
        let now = self.shared.seconds();
        if !self.scan_wanted || now < self.scan_from {
            return;
        }
        self.scan_wanted = false;
        self.scanned = now.max(1);
        self.scan_from = now + SCAN_EVERY;
        match self.processes.begin_scan() {
            Ok(()) => self.processes.scan_on(&mut self.registry),
            Err(e) => tracing::warn!("/proc cannot be read, processes that run already are not known: {e}"),
        }
    }

    fn keep_house(&mut self) {
        let now = self.shared.seconds();
        let unknown = self.shared.take_unknown();
        if !unknown.is_empty() {
            self.processes.reread(unknown, &mut self.registry);
        }
        if now != self.ticked {
            self.ticked = now;
            self.processes.tick(&mut self.registry);
        }
        let sweep = now >= self.swept + SWEEP_EVERY;
        if sweep {
            self.swept = now;
            self.processes.sweep(&mut self.registry);
        }
        if sweep || self.shared.cpus_came.swap(false, Ordering::AcqRel) {
            match self.band.follow_cpus() {
                Ok(came) => self.scan_wanted |= came,
                Err(e) => tracing::warn!("processes on a CPU that came are found late: {e}"),
            }
        }
    }
}
