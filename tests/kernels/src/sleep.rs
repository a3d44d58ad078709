//! A machine that sleeps for a few seconds while it is sampled, and is woken by its clock.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, anyhow};
use everflame_agent::Recording;
use serde_json::{Value, json};

const STATES: &str = "/sys/power/state";
/// What the sleep to memory is, in brackets: the deep one stops all clocks. Where there is only the
/// shallow one, the monotonic clock goes on.
const KINDS: &str = "/sys/power/mem_sleep";
const ALARM: &str = "/sys/class/rtc/rtc0/wakealarm";
/// From the setting of the alarm. An emulator whose host is busy spends seconds of it on falling
/// asleep.
const WAKES_AFTER: u64 = 8;
/// Sleep that takes all CPUs but one away, and stops all clocks.
const TO_MEMORY: &str = "mem";

/// Whether this machine can sleep, and be woken.
pub fn is_known() -> bool {
    fs::read_to_string(KINDS).is_ok_and(|kinds| kinds.contains("[deep]")) && fs::read_to_string(ALARM).is_ok()
}

/// Sleeps while `turn` goes on, as the agent's own thread would. Tells the Unix times at both
/// ends, and how much of what is between them the monotonic clock saw.
pub fn sleep(mut turn: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Value> {
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(fall_asleep);
        while !sleeper.is_finished() {
            turn()?;
        }
        sleeper.join().map_err(|_| anyhow!("the thread that sends the machine to sleep panicked"))?
    })
}

fn fall_asleep() -> anyhow::Result<Value> {
    fs::write(ALARM, format!("+{WAKES_AFTER}")).context("setting the alarm")?;
    let (down, began) = (unix_time().as_secs_f64(), Instant::now());
    fs::write(STATES, TO_MEMORY).context("falling asleep")?;
    Ok(json!({"down": down, "up": unix_time().as_secs_f64(), "awake": began.elapsed().as_secs_f64()}))
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// How many samples a process has in each tenth of a second of Unix time: `[[seconds, samples], …]`.
pub fn times(recording: &Recording, process: &str) -> Value {
    let batch = &recording.batch;
    let is_it = |resource: u32| {
        batch.resources[resource as usize].get("process.executable.name").is_some_and(|name| **name == *process)
    };
    let mut times = BTreeMap::<i64, u64>::new();
    for profile in batch.profiles.iter().filter(|profile| is_it(profile.resource)) {
        for point in profile.samples.iter().flat_map(|sample| &sample.points) {
            *times.entry(point.time / 100_000_000).or_default() += point.samples;
        }
    }
    times.into_iter().map(|(tenths, samples)| json!([tenths as f64 / 10.0, samples])).collect()
}
