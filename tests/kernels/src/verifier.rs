//! How many instructions this kernel's verifier looks at before it believes each program.
//! Only kernels from 5.16 on keep the figure; all of them print it when asked.

use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use everflame_agent::bpf::programs::OBJECT;
use libbpf_rs::{ObjectBuilder, PrintLevel, set_print};
use serde_json::{Map, Value};

/// `BPF_LOG_STATS` of the kernel's verifier.
const LOG_STATS: u32 = 4;

static LOG: Mutex<String> = Mutex::new(String::new());

/// Loads every program once, with the verifier's figures: `{"sampler": 12345, …}`.
pub fn counts() -> anyhow::Result<Value> {
    let before = set_print(Some((PrintLevel::Debug, |_, text| {
        LOG.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
    })));
    let mut open = ObjectBuilder::default().open_memory(OBJECT).context("opening the object")?;
    for mut program in open.progs_mut() {
        program.set_log_level(LOG_STATS);
    }
    let loaded = open.load();
    set_print(before);
    let log = std::mem::take(&mut *LOG.lock().unwrap_or_else(PoisonError::into_inner));
    let object = loaded.with_context(|| format!("loading the object: {log}"))?;
    let counts = parse(&log);
    for program in object.progs() {
        let name = program.name().to_string_lossy().into_owned();
        anyhow::ensure!(counts.contains_key(&name), "no figure for {name} in the verifier's log: {log}");
    }
    Ok(Value::Object(counts))
}

/// Takes `processed N insns` out of the log that libbpf prints for each program.
fn parse(log: &str) -> Map<String, Value> {
    let mut counts = Map::new();
    let mut program = "";
    for line in log.lines() {
        if line.contains("BEGIN PROG LOAD LOG") {
            program = line.split('\'').nth(1).unwrap_or_default();
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["processed", count, "insns", ..] = words[..]
            && let Ok(count) = count.parse::<u64>()
        {
            counts.insert(program.to_owned(), count.into());
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn figures_are_found_in_the_log() {
        let log = "libbpf: prog 'sampler': -- BEGIN PROG LOAD LOG --\nverification time 9 usec\nprocessed 123 insns \
                   (limit 1000000) max_states_per_insn 4\n-- END PROG LOAD LOG --\n";
        assert_eq!(parse(log)["sampler"], 123);
    }
}
