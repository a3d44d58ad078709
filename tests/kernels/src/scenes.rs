//! What happens in a guest while the agent samples: one recording over all scenes.

use std::{
    fs,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use everflame_agent::{AgentConfig, Recorder, Sampler, SamplerOptions, bpf::counters::CounterMap, memory::Memory};
use libbpf_rs::{Program as BpfProgram, query::ProgInfoIter};
use serde_json::{Map, Value, json};

use crate::{
    hotplug, profile,
    programs::{Program, while_running},
    sleep,
};

/// Samples a second and CPU.
const RATE: u32 = 499;
/// How often the ring is looked at.
const TURN: Duration = Duration::from_millis(100);
/// How often the agent looks at it.
const AGENTS_TURN: Duration = Duration::from_secs(1);
/// A scene that takes longer than this hangs.
const LIMIT: Duration = Duration::from_secs(120);
/// What a program sleeps first: emulated parsers are slow, and what is judged here is not
/// the first moment of a process.
const WARM_UP: &str = "4";

/// Plays all scenes and tells what was recorded.
pub fn play() -> anyhow::Result<Value> {
    let memory = Memory::default();
    let options = SamplerOptions {
        rate: RATE,
        ring_bytes: 1 << 20,
        time_limit_us: 100_000,
        only_wanted: false,
        memory,
        copy_every: 0,
    };
    let sampler = Sampler::load(&options)?;
    let counters = sampler.programs().counters()?;
    let kernels_own = KernelsOwn::of_sampler()?;
    let mut recorder = Recorder::start(sampler, AgentConfig::default())?;
    let (start, mut truths) = (Instant::now(), Map::new());
    let begin = sums(&counters, start);

    let mut scene = |recorder: &mut Recorder, programs: &mut Vec<Program>| {
        while_running(programs, LIMIT, || Ok(recorder.turn(TURN)?))?;
        for program in programs.drain(..) {
            let (name, truth) = program.truth()?;
            truths.insert(name.to_owned(), truth);
        }
        anyhow::Ok(())
    };
    let shares = ["truth_cpp", "truth_musl"].map(|name| Program::start(name, &["12", WARM_UP]));
    scene(&mut recorder, &mut shares.into_iter().collect::<Result<_, _>>()?)?;
    let deep = Program::start("deep", &["2", WARM_UP])?;
    let interrupted = Program::start("interrupted", &["sent", "2", WARM_UP])?;
    scene(&mut recorder, &mut vec![deep, interrupted])?;
    let rust = Program::start("truth_rust", &["4", WARM_UP])?;
    scene(&mut recorder, &mut vec![rust])?;

    let before = sums(&counters, start);
    let mut plugged = vec![Program::start("during_1", &["5", "0"])?, Program::start("during_2", &["5", "0"])?];
    for _ in 0..5 {
        recorder.turn(TURN)?;
    }
    let cycled = hotplug::cycle(Duration::from_millis(500));
    scene(&mut recorder, &mut plugged)?;
    let mut after = vec![Program::start("after_1", &["3", "0"])?, Program::start("after_2", &["3", "0"])?];
    scene(&mut recorder, &mut after)?;
    cycled?;
    let after = sums(&counters, start);

    let mut slept = Value::Null;
    if sleep::is_known() {
        let mut sleeper = vec![Program::start("sleeper", &["6", "0"])?];
        for _ in 0..20 {
            recorder.turn(TURN)?;
        }
        slept = sleep::sleep(|| Ok(recorder.turn(AGENTS_TURN)?))?;
        scene(&mut recorder, &mut sleeper)?;
        let mut awake = vec![Program::start("awake_1", &["3", "0"])?, Program::start("awake_2", &["3", "0"])?];
        scene(&mut recorder, &mut awake)?;
    }
    let after_sleep = sums(&counters, start);

    let recording = recorder.finish()?;
    Ok(json!({
        "rate": RATE,
        "truths": truths,
        "processes": profile::by_process(&recording),
        "samples": recording.batch.samples(),
        "own": recording.own,
        "lost": recording.lost,
        "counters": sums(&counters, start),
        "begin": begin,
        "before_hotplug": before,
        "after_hotplug": after,
        "slept": slept,
        "sleepers_times": sleep::times(&recording, "sleeper"),
        "after_sleep": after_sleep,
        "ran": kernels_own.runs()?,
    }))
}

fn sums(counters: &CounterMap, start: Instant) -> Value {
    let sums = counters.sums();
    json!({
        "seconds": start.elapsed().as_secs_f64(),
        "taken": sums.taken,
        "idle": sums.idle,
        "ring": sums.ring,
        "ring_full": sums.ring_full,
        "missed_sure": sums.missed_sure,
        "missed_perhaps_idle": sums.missed_perhaps_idle,
        "max_ns": sums.max_ns,
        "run_ns": sums.run_ns,
    })
}

/// The kernel's own count of how often the sampler ran.
#[derive(Debug)]
struct KernelsOwn(OwnedFd);

impl KernelsOwn {
    fn of_sampler() -> anyhow::Result<Self> {
        let id = ProgInfoIter::default().find(|program| program.name == "sampler").context("the sampler is loaded")?.id;
        Ok(Self(BpfProgram::fd_from_id(id).context("opening the sampler by its id")?))
    }

    fn runs(&self) -> anyhow::Result<u64> {
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd()))?;
        let count = text.lines().find_map(|line| line.strip_prefix("run_cnt:")?.trim().parse().ok());
        ensure!(count.is_some(), "no run count in {text:?}");
        count.context("a run count")
    }
}
