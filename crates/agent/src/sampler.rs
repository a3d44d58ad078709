//! The sampling itself: kernel programs, clock, ring, processes and kernel symbols put
//! together. The agent and `record` take their samples from here.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use crate::{
    bpf::{
        BpfError,
        births::BirthReader,
        clock::Clock,
        counters::CounterMap,
        monotonic_ns,
        programs::{ProgramOptions, Programs},
        ring::RingReader,
        too_paranoid,
    },
    confinement,
    describe::Describer,
    memory::Memory,
    presence::Presence,
    processes::{Handle, Tracker, TrackerOptions},
    rights::Rights,
    sample::RawSample,
    wall_clock::StepWatch,
    who::Who,
};

/// How long a sample waits for the news of its process, at most: the side band is read every
/// few tens of milliseconds, or at the latest this long after something came.
const SETTLE: Duration = Duration::from_millis(200);
/// How long the first samples wait until those that run already have been read.
const FIRST_SETTLE: Duration = Duration::from_secs(2);
/// How long the end waits for the tables of late samples.
const LATE_HURRY: Duration = Duration::from_secs(1);
/// And how long for the tracker, which answers within a moment unless it hangs.
const LATE_END: Duration = Duration::from_secs(10);
/// After how many periods they are moved (see [`Clock::jitter`]), but not more often than
/// [`JITTER_EVERY`]. A move begins a period anew, which costs half a tick: a quarter of a
/// percent of all.
const JITTER_PERIODS: u32 = 200;
/// See [`JITTER_PERIODS`].
const JITTER_EVERY: Duration = Duration::from_secs(1);
/// How often CPUs are looked for that came or went, and other samplers.
const CPUS_EVERY: Duration = Duration::from_secs(5);
/// How often the stacks that no sample names any more are forgotten.
const EPOCH: Duration = Duration::from_secs(60);

/// How to sample.
#[derive(Debug, Clone)]
pub struct SamplerOptions {
    /// Samples per second and CPU.
    pub rate: u32,
    /// Bytes of the ring, a power of two.
    pub ring_bytes: u32,
    /// Longest time of one sample in the interrupt, microseconds.
    pub time_limit_us: u64,
    /// Sample only processes marked by [`Programs::want`] and their children.
    pub only_wanted: bool,
    /// What memory may be taken.
    pub memory: Memory,
    /// Every so manieth user stack comes with a copy of what it was made of; 0 for none.
    pub copy_every: u32,
}

/// The loaded kernel side; nothing is sampled yet.
#[derive(Debug)]
pub struct Sampler {
    programs: Programs,
    options: SamplerOptions,
    presence: Presence,
}

impl Sampler {
    /// Loads and verifies the kernel programs.
    pub fn load(options: &SamplerOptions) -> Result<Self, BpfError> {
        let rights = Rights::own();
        if let Some(missing) = rights.needed_and_missing() {
            return Err(BpfError::Rights(missing));
        }
        if let Some(level) = too_paranoid(rights) {
            return Err(BpfError::Paranoid(level));
        }
        rights.say_missing();
        confinement::say_forbidden();
        crate::sys::give_memory_back();
        let programs = Programs::load(&ProgramOptions {
            ring_bytes: options.ring_bytes,
            time_limit_ns: options.time_limit_us * 1000,
            only_wanted: options.only_wanted,
            mapping_bytes: options.memory.mappings(),
            // Some more than are tracked: the kernel programs add those that are not yet.
            processes: (options.memory.processes() + options.memory.processes() / 8) as u32,
            stack_bytes: options.memory.stacks(),
            copy_every: options.copy_every,
            ..ProgramOptions::default()
        })?;
        let presence = Presence::announce();
        presence.say_others();
        Ok(Self { programs, options: options.clone(), presence })
    }

    /// The kernel side.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The options it was loaded with.
    pub fn options(&self) -> &SamplerOptions {
        &self.options
    }

    /// Starts to follow processes and to sample.
    pub fn start(self, tracker: TrackerOptions) -> Result<Sampling, BpfError> {
        let pool = self.programs.mapping_pool()?;
        let tables = self.programs.table_space()?;
        let ring = self.programs.ring_reader()?;
        let births = self.programs.birth_reader()?;
        let counters = self.programs.counters()?;
        let tracker = Tracker::start(tracker, Box::new(pool), Box::new(tables))?;
        let clock = self.programs.start_clock(self.options.rate, &counters)?;
        let now = Instant::now();
        Ok(Sampling {
            describer: Describer::new(tracker.clone()),
            tracker,
            ring,
            births,
            clock: Some(clock),
            counters,
            programs: self.programs,
            presence: self.presence,
            held: VecDeque::new(),
            steps: StepWatch::begin(),
            jittered: now,
            cpus_seen: now,
            epoch: now,
        })
    }
}

/// Samples being taken.
#[derive(Debug)]
pub struct Sampling {
    // The order of fields is the order of their ends: the clock stops first.
    clock: Option<Clock>,
    ring: RingReader,
    births: BirthReader,
    tracker: Handle,
    describer: Describer,
    counters: CounterMap,
    programs: Programs,
    presence: Presence,
    held: VecDeque<RawSample>,
    steps: Option<StepWatch>,
    jittered: Instant,
    cpus_seen: Instant,
    epoch: Instant,
}

/// What one look at the ring brought.
#[derive(Debug, Default)]
pub struct Turn {
    /// Samples taken out of the ring now.
    pub drained: u64,
    /// Samples whose processes are known as well as they will be.
    pub samples: Vec<RawSample>,
}

impl Sampling {
    /// Waits until there is something to do, at most `timeout`, and looks at the ring.
    pub fn turn(&mut self, timeout: Duration) -> Turn {
        let stepped = self.ring.wait(timeout, self.steps.as_ref().map(StepWatch::descriptor));
        if stepped && let Some(steps) = &self.steps {
            steps.seen();
        }
        self.keep_house(stepped);
        let drained = self.drain();
        let known = self.tracker.known_until();
        let patience = if known == 0 { FIRST_SETTLE } else { SETTLE };
        let settled = monotonic_ns().saturating_sub(patience.as_nanos() as u64).max(known);
        let ready = self.held.iter().take_while(|s| s.time <= settled).count();
        let mut samples: Vec<RawSample> = self.held.drain(..ready).collect();
        samples.extend(self.tracker.walked());
        self.note(&samples);
        Turn { drained, samples }
    }

    /// Stops the clock and empties the ring.
    pub fn finish(&mut self) -> Turn {
        self.clock = None;
        // The last samples' processes: the tracker needs a moment for its news of them.
        std::thread::sleep(SETTLE);
        let drained = self.drain();
        let mut samples: Vec<RawSample> = self.held.drain(..).collect();
        self.await_late();
        samples.extend(self.tracker.walked());
        self.note(&samples);
        Turn { drained, samples }
    }

    /// Lets those that are late come, for a while with tables that are still being made.
    fn await_late(&self) {
        let start = Instant::now();
        let mut hurried = false;
        while self.tracker.late() > 0 && start.elapsed() < LATE_END {
            if !hurried && start.elapsed() > LATE_HURRY {
                hurried = true;
                self.tracker.hurry();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The kernel side.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Says who and what, for the aggregate.
    pub fn describer(&self) -> &Describer {
        &self.describer
    }

    /// Locations are named by `who` from now on.
    pub fn name_by(&mut self, who: Who) {
        self.describer.name_by(who);
    }

    /// The tracker of processes and executables.
    pub fn tracker(&self) -> &Handle {
        &self.tracker
    }

    /// The kernel's counters.
    pub fn counters(&self) -> CounterMap {
        self.counters
    }

    /// Control groups that the kernel told of in a way that could not be understood.
    pub fn unreadable_births(&self) -> &Arc<AtomicU64> {
        self.births.unreadable()
    }

    /// CPUs that are sampled now.
    pub fn cpus(&self) -> u32 {
        self.clock.as_ref().map_or(0, Clock::cpus)
    }

    fn drain(&mut self) -> u64 {
        let fresh = self.ring.drain();
        // After the samples: a control group was made before anything ran in it.
        let describer = &self.describer;
        self.births.drain(|id, path| describer.born(id, path));
        let drained = fresh.len() as u64;
        let (late, other): (Vec<_>, Vec<_>) = fresh.into_iter().partition(|s| s.late && s.copy.is_some());
        self.held.extend(other);
        if !late.is_empty() {
            self.held.extend(self.tracker.walk_late(late));
        }
        // Records are in order within a CPU only.
        self.held.make_contiguous().sort_by_key(|s| s.time);
        drained
    }

    fn note(&self, samples: &[RawSample]) {
        for sample in samples {
            self.tracker.note_sample(sample);
        }
    }

    /// A machine that has just woken took the clocks of all CPUs but the first away.
    fn keep_house(&mut self, has_woken: bool) {
        let now = Instant::now();
        let Some(clock) = &mut self.clock else { return };
        if has_woken || now - self.cpus_seen > CPUS_EVERY {
            self.cpus_seen = now;
            self.presence.say_others();
            match clock.follow_cpus(&self.programs, &self.counters) {
                Ok(true) => self.tracker.follow_cpus(),
                Ok(false) => {}
                Err(e) => tracing::warn!("a CPU that came is not sampled: {e}"),
            }
        }
        if now - self.jittered > JITTER_EVERY.max(Duration::from_nanos(clock.period()) * JITTER_PERIODS) {
            self.jittered = now;
            clock.jitter(&self.counters);
        }
        if now - self.epoch > EPOCH {
            self.epoch = now;
            self.ring.next_epoch();
            self.describer.refresh();
        }
    }
}
