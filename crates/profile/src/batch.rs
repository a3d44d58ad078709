//! The batch: what one request carries, decoded.

use std::sync::Arc;

use crate::{completeness::Completeness, frame::Frame, labels::Labels, labels::Str};

/// Sixteen bytes that name a profile; one that arrives twice counts once.
pub type ProfileId = [u8; 16];

/// Resources, frames and stacks, and the profiles that point to them.
/// Every index in it is valid: the codecs see to that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Attributes of a resource (a process on a node), unique.
    pub resources: Vec<Labels>,
    /// Frames, as unique as their sender made them.
    pub frames: Vec<Frame>,
    /// Stacks, as unique as their sender made them.
    pub stacks: Vec<Stack>,
    /// What was measured.
    pub profiles: Vec<Profile>,
}

/// Indexes into [`Batch::frames`], **leaf first**. May be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Stack(pub Vec<u32>);

/// What is counted: `cpu` in nanoseconds, `off_cpu` in nanoseconds, `alloc` in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SampleType {
    /// The `type` of the API.
    pub name: Str,
    /// `nanoseconds`, `bytes` or `count`: the unit of [`Point::value`].
    pub unit: Str,
}

impl SampleType {
    /// CPU time: a sample is worth its period.
    pub fn cpu() -> Self {
        Self { name: Arc::from("cpu"), unit: Arc::from("nanoseconds") }
    }
}

/// Samples of one type from one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Absent where the sender gave none; then nothing can be counted once.
    pub id: Option<ProfileId>,
    /// Index into [`Batch::resources`].
    pub resource: u32,
    /// What is counted.
    pub sample_type: SampleType,
    /// The sender's sampling period in the unit of its period type (nanoseconds for
    /// CPU time), 0 where unknown.
    pub period: i64,
    /// The samples.
    pub samples: Vec<Sample>,
}

/// A stack that was seen at one or more points in time, with what is known of the
/// thread that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Index into [`Batch::stacks`].
    pub stack: u32,
    /// Whether the stack reached its root.
    pub completeness: Completeness,
    /// `thread.name`, empty where unknown.
    pub thread: Str,
    /// `thread.id`, 0 where unknown.
    pub tid: u32,
    /// `cpu.logical_number`, `u32::MAX` where unknown.
    pub cpu: u32,
    /// Further attributes of the sample.
    pub labels: Labels,
    /// When, how often, how much; never empty.
    pub points: Vec<Point>,
}

/// One observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Unix time in nanoseconds.
    pub time: i64,
    /// How many samples this is (1 unless the sender had aggregated).
    pub samples: u64,
    /// How much, in the sample type's unit. For `cpu`: samples times period.
    pub value: i64,
}

impl Batch {
    /// Number of samples in all profiles.
    pub fn samples(&self) -> u64 {
        self.profiles.iter().map(Profile::samples).sum()
    }
}

impl Profile {
    /// Number of samples in this profile.
    pub fn samples(&self) -> u64 {
        self.samples.iter().flat_map(|s| &s.points).map(|p| p.samples).sum()
    }
}
