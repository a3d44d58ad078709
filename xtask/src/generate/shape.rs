//! What the cluster looks like: services, their functions, their stacks.

use std::sync::Arc;

use everflame_profile::{Frame, FrameKind, Line, Mapping, Str};

use super::random::{Random, Weighted};

/// The size of a load.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Shape {
    pub seed: u64,
    pub nodes: u32,
    pub cores: u32,
    /// Busy share of a core, in percent.
    pub busy_percent: u32,
    pub rate: u32,
    pub minutes: u32,
    pub report_seconds: u32,
    pub services: u32,
    pub pods: u32,
    pub stacks: u32,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            seed: 1,
            nodes: 20,
            cores: 8,
            busy_percent: 40,
            rate: 20,
            minutes: 15,
            report_seconds: 10,
            services: 30,
            pods: 120,
            stacks: 47_500,
        }
    }
}

impl Shape {
    /// Samples in one report of one node.
    pub fn samples_per_report(&self) -> u32 {
        self.cores * self.busy_percent * self.rate * self.report_seconds / 100
    }

    /// Reports of each node.
    pub fn reports(&self) -> u32 {
        self.minutes * 60 / self.report_seconds
    }
}

/// Deepest stack.
const MAX_DEPTH: usize = 126;
const MEDIAN_DEPTH: f64 = 25.0;
/// Share of bare addresses among all frames.
const BARE: f64 = 0.23;
/// Functions with a name, and addresses without, of one service.
const NAMED: usize = 1_200;
const ADDRESSES: usize = 400;
const KERNEL: usize = 300;

/// Service and number to the name of a function and its file.
type Naming = fn(&str, usize) -> (String, String);

/// Languages of the services, in turn: frame kind and how functions are called.
const LANGUAGES: [(&str, Naming); 5] = [
    ("go", |s, n| {
        (format!("shop.example/{s}/internal/pkg{}.(*Server).handle{n}", n % 40), format!("pkg{}/server.go", n % 40))
    }),
    ("jvm", |s, n| (format!("example.shop.{s}.Service{}.process{n}", n % 60), format!("Service{}.java", n % 60))),
    ("cpython", |s, n| (format!("{s}_step_{n}"), format!("/app/{s}/module_{}.py", n % 50))),
    ("native", |s, n| (format!("shop::{s}::Filter{}::onData{n}(Buffer&, bool)", n % 80), String::new())),
    ("v8js", |s, n| (format!("{s}Handler{n}"), format!("/app/src/{s}/{}.js", n % 45))),
];

/// A service.
#[derive(Debug)]
pub struct Service {
    pub name: Str,
    pub namespace: Str,
    pub executable: Str,
    /// Indexes into [`Cluster::stacks`], and how popular each is.
    pub stacks: Vec<u32>,
    pub popularity: Weighted,
    pub threads: Vec<Str>,
}

/// A pod and where it runs.
#[derive(Debug)]
pub struct Pod {
    pub name: Str,
    pub service: usize,
    pub node: u32,
    pub pid: u32,
    pub container_id: Str,
}

/// Everything that is fixed for a seed.
#[derive(Debug)]
pub struct Cluster {
    pub frames: Vec<Frame>,
    /// Frames, **root first**.
    pub stacks: Vec<Vec<u32>>,
    pub services: Vec<Service>,
    pub pods: Vec<Pod>,
}

impl Cluster {
    /// Draws a cluster.
    pub fn new(shape: &Shape) -> Self {
        let mut random = Random::new(shape.seed);
        let mut cluster = Self { frames: Vec::new(), stacks: Vec::new(), services: Vec::new(), pods: Vec::new() };
        let vmlinux = mapping("vmlinux", 0);
        let kernel: Vec<u32> = (0..KERNEL)
            .map(|n| {
                cluster.frame(
                    FrameKind::KERNEL,
                    &vmlinux,
                    0xffff_ffff_8100_0000 + n as u64 * 512,
                    &format!("kernel_function_{n}"),
                    "",
                )
            })
            .collect();
        for number in 0..shape.services as usize {
            // The first services get one stack more where the number does not divide.
            let count = (shape.stacks as usize + number) / shape.services as usize;
            cluster.service(number, count, &kernel, &mut random);
        }
        for number in 0..shape.pods as usize {
            let service = number % cluster.services.len();
            let name = format!("{}-{:05x}", cluster.services[service].name, random.below(1 << 20));
            cluster.pods.push(Pod {
                name: name.into(),
                service,
                node: number as u32 % shape.nodes,
                pid: 1_000 + number as u32,
                container_id: (0..4).map(|_| format!("{:016x}", random.bits())).collect::<String>().into(),
            });
        }
        cluster
    }

    fn service(&mut self, number: usize, count: usize, kernel: &[u32], random: &mut Random) {
        let (kind, naming) = LANGUAGES[number % LANGUAGES.len()];
        let name = format!("service{number:02}");
        let own = mapping(&format!("{name}-bin"), number as u64 * 2 + 1);
        let stripped = mapping(&format!("lib{name}.so"), number as u64 * 2 + 2);
        let native = (kind == FrameKind::NATIVE).then_some(&own);
        let named: Vec<u32> = (0..NAMED)
            .map(|n| {
                let (function, file) = naming(&name, n);
                let address = if native.is_some() { 0x10_0000 + n as u64 * 160 } else { 0 };
                self.named_frame(kind, native, address, &function, &file, 10 + (n % 400) as u32)
            })
            .collect();
        let bare: Vec<u32> = (0..ADDRESSES)
            .map(|n| {
                self.frame(FrameKind::NATIVE, &stripped, 0x4000 + n as u64 * 208 + random.below(200) as u64, "", "")
            })
            .collect();
        let first = self.stacks.len();
        for _ in 0..count {
            let depth = (MEDIAN_DEPTH * (random.normal() * 0.45).exp()).round().clamp(3.0, MAX_DEPTH as f64) as usize;
            // It branches off another stack of the service, as a call tree does.
            let mut stack: Vec<u32> = match self.stacks.len() - first {
                0 => vec![named[0], named[1], named[2]],
                others => {
                    let other = &self.stacks[first + random.below(others)];
                    let shared = (3 + random.below(19)).min(other.len()).min(depth.saturating_sub(1));
                    other[..shared].to_vec()
                }
            };
            let in_kernel = if random.unit() < 0.25 { 1 + random.below(8) } else { 0 };
            while stack.len() < depth {
                let pool = if depth - stack.len() <= in_kernel {
                    kernel
                } else if random.unit() < BARE * 1.18 {
                    &bare
                } else {
                    &named
                };
                stack.push(pool[random.below(pool.len())]);
            }
            self.stacks.push(stack);
        }
        let threads = 8 + random.below(9);
        self.services.push(Service {
            namespace: format!("team-{}", number % 6).into(),
            executable: format!("{name}-bin").into(),
            stacks: (first as u32..self.stacks.len() as u32).collect(),
            popularity: Weighted::zipf(count, 0.7),
            threads: (0..threads).map(|n| format!("{}-{n}", ["worker", "poller", "gc"][n % 3]).into()).collect(),
            name: name.into(),
        });
    }

    fn frame(&mut self, kind: &str, mapping: &Arc<Mapping>, address: u64, name: &str, file: &str) -> u32 {
        self.named_frame(kind, Some(mapping), address, name, file, 0)
    }

    fn named_frame(
        &mut self,
        kind: &str,
        mapping: Option<&Arc<Mapping>>,
        address: u64,
        name: &str,
        file: &str,
        line: u32,
    ) -> u32 {
        let lines =
            if name.is_empty() { Vec::new() } else { vec![Line { function: name.into(), file: file.into(), line }] };
        self.frames.push(Frame { kind: FrameKind(kind.into()), mapping: mapping.cloned(), address, lines });
        self.frames.len() as u32 - 1
    }
}

fn mapping(name: &str, number: u64) -> Arc<Mapping> {
    Arc::new(Mapping { name: name.into(), build_id: format!("{:040x}", number + 1).into(), content_id: None })
}
