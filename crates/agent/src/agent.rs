//! The agent: samples in, batches out, and the house kept between. One thread turns the
//! ring into batches; the tracker and the exporter have their own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    AgentError,
    aggregate::{Aggregate, Lanes, Origin, WAIT, Waited},
    bpf::{counters::CounterMap, tables::chunk_bytes},
    config::AgentConfig,
    export::{Exporter, Exporters, SymbolUploader, SymbolUploads, refuse_taken, remove_abandoned},
    filter::{Gate, GateFigures},
    ledger::{About, KernelCounters, KernelCounts, KernelUsage, Ledger, exporter_key, left_by, new_instance, of_place},
    memory::Share,
    opinion::{Case, Opinions, Tally},
    pins::Pins,
    presence,
    processes::{Handle, TrackerOptions},
    sampler::{Sampler, Sampling},
    status::{Metrics, Status, StatusServer},
    who::{Runtimes, Who, kubernetes::Watch},
    worker::client::{Worker, WorkerCommand},
};

/// How often the ring is looked at. The kernel wakes us earlier when it is half full.
const TURN: Duration = Duration::from_secs(1);
/// How often a batch is sent.
const BATCH_EVERY: Duration = Duration::from_secs(5);
/// The first batches go sooner, since someone waits for a first picture: samples are looked for
/// this often at first, and later each batch comes after twice the time of the one before.
const FIRST_BATCHES: Duration = Duration::from_millis(50);
/// How long "at first" is: by then what runs has its unwind tables, on a busy machine too.
const FIRST_WHILE: Duration = Duration::from_secs(2);
/// How long the end waits for the server to take what is left.
const FLUSH_WITHIN: Duration = Duration::from_secs(10);

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    stopping: Arc<AtomicBool>,
    pipeline: Option<JoinHandle<Pins>>,
    exporters: Arc<Exporters>,
    symbols: Arc<[SymbolUploader]>,
    _status: Option<StatusServer>,
}

impl Agent {
    /// Starts to sample and to send.
    pub fn start(sampler: Sampler, config: AgentConfig) -> Result<Self, AgentError> {
        let options = sampler.options().clone();
        // The likeliest failures come before anything is left behind.
        let listening = |address| StatusServer::bind(address).map_err(|e| AgentError::Listen(address, e));
        let listener = config.listen.map(listening).transpose()?;
        refuse_taken(&config.spool)?;
        for destination in std::iter::once(&config.destination).chain(&config.further) {
            destination.check()?;
        }
        let counters = sampler.programs().counters()?;
        let about = About {
            instance: new_instance().map_err(AgentError::Start)?,
            node: config.node.clone(),
            since: unix_ns(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().into(),
            cpus: crate::bpf::clock::online_cpus().len() as u32,
            rate: options.rate,
            project: config.project.clone().unwrap_or_default(),
        };
        let kernel = Counters { map: counters, map_bytes: sampler.programs().map_bytes() };
        let mut pins = Pins::open(&config.spool);
        let dead = pins.predecessors();
        let (mut all, mut symbols) = (Vec::new(), Vec::new());
        let exports = config.exports();
        let uploaders = exports.len();
        for (place, export) in exports.into_iter().enumerate() {
            let key = exporter_key((place > 0).then_some(export.destination.name.as_str()));
            let region = of_place(counters.user(), place, key);
            let ledger = Arc::new(Ledger::new(about.clone(), region, Box::new(kernel))?);
            succeed(&ledger, key, &about, &dead);
            let (to, queue) = (export.destination.clone(), export.spool.join("symbols"));
            let exporter = Exporter::start(export, ledger)?;
            let uploader = SymbolUploader::start(&to, exporter.ours().clone(), queue, uploaders);
            symbols.push(uploader.map_err(AgentError::Start)?);
            all.push(exporter);
        }
        remove_abandoned(&config.spool, &config.further);
        let exporters = Arc::new(Exporters::new(all, dead.into_iter().map(|(instance, ..)| instance)));
        pins.pin(sampler.programs(), &about.instance, &about.node);
        let pins_removed = pins.remove_stale();
        let symbols: Arc<[SymbolUploader]> = symbols.into();
        let origin = Origin::new(&config.node, config.project.as_deref());
        let gate = (!config.filter.is_empty()).then(|| Gate::new(config.filter.clone(), origin.clone()));
        let cleared = gate.as_ref().map(|gate| Arc::clone(gate.cleared()));
        let (takers, asked) = (Arc::clone(&symbols), Arc::clone(&symbols));
        let tracker = TrackerOptions {
            indexes: Some(Box::new(move |index| {
                // One that finds no room is asked for again: see `index_wanted`.
                for taker in takers.iter() {
                    let _ = taker.offer(index.content_id, &index.bytes);
                }
            })),
            index_wanted: Some(Box::new(move |content| {
                let cleared = cleared.as_ref().is_none_or(|cleared| cleared.has(content));
                cleared && !asked.iter().all(|taker| taker.has(content))
            })),
            ..config.tracker()
        };
        let (worker, timeout) = (tracker.worker.clone(), tracker.worker_timeout);
        let mut sampling = sampler.start(tracker)?;
        let watched = config.kubernetes.clone().map(|options| options.with_labels(config.filter.pod_labels()));
        let watch = watched.map(Watch::start).transpose().map_err(AgentError::Start)?;
        let node = config.kubernetes.as_ref().map(|options| options.node.as_str());
        let kubernetes = node.zip(watch.as_ref().map(|watch| Arc::clone(watch.pods())));
        sampling.name_by(Who::new(kubernetes, Runtimes::of_host()));
        let lanes = Lanes::new(Aggregate::new(&config.node, &about.instance).of(&origin));
        let tally = Arc::new(Tally::new(options.copy_every));
        if options.copy_every > 0 {
            exporters.iter().for_each(|exporter| exporter.ledger().with_opinions(Arc::clone(&tally)));
        }
        let opinions = (options.copy_every > 0).then(|| {
            let worker = Worker::new(WorkerCommand { share: Share::Opinion, ..worker }, timeout);
            Opinions::start(worker, Box::new(sampling.tracker().clone()), Arc::clone(&tally))
        });
        let opinions = opinions.transpose().map_err(AgentError::Start)?;
        let figures = Figures {
            exporters: Arc::clone(&exporters),
            symbols: Arc::clone(&symbols),
            tracker: sampling.tracker().clone(),
            counters,
            pins_removed,
            tally,
            waited: Arc::clone(lanes.waited()),
            unreadable_births: Arc::clone(sampling.unreadable_births()),
            gate: gate.as_ref().map(|gate| Arc::clone(gate.figures())),
            watch,
        };
        let start = |listener| StatusServer::start(listener, Arc::new(figures)).map_err(AgentError::Start);
        let status = listener.map(start).transpose()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let pipeline = Pipeline {
            gate,
            lanes,
            sampling,
            opinions,
            exporters: Arc::clone(&exporters),
            pins,
            stopping: Arc::clone(&stopping),
        };
        let pipeline = std::thread::Builder::new()
            .name("samples".into())
            .spawn(move || pipeline.run())
            .map_err(AgentError::Start)?;
        Ok(Self { stopping, pipeline: Some(pipeline), exporters, symbols, _status: status })
    }

    /// Ends the sampling, sends what is left, and returns.
    pub fn stop(mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        let pins = self.pipeline.take().and_then(|pipeline| pipeline.join().ok());
        let until = Instant::now() + FLUSH_WITHIN;
        let stopped = self.exporters.stop(FLUSH_WITHIN);
        match pins {
            None => tracing::error!("the thread that reads samples panicked: its last samples are lost"),
            Some(mut pins) => {
                pins.forget(&self.exporters.take_closed());
                if stopped.delivered {
                    // Nothing is open: nobody has to take our account over.
                    pins.forget_own();
                } else {
                    tracing::warn!("the server did not take everything: {} batches wait in the spool", stopped.left);
                }
            }
        }
        for uploader in self.symbols.iter() {
            uploader.flush(until.saturating_duration_since(Instant::now()));
        }
    }
}

struct Pipeline {
    sampling: Sampling,
    /// Where there are filters.
    gate: Option<Gate>,
    opinions: Option<Opinions>,
    lanes: Lanes,
    exporters: Arc<Exporters>,
    pins: Pins,
    stopping: Arc<AtomicBool>,
}

impl Pipeline {
    fn run(mut self) -> Pins {
        let start = Instant::now();
        let mut every = FIRST_BATCHES;
        let mut batch_at = start + every;
        while !self.stopping.load(Ordering::Relaxed) {
            let until_batch = batch_at.saturating_duration_since(Instant::now());
            let turn = self.sampling.turn(TURN.min(until_batch.max(Duration::from_millis(10))));
            self.take(turn, WAIT);
            self.release_waited(WAIT);
            if Instant::now() >= batch_at {
                if self.lanes.samples() > 0 && start.elapsed() > FIRST_WHILE {
                    every = (every * 2).min(BATCH_EVERY);
                }
                batch_at = Instant::now() + every;
                self.seal();
                self.pins.forget(&self.exporters.take_closed());
            }
        }
        let turn = self.sampling.finish();
        self.take(turn, Duration::ZERO);
        self.release_waited(Duration::ZERO);
        self.seal();
        self.sampling.tracker().stop();
        self.pins
    }

    /// No sample waits at the gate for longer than `patience`.
    fn take(&mut self, turn: crate::sampler::Turn, patience: Duration) {
        self.lanes.look_at_clock();
        self.exporters.consumed(turn.drained);
        let mut samples = turn.samples;
        if let Some(gate) = &mut self.gate {
            let filtered;
            (samples, filtered) = gate.pass(samples, self.sampling.describer(), patience);
            self.exporters.filtered(filtered);
        }
        for sample in &samples {
            if let (Some(opinions), Some(case)) = (&self.opinions, Case::of(sample)) {
                opinions.offer(case);
            }
            for batch in self.lanes.add(sample, self.sampling.describer()) {
                self.exporters.push(&batch);
            }
        }
    }

    /// Hands over what need not wait.
    fn seal(&mut self) {
        if let Some(batch) = self.lanes.seal(self.sampling.describer()) {
            self.exporters.push(&batch);
        }
    }

    /// What has waited for its names for long enough goes on.
    fn release_waited(&mut self, wait: Duration) {
        for batch in self.lanes.release_waited(self.sampling.describer(), wait) {
            self.exporters.push(&batch);
        }
    }
}

/// What the agent's own listener tells.
#[derive(Debug)]
struct Figures {
    exporters: Arc<Exporters>,
    symbols: Arc<[SymbolUploader]>,
    tracker: Handle,
    counters: CounterMap,
    pins_removed: u64,
    tally: Arc<Tally>,
    waited: Arc<Waited>,
    unreadable_births: Arc<AtomicU64>,
    gate: Option<Arc<GateFigures>>,
    watch: Option<Watch>,
}

impl Status for Figures {
    fn ready(&self) -> Result<(), String> {
        if !self.tracker.ready() {
            return Err("the processes that run already are still being read".into());
        }
        self.exporters.ready()
    }

    fn metrics(&self, metrics: &mut Metrics) {
        self.exporters.metrics(metrics);
        let names = self.exporters.iter().map(Exporter::name);
        let uploads: Vec<_> = names.zip(self.symbols.iter().map(SymbolUploader::uploads)).collect();
        SymbolUploads::metrics(&uploads, metrics);
        let others = presence::others().len() as f64;
        metrics.gauge("other_samplers", "Other samplers on this machine: each costs once more.", &[], others);
        let help = "Pinned counters of dead agents that were removed because their spool is gone.";
        metrics.counter("stale_pins_removed", help, &[], self.pins_removed as f64);
        self.tally.metrics(metrics);
        let sums = self.counters.sums();
        for (name, help, count) in [
            ("frames_sent", "Records of the ring that carried their frames.", sums.frames_sent),
            ("wakeups", "Times that the ring woke its reader before its time.", sums.wakeups),
            ("stack_copies", "Records of the ring that carried a copy of the stack.", sums.copies),
            ("stack_copied_bytes", "Bytes of those copies.", sums.copied_bytes),
            ("cgroups_lost", "Control groups that the kernel made and could not tell of.", sums.births_lost),
            ("stack_copies_refused", "Copies not made for want of allowance, room or memory.", sums.copies_refused),
        ] {
            metrics.counter(name, help, &[], count as f64);
        }
        let help = "Control groups that the kernel told of in a way that could not be understood.";
        metrics.counter("cgroups_unreadable", help, &[], self.unreadable_births.load(Ordering::Relaxed) as f64);
        self.waited.metrics(metrics);
        if let Some(gate) = &self.gate {
            gate.metrics(metrics);
        }
        if let Some(watch) = &self.watch {
            watch.metrics(metrics);
        }
        for (name, figure) in self.tracker.stats().iter() {
            let help = format!("Processes and executables: {}.", name.replace('_', " "));
            metrics.gauge(&format!("tracker_{name}"), &help, &[], figure as f64);
        }
    }
}

/// Gives a ledger what the same exporter of agents that died has left.
fn succeed(ledger: &Ledger, key: u64, about: &About, dead: &[(String, String, CounterMap)]) {
    for (instance, node, counters) in dead {
        let Some(region) = left_by(counters.user(), key) else { continue };
        let about = About { instance: instance.clone(), node: node.clone(), ..about.clone() };
        if let Err(e) = ledger.succeed(about, region, Box::new(Counters { map: *counters, map_bytes: 0 })) {
            tracing::warn!("the account of an agent that died cannot be taken over: {e}");
        }
    }
}

/// The kernel's counters for the ledger.
#[derive(Debug, Clone, Copy)]
struct Counters {
    map: CounterMap,
    map_bytes: u64,
}

impl KernelCounters for Counters {
    fn snapshot(&self) -> KernelCounts {
        let sums = self.map.sums();
        KernelCounts {
            taken: sums.taken,
            idle: sums.idle,
            ring: sums.ring,
            ring_full: sums.ring_full,
            missed_sure: sums.missed_sure,
            missed_perhaps_idle: sums.missed_perhaps_idle,
            max_ns: sums.max_ns,
        }
    }

    fn usage(&self) -> KernelUsage {
        KernelUsage { run_ns: self.map.sums().run_ns, map_bytes: self.map_bytes + chunk_bytes() }
    }
}

fn unix_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64)
}
