//! The space of unwind tables: 1 MiB chunks that all executables share.

use std::{
    collections::HashMap,
    os::fd::AsFd,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

use super::{abi, host::TableView, shared::Shared, space::Space};
use crate::processes::sink::{NoRoom, TableSink};

/// As in `bpf/maps.h`.
const MAX_CHUNKS: u32 = 256;

/// Where unwind tables are put.
#[derive(Debug)]
pub struct TableSpace {
    outer: MapHandle,
    places: Shared,
    chunks: Vec<(MapHandle, Shared)>,
    space: Space,
    published: HashMap<u32, (u32, u32)>,
    refused: u64,
}

impl TableSpace {
    pub(super) fn new(outer: MapHandle, places: Shared) -> Self {
        let space = Space::new(abi::CHUNK_ELEMENTS, MAX_CHUNKS, true);
        Self { outer, places, chunks: Vec::new(), space, published: HashMap::new(), refused: 0 }
    }

    fn grow(&mut self) -> Result<(), NoRoom> {
        let number = self.space.chunks();
        if number == MAX_CHUNKS {
            return Err(NoRoom);
        }
        let chunk = new_chunk("rows", abi::ELEMENT_SIZE as u32, abi::CHUNK_ELEMENTS, &self.outer, number)?;
        self.chunks.push(chunk);
        self.space.grow();
        Ok(())
    }
}

/// Bytes of all chunks, of tables and of mappings; they live as long as the process.
static CHUNK_BYTES: AtomicU64 = AtomicU64::new(0);

/// Memory of the chunks made so far, bytes.
pub fn chunk_bytes() -> u64 {
    CHUNK_BYTES.load(Ordering::Relaxed)
}

/// Creates, maps and publishes one chunk. Memory that the cgroup does not have is a normal
/// answer here.
pub(super) fn new_chunk(
    name: &str,
    value_size: u32,
    entries: u32,
    outer: &MapHandle,
    number: u32,
) -> Result<(MapHandle, Shared), NoRoom> {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        map_flags: libbpf_sys::BPF_F_MMAPABLE,
        ..Default::default()
    };
    let fail = |what: &str, e: String| {
        tracing::warn!("no room for another chunk of {name} ({what}: {e})");
        NoRoom
    };
    let map = MapHandle::create(MapType::Array, Some(name), 4, value_size, entries, &options)
        .map_err(|e| fail("create", e.to_string()))?;
    let shared =
        Shared::map(&map.as_fd(), value_size as usize * entries as usize).map_err(|e| fail("map", e.to_string()))?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&map.as_fd());
    outer
        .update(&number.to_le_bytes(), &fd.to_le_bytes(), MapFlags::ANY)
        .map_err(|e| fail("publish", e.to_string()))?;
    CHUNK_BYTES.fetch_add(u64::from(value_size) * u64::from(entries), Ordering::Relaxed);
    Ok((map, shared))
}

impl TableSink for TableSpace {
    fn publish(&mut self, executable: u32, table: &[u8]) -> Result<(), NoRoom> {
        let elements = (table.len() / abi::ELEMENT_SIZE) as u32;
        if executable >= abi::EXECUTABLE_LIMIT || elements == 0 || elements > MAX_CHUNKS * abi::CHUNK_ELEMENTS {
            self.refused += 1;
            return Err(NoRoom);
        }
        let first = loop {
            if let Some(first) = self.space.allocate(elements, Instant::now()) {
                break first;
            }
            if let Err(e) = self.grow() {
                self.refused += 1;
                return Err(e);
            }
        };
        let chunk_bytes = abi::CHUNK_ELEMENTS as usize * abi::ELEMENT_SIZE;
        let mut at = first as usize * abi::ELEMENT_SIZE;
        let mut rest = table;
        while !rest.is_empty() {
            let (chunk, offset) = (at / chunk_bytes, at % chunk_bytes);
            let (now, later) = rest.split_at(rest.len().min(chunk_bytes - offset));
            self.chunks[chunk].1.write(offset, now);
            at += now.len();
            rest = later;
        }
        self.withdraw(executable);
        self.published.insert(executable, (first, elements));
        self.places.publish_u32(executable as usize * 8, first + 1);
        Ok(())
    }

    fn withdraw(&mut self, executable: u32) {
        if executable < abi::EXECUTABLE_LIMIT {
            self.places.publish_u32(executable as usize * 8, abi::TABLE_NOT_YET);
        }
        if let Some((first, elements)) = self.published.remove(&executable) {
            self.space.release(first, elements, Instant::now());
        }
    }

    fn never(&mut self, executable: u32) {
        self.withdraw(executable);
        if executable < abi::EXECUTABLE_LIMIT {
            self.places.publish_u32(executable as usize * 8, abi::TABLE_NEVER);
        }
    }

    fn look(&self, with: &mut dyn FnMut(&TableView<'_>)) {
        let chunk = |(_, shared): &(MapHandle, Shared)| shared.array(abi::ELEMENT_SIZE as u32);
        // Only `self` writes to what the view shows, and it is borrowed as long as the view is.
        with(&TableView::new(self.places.array(8), self.chunks.iter().map(chunk).collect()));
    }
}
