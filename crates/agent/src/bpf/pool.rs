//! The pool of mappings: each process's executable mappings as one sorted run.

use std::{collections::HashMap, time::Instant};

use libbpf_rs::{MapCore, MapFlags, MapHandle};

use super::{abi, shared::Shared, space::Space, tables::new_chunk};
use crate::processes::sink::{MappingEntry, MappingSink, NoRoom};

/// As in `bpf/maps.h`.
const MAX_CHUNKS: u32 = 64;

/// Where processes' mappings are put.
#[derive(Debug)]
pub struct MappingPool {
    outer: MapHandle,
    processes: MapHandle,
    chunks: Vec<(MapHandle, Shared)>,
    space: Space,
    runs: HashMap<u32, (u32, u32)>,
    generation: u32,
}

impl MappingPool {
    pub(super) fn new(outer: MapHandle, processes: MapHandle) -> Self {
        let space = Space::new(abi::MAPPING_CHUNK, MAX_CHUNKS, false);
        Self { outer, processes, chunks: Vec::new(), space, runs: HashMap::new(), generation: 0 }
    }

    fn allocate(&mut self, count: u32) -> Result<u32, NoRoom> {
        if count == 0 || count > abi::MAPPING_CHUNK {
            return Err(NoRoom);
        }
        loop {
            if let Some(first) = self.space.allocate(count, Instant::now()) {
                return Ok(first);
            }
            let number = self.space.chunks();
            if number == MAX_CHUNKS {
                return Err(NoRoom);
            }
            let size = size_of::<abi::Mapping>() as u32;
            self.chunks.push(new_chunk("mappings", size, abi::MAPPING_CHUNK, &self.outer, number)?);
            self.space.grow();
        }
    }
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
        let first = self.allocate(entries.len() as u32)?;
        let size = size_of::<abi::Mapping>();
        let mut bytes = Vec::with_capacity(entries.len() * size);
        for entry in entries {
            bytes.extend_from_slice(&entry.start.to_le_bytes());
            bytes.extend_from_slice(&entry.bias.to_le_bytes());
            bytes.extend_from_slice(&entry.pages.to_le_bytes());
            bytes.extend_from_slice(&entry.executable.to_le_bytes());
        }
        let (chunk, at) = (first / abi::MAPPING_CHUNK, first % abi::MAPPING_CHUNK);
        self.chunks[chunk as usize].1.write(at as usize * size, &bytes);
        self.generation = self.generation.wrapping_add(1);
        let value = abi::Process {
            chunk,
            first: at,
            count: entries.len() as u32,
            generation: self.generation,
            exec_ns: known.map_or(0, |p| p.exec_ns),
        };
        let updated = self.processes.update(&pid.to_le_bytes(), &value.to_bytes(), MapFlags::ANY);
        let now = Instant::now();
        if let Err(e) = updated {
            self.space.release(first, entries.len() as u32, now);
            tracing::debug!("process {pid} has no place in the table of processes: {e}");
            return Err(NoRoom);
        }
        if let Some((old, count)) = self.runs.insert(pid, (first, entries.len() as u32)) {
            self.space.release(old, count, now);
        }
        Ok(())
    }

    fn remove(&mut self, pid: u32) {
        // The exit program has usually been faster: that the key is missing is no error.
        let _ = self.processes.delete(&pid.to_le_bytes());
        if let Some((first, count)) = self.runs.remove(&pid) {
            self.space.release(first, count, Instant::now());
        }
    }
}
