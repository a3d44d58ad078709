//! Gathers raw samples into a batch: who was seen, in which stack, when.
//!
//! Samples of one process, stack, thread, CPU and completeness are one entry with all its
//! times. Times are taken as they come (CLOCK_MONOTONIC) and become Unix time when the
//! batch is sealed, by the distance between the two clocks that held when each was taken.

mod lanes;
mod order;
mod origin;

use std::{collections::hash_map::Entry, hash::Hash, sync::Arc};

use everflame_profile::{
    Batch, Completeness, Frame, FrameKind, Labels, Mapping, Point, Profile, Sample, SampleType, Stack, Str,
};
use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::xxh3_64;

use self::order::{in_order, rounded};
pub use self::{
    lanes::{Lanes, WAIT, Waited},
    origin::Origin,
};
use crate::{
    identity::{Describe, ProcessIdentity},
    sample::{Place, RawSample, RawStack, UserFrame},
    wall_clock::WallClock,
};

/// Distinct stacks of a batch, beyond which it is to be sealed early.
pub const MAX_STACKS: usize = 65_536;
/// Distinct processes of a batch, beyond which it is to be sealed early.
pub const MAX_RESOURCES: usize = 16_384;
/// Samples of a batch, beyond which it is to be sealed early.
pub const MAX_SAMPLES: u64 = 1 << 20;

/// Name of the mapping of code that belongs to no file.
const ANONYMOUS: &str = "[anon]";

/// A batch under construction.
#[derive(Debug)]
pub struct Aggregate {
    origin: Origin,
    /// With the sequence, names each profile.
    instance: u64,
    sequence: u64,
    bounded: bool,
    clock: WallClock,
    anonymous: Arc<Mapping>,
    open: Open,
}

/// What is emptied when a batch is sealed.
#[derive(Debug, Default)]
struct Open {
    samples: u64,
    processes: Table<Arc<ProcessIdentity>>,
    frames: Table<Frame>,
    user_frames: FxHashMap<UserFrame, u32>,
    kernel_frames: FxHashMap<u64, u32>,
    raw_stacks: FxHashMap<Arc<RawStack>, u32>,
    stacks: Table<Stack>,
    threads: FxHashMap<[u8; 16], Str>,
    profiles: Table<ProfileKey>,
    entries: FxHashMap<Key, Vec<u64>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ProfileKey {
    process: u32,
    period: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    profile: u32,
    stack: u32,
    completeness: Completeness,
    comm: [u8; 16],
    tid: u32,
    cpu: u32,
}

impl Aggregate {
    /// For the agent `instance` on `node`. The caller seals when [`Self::is_full`].
    pub fn new(node: &str, instance: &str) -> Self {
        Self {
            origin: Origin::new(node, None),
            // Not zero: neither is an id, then.
            instance: xxh3_64(instance.as_bytes()).max(1),
            sequence: 0,
            bounded: true,
            clock: WallClock::now(),
            anonymous: Arc::new(Mapping { name: Str::from(ANONYMOUS), build_id: Str::from(""), content_id: None }),
            open: Open::default(),
        }
    }

    /// For a recording that its user bounds in time: never full.
    pub fn unbounded(node: &str) -> Self {
        Self { bounded: false, ..Self::new(node, "") }
    }

    /// Its samples come from there.
    pub fn of(self, origin: &Origin) -> Self {
        Self { origin: origin.clone(), ..self }
    }

    /// Samples since the last seal.
    pub fn samples(&self) -> u64 {
        self.open.samples
    }

    /// Whether the batch is to be sealed before more is added.
    pub fn is_full(&self) -> bool {
        let open = &self.open;
        self.bounded
            && (open.samples >= MAX_SAMPLES
                || open.raw_stacks.len() >= MAX_STACKS
                || open.processes.0.len() >= MAX_RESOURCES)
    }

    /// Adds one sample.
    pub fn add(&mut self, sample: &RawSample, describe: &dyn Describe) {
        let name = self.thread(sample);
        let process = describe.process(sample, &name);
        self.add_of(sample, process, describe);
    }

    /// Adds one sample of a process that is known already.
    pub fn add_of(&mut self, sample: &RawSample, process: Arc<ProcessIdentity>, describe: &dyn Describe) {
        self.thread(sample);
        let process = self.open.processes.number(process);
        let profile = self.open.profiles.number(ProfileKey { process, period: sample.period });
        let stack = self.stack(&sample.stack, describe);
        let RawSample { completeness, comm, tid, cpu, .. } = *sample;
        let key = Key { profile, stack, completeness, comm, tid, cpu };
        self.open.entries.entry(key).or_default().push(sample.time);
        self.open.samples += 1;
    }

    fn thread(&mut self, sample: &RawSample) -> Str {
        self.open.threads.entry(sample.comm).or_insert_with(|| sample.thread().into()).clone()
    }

    /// Hands over what was gathered since the last seal, under the names that are known now;
    /// `None` where that is nothing.
    pub fn seal(&mut self, describe: &dyn Describe) -> Option<Batch> {
        self.look_at_clock();
        self.seal_as_it_is(describe)
    }

    /// To be called at each look for samples: times of a batch hold although the machine slept
    /// or its clock was set meanwhile.
    pub fn look_at_clock(&mut self) {
        self.clock.look();
    }

    fn seal_as_it_is(&mut self, describe: &dyn Describe) -> Option<Batch> {
        let open = std::mem::take(&mut self.open);
        if open.samples == 0 {
            return None;
        }
        self.sequence += 1;
        let mut resources = Table::default();
        let of_process: Vec<u32> = (open.processes.into_vec().iter())
            .map(|process| resources.number(self.origin.labels(process, &describe.location(&process.cgroup))))
            .collect();
        let mut profiles: Vec<Profile> = (0..)
            .zip(open.profiles.into_vec())
            .map(|(number, key)| Profile {
                id: Some(self.profile_id(number)),
                resource: of_process.get(key.process as usize).copied().unwrap_or(0),
                sample_type: SampleType::cpu(),
                period: i64::try_from(key.period).unwrap_or(i64::MAX),
                samples: Vec::new(),
            })
            .collect();
        let (frames, stacks, numbers) = in_order(open.frames.into_vec(), open.stacks.into_vec());
        for (key, mut times) in open.entries {
            let Some(profile) = profiles.get_mut(key.profile as usize) else { continue };
            times.sort_unstable();
            let value = profile.period;
            let time = |time: u64| rounded(self.clock.unix(time));
            profile.samples.push(Sample {
                stack: numbers.get(key.stack as usize).copied().unwrap_or(0),
                completeness: key.completeness,
                thread: open.threads.get(&key.comm).cloned().unwrap_or_else(|| Str::from("")),
                tid: key.tid,
                cpu: key.cpu,
                labels: Labels::default(),
                points: times.iter().map(|t| Point { time: time(*t), samples: 1, value }).collect(),
            });
        }
        // Neighbours share threads and stacks, which is what compression lives on.
        for profile in &mut profiles {
            profile.samples.sort_by_key(|s| (s.tid, s.cpu, s.stack));
        }
        Some(Batch { resources: resources.into_vec(), frames, stacks, profiles })
    }

    /// Unique, with little that differs within a batch: nothing of it can be compressed
    /// but what is the same.
    fn profile_id(&self, number: u64) -> [u8; 16] {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.instance.to_le_bytes());
        id[8..].copy_from_slice(&(self.sequence << 24 | number & 0xff_ffff).to_be_bytes());
        id
    }

    fn stack(&mut self, raw: &Arc<RawStack>, describe: &dyn Describe) -> u32 {
        if let Some(&known) = self.open.raw_stacks.get(raw) {
            return known;
        }
        let open = &mut self.open;
        let mut frames = Vec::with_capacity(raw.kernel.len() + raw.user.len());
        for &address in &raw.kernel {
            let number = match open.kernel_frames.entry(address) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => *new.insert(open.frames.number(describe.kernel_frame(address))),
            };
            frames.push(number);
        }
        for &frame in &raw.user {
            let number = match open.user_frames.entry(frame) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    let (mapping, address) = match frame.place() {
                        Place::File { executable, address } => (describe.executable(executable), address),
                        Place::Absolute(address) => (Some(self.anonymous.clone()), address),
                    };
                    let kind = FrameKind(Str::from(FrameKind::NATIVE));
                    *new.insert(open.frames.number(Frame { kind, mapping, address, lines: Vec::new() }))
                }
            };
            frames.push(number);
        }
        let number = open.stacks.number(Stack(frames));
        open.raw_stacks.insert(raw.clone(), number);
        number
    }
}

/// Unique values, numbered in the order of their coming.
#[derive(Debug)]
struct Table<T>(FxHashMap<T, u32>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(FxHashMap::default())
    }
}

impl<T: Hash + Eq> Table<T> {
    fn number(&mut self, value: T) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(value).or_insert(next)
    }

    fn into_vec(self) -> Vec<T> {
        let mut values: Vec<(u32, T)> = self.0.into_iter().map(|(value, number)| (number, value)).collect();
        values.sort_unstable_by_key(|(number, _)| *number);
        values.into_iter().map(|(_, value)| value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::who::{Cgroup, Location};

    struct Facts;

    impl Describe for Facts {
        fn process(&self, sample: &RawSample, comm: &str) -> Arc<ProcessIdentity> {
            let pid = sample.pid;
            Arc::new(ProcessIdentity {
                pid,
                generation: 1,
                name: Str::from(comm),
                path: Str::from("/bin/x"),
                cgroup: Arc::default(),
                service: Str::from(if pid == 2 { "shop" } else { "" }),
                named: true,
                located: true,
            })
        }

        fn location(&self, _cgroup: &Cgroup) -> Arc<Location> {
            Arc::default()
        }

        fn executable(&self, number: u32) -> Option<Arc<Mapping>> {
            (number == 16)
                .then(|| Arc::new(Mapping { name: Str::from("x"), build_id: Str::from("ab"), content_id: None }))
        }

        fn kernel_frame(&self, address: u64) -> Frame {
            let kind = FrameKind(Str::from(FrameKind::KERNEL));
            Frame { kind, mapping: None, address, lines: Vec::new() }
        }
    }

    fn sample(time: u64, pid: u32, stack: &Arc<RawStack>) -> RawSample {
        RawSample {
            time,
            pid,
            tid: pid,
            cpu: 0,
            cgroup: 0,
            comm: *b"name\0garbage\0\0\0\0",
            kernel_thread: false,
            completeness: Completeness::Complete,
            period: 10,
            stack: stack.clone(),
            late: false,
            copy: None,
        }
    }

    #[test]
    fn same_stacks_are_one_entry_with_all_times() {
        let stack = Arc::new(RawStack {
            kernel: vec![0xffff_ffff_8000_0000],
            user: vec![UserFrame(16 << 44 | 0x1234), UserFrame(0x7f00_1000), UserFrame(17 << 44 | 7)],
        });
        let again = Arc::new((*stack).clone());
        let mut aggregate = Aggregate::new("n1", "00");
        aggregate.add(&sample(300 << 20, 1, &stack), &Facts);
        aggregate.add(&sample(100 << 20, 1, &again), &Facts);
        aggregate.add(&sample(200 << 20, 2, &stack), &Facts);
        assert_eq!(aggregate.samples(), 3);
        aggregate.clock = WallClock::with_offset(1_000);
        let batch = aggregate.seal_as_it_is(&Facts).unwrap();
        assert_eq!((batch.stacks.len(), batch.profiles.len(), batch.samples()), (1, 2, 3));
        let frames: Vec<_> = batch.stacks[0].0.iter().map(|f| &batch.frames[*f as usize]).collect();
        let seen: Vec<_> =
            frames.iter().map(|f| (f.kind.as_str(), f.mapping.as_ref().map(|m| m.name.as_ref()), f.address)).collect();
        assert_eq!(
            seen,
            [
                ("kernel", None, 0xffff_ffff_8000_0000),
                ("native", Some("x"), 0x1234),
                ("native", Some("[anon]"), 0x7f00_1000),
                ("native", None, 7),
            ]
        );
        let one = &batch.profiles[0];
        assert_eq!(one.samples.len(), 1);
        assert_eq!(one.samples[0].thread.as_ref(), "name");
        assert_eq!(
            one.samples[0].points.iter().map(|p| (p.time, p.value)).collect::<Vec<_>>(),
            [(100 << 20, 10), (300 << 20, 10)],
            "rounded"
        );
        let service = |p: &Profile| batch.resources[p.resource as usize].get("service.name").cloned();
        assert_eq!(service(one).as_deref(), Some("name"));
        assert_eq!(service(&batch.profiles[1]).as_deref(), Some("shop"));
        assert_ne!(one.id, batch.profiles[1].id);
        assert_eq!(aggregate.seal_as_it_is(&Facts), None, "sealed means empty");
        aggregate.add(&sample(1, 1, &stack), &Facts);
        assert_ne!(aggregate.seal_as_it_is(&Facts).unwrap().profiles[0].id, one.id, "ids are never given again");
    }

    #[test]
    fn samples_say_their_project() {
        let stack = Arc::new(RawStack { kernel: vec![1], user: vec![] });
        for (given, said) in [(Some("42"), Some("42")), (None, None)] {
            let mut aggregate = Aggregate::new("n1", "00").of(&Origin::new("n1", given));
            aggregate.add(&sample(1, 1, &stack), &Facts);
            let batch = aggregate.seal_as_it_is(&Facts).unwrap();
            assert_eq!(batch.resources[0].get("project").map(AsRef::as_ref), said);
        }
    }

    #[test]
    fn a_full_batch_says_so() {
        let mut aggregate = Aggregate::new("n1", "00");
        let mut recording = Aggregate::unbounded("n1");
        for number in 0..MAX_STACKS as u64 {
            assert!(!aggregate.is_full());
            let stack = Arc::new(RawStack { kernel: vec![number], user: vec![] });
            aggregate.add(&sample(number, 1, &stack), &Facts);
            recording.add(&sample(number, 1, &stack), &Facts);
        }
        assert!(aggregate.is_full());
        assert!(!recording.is_full());
        assert_eq!(aggregate.seal(&Facts).unwrap().stacks.len(), MAX_STACKS);
        assert!(!aggregate.is_full());
    }
}
