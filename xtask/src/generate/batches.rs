//! The cluster's reports: one batch a node every 10 seconds.

use std::collections::HashMap;

use everflame_profile::{Batch, Completeness, Labels, Point, Profile, Sample, SampleType, Stack, Str};
use xxhash_rust::xxh3::xxh3_128;

use super::random::{Random, Weighted};
use super::shape::{Cluster, Shape};
use super::totals::Totals;

/// Pod among those of a node, stack, thread, CPU: what makes observations one sample.
type Group = (usize, u32, usize, u32);

/// All batches of a load, in the order in which they would be sent.
#[derive(Debug)]
pub struct Batches {
    shape: Shape,
    cluster: Cluster,
    totals: Totals,
    random: Random,
    /// Unix nanoseconds of the end of the load.
    end: i64,
    next: u32,
}

impl Batches {
    /// A load that ends at a time.
    pub fn new(shape: &Shape, end: i64) -> Self {
        Self {
            shape: shape.clone(),
            cluster: Cluster::new(shape),
            totals: Totals::default(),
            random: Random::new(shape.seed ^ 0xba7c),
            end,
            next: 0,
        }
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The size.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What the batches made so far add up to.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Unix nanoseconds: start and end of the load.
    pub fn range(&self) -> (i64, i64) {
        (self.end - i64::from(self.shape.minutes) * 60_000_000_000, self.end)
    }

    fn batch(&mut self, report: u32, node: u32) -> Batch {
        let period = 1_000_000_000 / i64::from(self.shape.rate);
        let start = self.range().0 + i64::from(report) * i64::from(self.shape.report_seconds) * 1_000_000_000;
        let pods: Vec<usize> =
            (0..self.cluster.pods.len()).filter(|&pod| self.cluster.pods[pod].node == node).collect();
        // A service's weight is that of its rank, spread over its pods.
        let weights = Weighted::new(pods.iter().map(|&pod| (self.cluster.pods[pod].service as f64 + 1.0).powf(-0.6)));
        // In an order that is the same for every run.
        let mut groups: HashMap<Group, usize> = HashMap::new();
        let mut samples: Vec<(Group, Vec<Point>)> = Vec::new();
        let ticks = self.shape.rate * self.shape.report_seconds;
        for _ in 0..self.shape.samples_per_report() {
            let pod = weights.pick(&mut self.random);
            let service = &self.cluster.services[self.cluster.pods[pods[pod]].service];
            let stack = service.stacks[service.popularity.pick(&mut self.random)];
            let thread = self.random.below(service.threads.len());
            let cpu = self.random.below(self.shape.cores as usize) as u32;
            let tick = self.random.below(ticks as usize) as i64;
            let time = start + tick * period + self.random.below(period as usize / 10) as i64;
            let key = (pod, stack, thread, cpu);
            let at = *groups.entry(key).or_insert_with(|| {
                samples.push((key, Vec::new()));
                samples.len() - 1
            });
            samples[at].1.push(Point { time, samples: 1, value: period });
            self.totals.add(self.cluster.pods[pods[pod]].service, stack);
        }
        self.assemble(report, node, &pods, samples, period)
    }

    fn assemble(
        &self,
        report: u32,
        node: u32,
        pods: &[usize],
        samples: Vec<(Group, Vec<Point>)>,
        period: i64,
    ) -> Batch {
        let mut batch = Batch { resources: pods.iter().map(|&pod| self.resource(pod)).collect(), ..Batch::default() };
        let (mut frames, mut stacks) = (HashMap::new(), HashMap::new());
        let mut profiles: Vec<Profile> = (0..pods.len())
            .map(|pod| Profile {
                id: Some(
                    xxh3_128(format!("{}/{report}/{node}/{pod}/{}", self.shape.seed, self.end).as_bytes())
                        .to_le_bytes(),
                ),
                resource: pod as u32,
                sample_type: SampleType::cpu(),
                period,
                samples: Vec::new(),
            })
            .collect();
        for ((pod, stack, thread, cpu), points) in samples {
            let index = *stacks.entry(stack).or_insert_with(|| {
                let leaf_first = self.cluster.stacks[stack as usize].iter().rev();
                let own = leaf_first.map(|&frame| {
                    *frames.entry(frame).or_insert_with(|| {
                        batch.frames.push(self.cluster.frames[frame as usize].clone());
                        batch.frames.len() as u32 - 1
                    })
                });
                batch.stacks.push(Stack(own.collect()));
                batch.stacks.len() as u32 - 1
            });
            let about = &self.cluster.pods[pods[pod]];
            profiles[pod].samples.push(Sample {
                stack: index,
                completeness: Completeness::Complete,
                thread: self.cluster.services[about.service].threads[thread].clone(),
                tid: about.pid * 100 + thread as u32,
                cpu,
                labels: Labels::default(),
                points,
            });
        }
        batch.profiles = profiles.into_iter().filter(|profile| !profile.samples.is_empty()).collect();
        batch
    }

    fn resource(&self, pod: usize) -> Labels {
        let pod = &self.cluster.pods[pod];
        let service = &self.cluster.services[pod.service];
        let pair = |name: &str, value: Str| (Str::from(name), value);
        Labels::new(vec![
            pair("container.id", pod.container_id.clone()),
            pair("host.name", format!("node-{:02}", pod.node).into()),
            pair("k8s.container.name", Str::from("main")),
            pair("k8s.namespace.name", service.namespace.clone()),
            pair("k8s.pod.name", pod.name.clone()),
            pair("process.executable.name", service.executable.clone()),
            pair("process.pid", pod.pid.to_string().into()),
            pair("service.name", service.name.clone()),
        ])
    }
}

impl Iterator for Batches {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let (report, node) = (self.next / self.shape.nodes, self.next % self.shape.nodes);
        if report >= self.shape.reports() {
            return None;
        }
        self.next += 1;
        Some(self.batch(report, node))
    }
}
