//! Reads which control groups were made: see `bpf/cgroup.h`.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use libbpf_rs::{MapHandle, RingBuffer, RingBufferBuilder};

use super::{BpfError, abi, programs::into_io};

/// The reading end of their ring.
pub struct BirthReader {
    ring: RingBuffer<'static>,
    inbox: Arc<Mutex<Vec<(u64, String)>>>,
    unreadable: Arc<AtomicU64>,
}

impl BirthReader {
    pub(super) fn new(map: MapHandle) -> Result<Self, BpfError> {
        let inbox = Arc::<Mutex<Vec<_>>>::default();
        let unreadable = Arc::<AtomicU64>::default();
        let (sink, refused_by) = (Arc::clone(&inbox), Arc::clone(&unreadable));
        let refused = |e| BpfError::Map { map: "births", source: into_io(e) };
        // The descriptor must stay open as long as the ring: see `RingReader`.
        let map: &'static MapHandle = Box::leak(Box::new(map));
        let mut builder = RingBufferBuilder::new();
        let take = move |bytes: &[u8]| {
            match parse(bytes) {
                Some(birth) => sink.lock().unwrap_or_else(PoisonError::into_inner).push(birth),
                None => _ = refused_by.fetch_add(1, Relaxed),
            }
            0
        };
        builder.add(map, take).map_err(refused)?;
        Ok(Self { ring: builder.build().map_err(refused)?, inbox, unreadable })
    }

    /// Records that say nothing that could be understood.
    pub fn unreadable(&self) -> &Arc<AtomicU64> {
        &self.unreadable
    }

    /// Tells of each that was made since the last time: its id and path.
    pub fn drain(&mut self, mut tell: impl FnMut(u64, &str)) {
        let read = self.ring.consume_raw();
        if read < 0 {
            tracing::error!("reading of control groups: {}", std::io::Error::from_raw_os_error(-read));
        }
        let births = std::mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner));
        births.iter().for_each(|(id, path)| tell(*id, path));
    }
}

fn parse(bytes: &[u8]) -> Option<(u64, String)> {
    let (id, path) = bytes.get(..size_of::<abi::CgroupBirth>())?.split_first_chunk()?;
    let end = path.iter().position(|b| *b == 0)?;
    Some((u64::from_le_bytes(*id), String::from_utf8_lossy(path.get(..end)?).into_owned()))
}

impl fmt::Debug for BirthReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BirthReader").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_birth_is_told_apart() {
        let mut record = vec![0; size_of::<abi::CgroupBirth>()];
        record[..8].copy_from_slice(&7u64.to_le_bytes());
        record[8..12].copy_from_slice(b"/a/b");
        assert_eq!(parse(&record), Some((7, "/a/b".to_owned())));
        assert_eq!(parse(&record[1..]), None, "cut short");
        record[8..].fill(b'x');
        assert_eq!(parse(&record), None, "the path has no end");
    }
}
