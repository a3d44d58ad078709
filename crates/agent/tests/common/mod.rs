//! A server that keeps accounts as the real one does and can be made to misbehave, and
//! the pieces of an agent around its exporter.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]
#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use everflame_agent::{
    export::{Destination, ExportConfig, Exporter, Packer, SpoolLimits},
    ledger::{About, KernelCounters, KernelCounts, Ledger, REGION_WORDS, new_instance},
};
use everflame_profile::{
    Batch, Completeness, Frame, FrameKind, Labels, Point, Profile, Report, Sample, SampleType, Stack, Str,
    otlp::{Limits, decode},
    report::REPORT_HEADER,
};
use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesServiceRequest, ExportProfilesServiceResponse,
    profiles_service_server::{ProfilesService, ProfilesServiceServer},
};
use tonic::{Code, Request, Response, Status, codec::CompressionEncoding, transport::Server};

/// How the server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Stores,
    /// Refuses with a code and stores nothing.
    Refuses(Code),
    /// Stores, then never answers: whoever waits must be cut off.
    StoresAndHangs,
    /// Stores, then fails.
    StoresAndFails,
}

#[derive(Debug, Default)]
pub struct Books {
    seen: HashSet<[u8; 16]>,
    pub stored: HashMap<String, u64>,
    pub reports: HashMap<String, Report>,
    pub requests: u64,
    pub duplicates: u64,
    pub anonymous: u64,
    pub headers: Vec<String>,
    pub names: HashSet<String>,
}

impl Books {
    /// What does not add up of an instance, as of its last report.
    pub fn residual(&self, instance: &str) -> i64 {
        let Some(report) = self.reports.get(instance) else { return 0 };
        let sum = |map: &std::collections::BTreeMap<String, u64>| map.values().sum::<u64>() as i64;
        let stored = self.stored.get(instance).copied().unwrap_or(0) as i64;
        report.taken as i64 - report.idle as i64 - stored - sum(&report.in_flight) - sum(&report.dropped)
    }

    pub fn check(&self) {
        for instance in self.reports.keys() {
            assert_eq!(self.residual(instance), 0, "{instance}: {:?} {:?}", self.reports[instance], self.stored);
        }
    }
}

#[derive(Debug, Clone)]
struct Service {
    books: Arc<Mutex<Books>>,
    mood: Arc<Mutex<Mood>>,
}

#[tonic::async_trait]
impl ProfilesService for Service {
    async fn export(
        &self,
        request: Request<ExportProfilesServiceRequest>,
    ) -> Result<Response<ExportProfilesServiceResponse>, Status> {
        let mood = *self.mood.lock().unwrap();
        if let Mood::Refuses(code) = mood {
            return Err(Status::new(code, "not now"));
        }
        {
            let mut books = self.books.lock().unwrap();
            books.requests += 1;
            let report: Option<Report> =
                request.metadata().get(REPORT_HEADER).map(|r| serde_json::from_slice(r.as_bytes()).unwrap());
            books.headers.extend(request.metadata().get("authorization").map(|a| a.to_str().unwrap().to_string()));
            let decoded = decode(request.into_inner(), &Limits::default());
            assert_eq!(decoded.first_cause, None);
            let mut stored = 0;
            for profile in &decoded.batch.profiles {
                if books.seen.insert(profile.id.expect("our profiles have ids")) {
                    stored += profile.samples();
                } else {
                    books.duplicates += profile.samples();
                }
            }
            match report {
                Some(report) => {
                    *books.stored.entry(report.instance.clone()).or_default() += stored;
                    if books.reports.get(&report.instance).is_none_or(|known| known.sequence <= report.sequence) {
                        books.reports.insert(report.instance.clone(), report);
                    }
                }
                None => books.anonymous += stored,
            }
            // At every moment, not only at the end.
            books.check();
        }
        match mood {
            Mood::StoresAndHangs => std::future::pending().await,
            Mood::StoresAndFails => Err(Status::unavailable("after storing")),
            _ => Ok(Response::new(ExportProfilesServiceResponse::default())),
        }
    }
}

/// A server that can vanish and come back at the same address.
pub struct TestServer {
    runtime: tokio::runtime::Runtime,
    service: Service,
    pub address: SocketAddr,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl TestServer {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let service = Service { books: Arc::default(), mood: Arc::new(Mutex::new(Mood::Stores)) };
        let address = "127.0.0.1:0".parse().unwrap();
        let mut server = Self { runtime, service, address, task: None };
        server.appear();
        server
    }

    /// Listens (again).
    pub fn appear(&mut self) {
        let address = self.address;
        let listener = self.runtime.block_on(async {
            let until = Instant::now() + Duration::from_secs(10);
            loop {
                match tokio::net::TcpListener::bind(address).await {
                    Ok(listener) => return listener,
                    Err(e) => assert!(Instant::now() < until, "{e}"),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        self.address = listener.local_addr().unwrap();
        let service = ProfilesServiceServer::new(self.service.clone())
            .accept_compressed(CompressionEncoding::Zstd)
            .max_decoding_message_size(64 << 20);
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        self.task = Some(self.runtime.spawn(async move {
            Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        }));
    }

    /// Stops in the middle of whatever it does: every connection breaks.
    pub fn vanish(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = self.runtime.block_on(task);
        }
        // Connections are tasks of their own: a new runtime ends them.
        let fresh = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        std::mem::replace(&mut self.runtime, fresh).shutdown_timeout(Duration::from_secs(5));
    }

    pub fn mood(&self, mood: Mood) {
        *self.service.mood.lock().unwrap() = mood;
    }

    pub fn books<T>(&self, look: impl FnOnce(&Books) -> T) -> T {
        look(&self.service.books.lock().unwrap())
    }

    /// Waits until the books say so; the limit only ends a test that fails.
    pub fn until(&self, what: &str, mut so: impl FnMut(&Books) -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !self.books(&mut so) {
            assert!(Instant::now() < end, "not seen: {what}; {:?}", self.books(|b| format!("{b:?}")));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The kernel's counters, as a test moves them.
#[derive(Debug, Default)]
pub struct Kernel {
    pub idle: AtomicU64,
    pub ring: AtomicU64,
    pub ring_full: AtomicU64,
}

#[derive(Debug, Clone)]
pub struct KernelHandle(pub Arc<Kernel>);

impl KernelCounters for KernelHandle {
    fn snapshot(&self) -> KernelCounts {
        let (idle, ring, ring_full) =
            (self.0.idle.load(SeqCst), self.0.ring.load(SeqCst), self.0.ring_full.load(SeqCst));
        KernelCounts { taken: idle + ring + ring_full, idle, ring, ring_full, ..KernelCounts::default() }
    }
}

/// An agent without its kernel side.
pub struct TestAgent {
    pub instance: String,
    pub kernel: Arc<Kernel>,
    pub region: &'static [AtomicU64],
    pub ledger: Arc<Ledger>,
    pub exporter: Option<Exporter>,
    sequence: u64,
}

pub fn region() -> &'static [AtomicU64] {
    Vec::leak((0..REGION_WORDS).map(|_| AtomicU64::new(0)).collect())
}

pub fn about() -> About {
    About { instance: new_instance().unwrap(), node: "n1".into(), since: 1, ..About::default() }
}

pub fn config(address: SocketAddr, spool: &Path) -> ExportConfig {
    ExportConfig {
        destination: destination(address),
        spool: spool.to_path_buf(),
        limits: SpoolLimits { disk_bytes: 64 << 20, memory_bytes: 1 << 20 },
        report_every: Duration::from_millis(100),
    }
}

pub fn destination(address: SocketAddr) -> Destination {
    Destination { name: address.to_string(), endpoint: format!("http://{address}"), ..Destination::default() }
}

impl TestAgent {
    pub fn start(config: ExportConfig, dead: &[&TestAgent]) -> Self {
        let (kernel, region, about) = (Arc::new(Kernel::default()), region(), about());
        let instance = about.instance.clone();
        let ledger = Arc::new(Ledger::new(about, region, Box::new(KernelHandle(kernel.clone()))).unwrap());
        for agent in dead {
            let about = About { node: "n1".into(), ..About::default() };
            ledger.succeed(about, agent.region, Box::new(KernelHandle(agent.kernel.clone()))).unwrap();
        }
        let exporter = Exporter::start(config, ledger.clone()).unwrap();
        Self { instance, kernel, region, ledger, exporter: Some(exporter), sequence: 0 }
    }

    /// The kernel takes samples into the ring.
    pub fn take(&self, samples: u64) {
        self.kernel.idle.fetch_add(3, SeqCst);
        self.kernel.ring.fetch_add(samples, SeqCst);
    }

    /// The agent drains the ring into its aggregate.
    pub fn consume(&self, samples: u64) {
        self.ledger.consumed(samples);
    }

    /// It seals a batch of the aggregate.
    pub fn push(&mut self, samples: u64) {
        self.sequence += 1;
        let batch = batch(&self.instance, self.sequence, samples);
        self.exporter.as_ref().unwrap().push(&Packer::default().batch(&batch));
    }

    /// All of it.
    pub fn sample(&mut self, samples: u64) {
        self.take(samples);
        self.consume(samples);
        self.push(samples);
    }

    /// What a kill leaves: the region, the kernel's counters, the spool.
    pub fn kill(&mut self) {
        drop(self.exporter.take());
    }
}

/// A batch with samples of ten threads.
pub fn batch(instance: &str, sequence: u64, samples: u64) -> Batch {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&u64::from_str_radix(&instance[..16], 16).unwrap().to_le_bytes());
    id[8..].copy_from_slice(&sequence.to_le_bytes());
    let point = |at: u64| Point { time: (1_800_000_000 + at) as i64 * 1_000_000_000, samples: 1, value: 100 };
    let sample = |thread: u64| Sample {
        stack: 0,
        completeness: Completeness::Complete,
        thread: Str::from("t"),
        tid: thread as u32 + 1,
        cpu: 0,
        labels: Labels::default(),
        points: (thread..samples).step_by(10).map(point).collect(),
    };
    Batch {
        resources: vec![[(Str::from("process.pid"), Str::from("1"))].into_iter().collect()],
        frames: vec![Frame { kind: FrameKind(Str::from("native")), mapping: None, address: 1, lines: vec![] }],
        stacks: vec![Stack(vec![0])],
        profiles: vec![Profile {
            id: Some(id),
            resource: 0,
            sample_type: SampleType::cpu(),
            period: 100,
            samples: (0..samples.min(10)).map(sample).collect(),
        }],
    }
}
