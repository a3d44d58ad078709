//! Puts names on a recording: the same naming as the server's, from the indexes that the
//! agent made of the executables it met.

use std::{sync::Arc, time::Duration};

use everflame_agent::Recording;
use everflame_profile::{
    Batch, ContentId, Frame, FrameKind, Str,
    named::{NamedFrame, NamedProfile, NamedSample},
};
use everflame_symbols::{Index, name_frame};
use rustc_hash::FxHashMap;

/// The recording with names on every frame.
pub fn named(recording: &Recording, took: Duration, rate: u32) -> NamedProfile {
    let indexes: FxHashMap<ContentId, Index<&[u8]>> = recording
        .indexes
        .iter()
        .filter_map(|(id, bytes)| match Index::parse(bytes.as_slice()) {
            Ok(index) => Some((*id, index)),
            Err(e) => {
                tracing::warn!("the symbol index of {id} is broken: {e}");
                None
            }
        })
        .collect();
    let batch = &recording.batch;
    let frames: Vec<Vec<NamedFrame>> = batch.frames.iter().map(|frame| name(frame, &indexes)).collect();
    let mut samples = Vec::new();
    let mut first = i64::MAX;
    for profile in &batch.profiles {
        let resource = &batch.resources[profile.resource as usize];
        let label = |name: &str| resource.get(name).cloned().unwrap_or_else(|| Arc::from(""));
        let (process, pid) = (label("process.executable.name"), label("process.pid").parse().unwrap_or(0));
        for sample in &profile.samples {
            let count: u64 = sample.points.iter().map(|p| p.samples).sum();
            first = sample.points.iter().map(|p| p.time).fold(first, i64::min);
            samples.push(NamedSample {
                frames: stack(batch, sample.stack, &frames),
                process: process.clone(),
                pid,
                thread: sample.thread.clone(),
                tid: sample.tid,
                count,
                value: sample.points.iter().map(|p| p.value).sum(),
                completeness: sample.completeness,
            });
        }
    }
    let time = if first == i64::MAX { 0 } else { first };
    NamedProfile { time, duration: took.as_nanos() as i64, period: 1_000_000_000 / i64::from(rate.max(1)), samples }
}

fn stack(batch: &Batch, stack: u32, frames: &[Vec<NamedFrame>]) -> Vec<NamedFrame> {
    batch.stacks[stack as usize].0.iter().flat_map(|&frame| frames[frame as usize].iter().cloned()).collect()
}

fn name(frame: &Frame, indexes: &FxHashMap<ContentId, Index<&[u8]>>) -> Vec<NamedFrame> {
    let index = frame.mapping.as_ref().and_then(|m| m.content_id).and_then(|id| indexes.get(&id));
    let names = name_frame(frame, index);
    let last = names.len().saturating_sub(1);
    names
        .into_iter()
        .enumerate()
        .map(|(at, name)| NamedFrame {
            function: Str::from(name.function.as_ref()),
            file: Str::from(name.file),
            line: name.line,
            kernel: frame.kind.as_str() == FrameKind::KERNEL,
            inlined: at < last,
            mapping: frame.mapping.clone(),
            address: frame.address,
        })
        .collect()
}
