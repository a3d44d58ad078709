//! Batches as our agent sends them.

use std::sync::Arc;

use everflame_profile::{
    Batch, Completeness, Frame, FrameKind, Labels, Mapping, Point, Profile, Report, Sample, SampleType, Stack, Str,
};

use super::sums::{PERIOD, frame};

pub fn s(text: &str) -> Str {
    Arc::from(text)
}

pub fn now() -> i64 {
    everflame_server::query::time::now()
}

pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(name, value)| (s(name), s(value))).collect()
}

/// One profile of one process under way.
pub struct Made {
    pub batch: Batch,
}

impl Made {
    /// A process on the node `n1`.
    pub fn of(id: u8, process: &str, pid: u32) -> Self {
        let resource = labels(&[
            ("host.name", "n1"),
            ("process.executable.name", process),
            ("process.pid", &pid.to_string()),
            ("service.name", &format!("{process}-service")),
        ]);
        let profile = Profile {
            id: Some([id; 16]),
            resource: 0,
            sample_type: SampleType::cpu(),
            period: PERIOD,
            samples: vec![],
        };
        Self { batch: Batch { resources: vec![resource], profiles: vec![profile], ..Batch::default() } }
    }

    /// Adds `count` samples of a stack (outermost first), a millisecond apart from
    /// `time` on.
    pub fn stack(mut self, names: &[&str], completeness: Completeness, time: i64, count: i64) -> Self {
        let stack: Vec<Frame> = names.iter().map(|name| frame(name)).collect();
        self.add(stack, completeness, (0..count).map(|n| time + n * 1_000_000));
        self
    }

    /// Adds samples of frames as they are (outermost first).
    pub fn add(&mut self, stack: Vec<Frame>, completeness: Completeness, times: impl Iterator<Item = i64>) {
        let batch = &mut self.batch;
        let mut indexes: Vec<u32> = stack.into_iter().map(|frame| place(&mut batch.frames, frame)).collect();
        indexes.reverse();
        let stack = place(&mut batch.stacks, Stack(indexes));
        let points = times.map(|time| Point { time, samples: 1, value: PERIOD }).collect();
        let sample =
            Sample { stack, completeness, thread: s("worker"), tid: 7, cpu: 1, labels: Labels::default(), points };
        batch.profiles[0].samples.push(sample);
    }

    pub fn bytes(&self) -> Vec<u8> {
        everflame_profile::otlp::encode_to_bytes(&self.batch)
    }
}

fn place<T: PartialEq>(list: &mut Vec<T>, item: T) -> u32 {
    let at = list.iter().position(|other| *other == item).unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    });
    at as u32
}

/// A frame in an executable whose names the server may know.
pub fn in_executable(mapping: &Arc<Mapping>, address: u64) -> Frame {
    Frame { kind: FrameKind(s("native")), mapping: Some(mapping.clone()), address, lines: Vec::new() }
}

/// A report of an agent that has sent everything it took.
pub fn report(sequence: u64, taken: u64, idle: u64) -> Report {
    Report {
        instance: "0123456789abcdef0123456789abcdef".into(),
        node: "n1".into(),
        sequence,
        since: 1_700_000_000_000_000_000,
        agent_version: "0.1.0".into(),
        kernel: "6.18.0".into(),
        cpus: 2,
        rate: 19,
        taken,
        idle,
        ..Report::default()
    }
}
