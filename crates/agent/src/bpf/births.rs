//! Reads which control groups were made: see `bpf/cgroup.h`.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use libbpf_rs::{MapHandle, RingBuffer, RingBufferBuilder};

use super::{BpfError, abi, programs::into_io};

/// The reading end of their ring.
pub struct BirthReader {
    ring: RingBuffer<'static>,
    inbox: Arc<Mutex<Vec<(u64, String)>>>,
}

impl BirthReader {
    pub(super) fn new(map: MapHandle) -> Result<Self, BpfError> {
        let inbox = Arc::<Mutex<Vec<_>>>::default();
        let sink = Arc::clone(&inbox);
        let refused = |e| BpfError::Map { map: "births", source: into_io(e) };
        // The descriptor must stay open as long as the ring: see `RingReader`.
        let map: &'static MapHandle = Box::leak(Box::new(map));
        let mut builder = RingBufferBuilder::new();
        let take = move |bytes: &[u8]| {
            sink.lock().unwrap_or_else(PoisonError::into_inner).extend(parse(bytes));
            0
        };
        builder.add(map, take).map_err(refused)?;
        Ok(Self { ring: builder.build().map_err(refused)?, inbox })
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
