//! The pool of mappings: each process's executable mappings as one sorted run. Processes
//! with the same mappings, as forks are, share one.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{Ordering, fence},
    time::Instant,
};

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use rustc_hash::FxHashMap;

use super::{abi, shared::Shared, space::Space, tables::new_chunk};
use crate::processes::sink::{MappingEntry, MappingSink, MappingUsage, NoRoom};

/// As in `bpf/maps.h`.
const MAX_CHUNKS: u32 = 256;
/// Bytes of an element.
const ELEMENT: usize = size_of::<abi::Mapping>();
/// Bytes of a chunk.
const CHUNK_BYTES: u64 = abi::MAPPING_CHUNK as u64 * ELEMENT as u64;

/// A run in the pool, with its head.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// Of the head.
    first: u32,
    /// Mappings, without the head.
    count: u32,
    generation: u32,
    /// Processes that have it.
    users: u32,
}

/// Where processes' mappings are put.
#[derive(Debug)]
pub struct MappingPool {
    outer: MapHandle,
    processes: MapHandle,
    chunks: Vec<(MapHandle, Shared)>,
    space: Space,
    /// By a hash of what is in them, or a number near it where hashes collide.
    runs: FxHashMap<u64, Run>,
    /// Which run a process has.
    of: FxHashMap<u32, u64>,
    hasher: RandomState,
    generation: u32,
}

impl MappingPool {
    /// A pool of `bytes` at most, but at least one chunk.
    pub(super) fn new(outer: MapHandle, processes: MapHandle, bytes: u64) -> Self {
        let chunks = (bytes / CHUNK_BYTES).clamp(1, u64::from(MAX_CHUNKS)) as u32;
        Self {
            outer,
            processes,
            chunks: Vec::new(),
            space: Space::new(abi::MAPPING_CHUNK, chunks, false),
            runs: FxHashMap::default(),
            of: FxHashMap::default(),
            hasher: RandomState::new(),
            generation: 0,
        }
    }

    fn allocate(&mut self, elements: u32) -> Result<u32, NoRoom> {
        if elements > abi::MAPPING_CHUNK {
            return Err(NoRoom);
        }
        loop {
            if let Some(first) = self.space.allocate(elements, Instant::now()) {
                return Ok(first);
            }
            if self.space.is_grown() {
                return Err(NoRoom);
            }
            let chunk = new_chunk("mappings", ELEMENT as u32, abi::MAPPING_CHUNK, &self.outer, self.space.chunks())?;
            self.chunks.push(chunk);
            self.space.grow();
        }
    }

    /// The key and the run of these mappings, which counts one more user.
    fn run(&mut self, entries: &[MappingEntry]) -> Result<(u64, Run), NoRoom> {
        let bytes = to_bytes(entries);
        let count = entries.len() as u32;
        let mut key = self.hasher.hash_one(&bytes);
        while let Some(run) = self.runs.get_mut(&key) {
            let (chunk, at) = place(run.first + 1);
            if run.count == count && self.chunks[chunk].1.holds(at, &bytes) {
                run.users += 1;
                return Ok((key, *run));
            }
            key = key.wrapping_add(1);
        }
        let first = self.allocate(count + 1)?;
        self.generation = self.generation.wrapping_add(1).max(1);
        let run = Run { first, count, generation: self.generation, users: 1 };
        let head = MappingEntry { start: u64::from(run.generation), pages: 0, executable: 0, bias: 0 };
        let (chunk, at) = place(first);
        let chunk = &mut self.chunks[chunk].1;
        chunk.write(at, &to_bytes(&[head]));
        // A walk that sees any of what follows sees that the head has changed.
        fence(Ordering::SeqCst);
        chunk.write(at + ELEMENT, &bytes);
        self.runs.insert(key, run);
        Ok((key, run))
    }

    /// One user less. Says how many elements will be free for that.
    fn drop_run(&mut self, key: u64) -> u32 {
        let Some(run) = self.runs.get_mut(&key) else { return 0 };
        run.users -= 1;
        if run.users > 0 {
            return 0;
        }
        let (first, elements) = (run.first, run.count + 1);
        self.runs.remove(&key);
        self.space.release(first, elements, Instant::now());
        elements
    }
}

/// Chunk, and offset in it in bytes.
fn place(element: u32) -> (usize, usize) {
    ((element / abi::MAPPING_CHUNK) as usize, (element % abi::MAPPING_CHUNK) as usize * ELEMENT)
}

/// As `struct mapping` lies in memory.
fn to_bytes(entries: &[MappingEntry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * ELEMENT);
    for entry in entries {
        bytes.extend_from_slice(&entry.start.to_le_bytes());
        bytes.extend_from_slice(&entry.bias.to_le_bytes());
        bytes.extend_from_slice(&entry.pages.to_le_bytes());
        bytes.extend_from_slice(&entry.executable.to_le_bytes());
    }
    bytes
}

impl MappingSink for MappingPool {
    fn set(&mut self, pid: u32, entries: &[MappingEntry], as_of: u64) -> Result<(), NoRoom> {
        // What the kernel program wrote at an exec after `as_of` is newer than what we know.
        let known = self.processes.lookup(&pid.to_le_bytes(), MapFlags::ANY).ok().flatten();
        let known = known.as_deref().and_then(abi::Process::from_bytes);
        if known.is_some_and(|p| p.exec_ns > as_of) {
            return Ok(());
        }
        if entries.is_empty() {
            self.remove(pid);
            return Ok(());
        }
        let (key, run) = self.run(entries)?;
        let value = abi::Process {
            chunk: run.first / abi::MAPPING_CHUNK,
            first: run.first % abi::MAPPING_CHUNK + 1,
            count: run.count,
            generation: run.generation,
            exec_ns: known.map_or(0, |p| p.exec_ns),
        };
        // A fork has its parent's entry from the kernel already.
        if known != Some(value)
            && let Err(e) = self.processes.update(&pid.to_le_bytes(), &value.to_bytes(), MapFlags::ANY)
        {
            self.drop_run(key);
            tracing::debug!("process {pid} has no place in the table of processes: {e}");
            return Err(NoRoom);
        }
        if let Some(old) = self.of.insert(pid, key) {
            self.drop_run(old);
        }
        Ok(())
    }

    fn remove(&mut self, pid: u32) -> u32 {
        // The exit program has usually been faster: that the key is missing is no error.
        let _ = self.processes.delete(&pid.to_le_bytes());
        self.of.remove(&pid).map_or(0, |key| self.drop_run(key))
    }

    fn usage(&self) -> MappingUsage {
        MappingUsage {
            runs: self.runs.len() as u64,
            elements: self.space.used() - self.space.rests(),
            rests: self.space.rests(),
            bytes: self.chunks.len() as u64 * CHUNK_BYTES,
        }
    }
}
