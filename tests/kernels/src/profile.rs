//! A recording as the host judges it: for each process its user stacks by name.

use std::collections::{BTreeMap, HashMap};

use everflame_agent::Recording;
use everflame_profile::{ContentId, Frame, FrameKind};
use everflame_symbols::{Index, name_frame};
use serde_json::{Value, json};

#[derive(Debug, Default)]
struct Process {
    samples: u64,
    cpus: BTreeMap<u32, u64>,
    /// Outermost first, repetitions as `name*times`; why a stack ended; whether the kernel ran.
    stacks: BTreeMap<(String, String, bool), u64>,
}

/// `{"truth_cpp": {"samples": …, "cpus": {…}, "stacks": [[frames, completeness, samples, kernel], …]}, …}`
pub fn by_process(recording: &Recording) -> Value {
    let indexes: HashMap<ContentId, Index<&[u8]>> =
        recording.indexes.iter().filter_map(|(id, bytes)| Some((*id, Index::parse(bytes.as_slice()).ok()?))).collect();
    let batch = &recording.batch;
    let names: Vec<Option<String>> = batch.frames.iter().map(|frame| name(frame, &indexes)).collect();
    let mut processes: BTreeMap<String, Process> = BTreeMap::new();
    for profile in &batch.profiles {
        let process = batch.resources[profile.resource as usize].get("process.executable.name");
        let process = processes.entry(process.map(|name| name.to_string()).unwrap_or_default()).or_default();
        for sample in &profile.samples {
            let count: u64 = sample.points.iter().map(|p| p.samples).sum();
            let frames = &batch.stacks[sample.stack as usize].0;
            let user = frames.iter().rev().filter_map(|&f| names[f as usize].as_deref());
            let kernel = frames.iter().any(|&f| batch.frames[f as usize].kind.as_str() == FrameKind::KERNEL);
            process.samples += count;
            *process.cpus.entry(sample.cpu).or_default() += count;
            *process.stacks.entry((folded(user), format!("{:?}", sample.completeness), kernel)).or_default() += count;
        }
    }
    let stacks = |process: &Process| -> Vec<Value> {
        let one = |((frames, completeness, kernel), count): (&(String, String, bool), &u64)| {
            json!([frames, completeness, count, kernel])
        };
        process.stacks.iter().map(one).collect()
    };
    let value =
        |process: Process| json!({"samples": process.samples, "cpus": process.cpus, "stacks": stacks(&process)});
    processes.into_iter().map(|(name, process)| (name, value(process))).collect::<serde_json::Map<_, _>>().into()
}

/// The name of a user frame.
fn name(frame: &Frame, indexes: &HashMap<ContentId, Index<&[u8]>>) -> Option<String> {
    if frame.kind.as_str() == FrameKind::KERNEL {
        return None;
    }
    let index = frame.mapping.as_ref().and_then(|m| m.content_id).and_then(|id| indexes.get(&id));
    name_frame(frame, index).last().map(|name| name.function.to_string())
}

fn folded<'a>(frames: impl Iterator<Item = &'a str>) -> String {
    let mut runs: Vec<(&str, u32)> = Vec::new();
    for frame in frames {
        match runs.last_mut() {
            Some((name, times)) if *name == frame => *times += 1,
            _ => runs.push((frame, 1)),
        }
    }
    let text = |(name, times): &(&str, u32)| if *times == 1 { (*name).to_owned() } else { format!("{name}*{times}") };
    runs.iter().map(text).collect::<Vec<_>>().join(";")
}
