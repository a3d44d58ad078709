//! `record`: profiles for a while, or while a command runs, and writes a file.

mod named;
mod target;
mod write;

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use everflame_agent::{Recorder, Sampler};

use crate::{agent, options::RecordOptions, server};
use target::Target;
use write::Format;

/// How often the ring is looked at.
const TURN: Duration = Duration::from_millis(250);

/// Records and writes; with a command, its exit code is ours.
pub fn run(options: RecordOptions) -> anyhow::Result<ExitCode> {
    let format = Format::of(&options.output)?;
    let mut sampler = agent::sampler_options(options.rate, &options.sampling);
    sampler.only_wanted = !options.pid.is_empty() || !options.command.is_empty();
    let mut target = Target::choose(&options)?;
    let sampler = Sampler::load(&sampler)?;
    let mut recorder = Recorder::start(sampler, agent::config(&options.sampling))?;
    let asked_to_stop = stop_flag(options.duration)?;
    target.start(&recorder)?;

    let begin = Instant::now();
    while !asked_to_stop.load(Ordering::Relaxed) && !target.is_over()? {
        recorder.turn(TURN)?;
    }
    let recording = recorder.finish()?;
    let took = begin.elapsed();
    write::write(&recording, took, options.rate, format, &options.output)
        .with_context(|| format!("cannot write {}", options.output.display()))?;
    eprintln!(
        "{} samples in {:.1} s, {} of them with whole stacks, to {}",
        recording.batch.samples(),
        took.as_secs_f64(),
        recording.complete(),
        options.output.display()
    );
    if recording.lost > 0 {
        eprintln!("{} samples were lost because the ring was full: raise --ring-bytes", recording.lost);
    }
    target.exit_code()
}

fn stop_flag(duration: Option<f64>) -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        let stopped = runtime.block_on(async {
            server::stop(duration)?.await;
            anyhow::Ok(())
        });
        if let Err(e) = stopped {
            tracing::error!("signals cannot be heard: {e}");
        }
        raised.store(true, Ordering::Relaxed);
    });
    Ok(flag)
}
