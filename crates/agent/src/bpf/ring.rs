//! Reads samples from the ring and gives each its stack: frames travel with the first
//! sample of an epoch, the others name them by hash.

use std::{
    fmt,
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use everflame_profile::Completeness;
use libbpf_rs::{MapHandle, RingBuffer, RingBufferBuilder};
use rustc_hash::FxHashMap;

use super::{BpfError, abi, programs::into_io, shared::Shared};
use crate::{
    sample::{RawSample, RawStack, UserFrame, UserStack},
    sys,
};

/// Stacks kept for one epoch. When there are more, a new epoch begins early.
const STACKS_LIMIT: usize = 32_768;

/// What a stack costs beside its frames.
const STACK_BYTES: u64 = 128;

/// The reading end of the ring.
pub struct RingReader {
    ring: RingBuffer<'static>,
    inbox: Arc<Mutex<Inbox>>,
    control: Shared,
    epoch: u64,
    stack_bytes: u64,
}

#[derive(Default)]
struct Inbox {
    samples: Vec<RawSample>,
    stacks: FxHashMap<u64, Arc<RawStack>>,
    older: FxHashMap<u64, Arc<RawStack>>,
    /// Of `stacks`.
    bytes: u64,
    broken: u64,
}

impl RingReader {
    /// Of an epoch, `stack_bytes` of stacks are kept.
    pub(super) fn new(map: MapHandle, control: Shared, stack_bytes: u64) -> Result<Self, BpfError> {
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        let sink = Arc::clone(&inbox);
        // The ring outlives its builder's borrow of the map: libbpf duplicates nothing of
        // the handle but its descriptor, which must stay open, hence the leak.
        let map: &'static MapHandle = Box::leak(Box::new(map));
        let mut builder = RingBufferBuilder::new();
        builder
            .add(map, move |bytes| {
                lock(&sink).take(bytes);
                0
            })
            .map_err(|e| BpfError::Map { map: "ring", source: into_io(e) })?;
        let ring = builder.build().map_err(|e| BpfError::Map { map: "ring", source: into_io(e) })?;
        let mut reader = Self { ring, inbox, control, epoch: 0, stack_bytes };
        reader.next_epoch();
        Ok(reader)
    }

    /// Waits until the ring is half full, at most `timeout`, or until `other` is readable, and
    /// says whether it is.
    pub fn wait(&self, timeout: Duration, other: Option<BorrowedFd<'_>>) -> bool {
        // SAFETY: the ring's descriptor lives as long as the ring, which is borrowed.
        let ring = unsafe { BorrowedFd::borrow_raw(self.ring.epoll_fd()) };
        let fds: Vec<_> = [Some(ring), other].into_iter().flatten().collect();
        let ready = sys::poll(&fds, timeout.as_millis() as i32).unwrap_or_default();
        ready.get(1) == Some(&true)
    }

    /// All samples that are in the ring now.
    pub fn drain(&mut self) -> Vec<RawSample> {
        let read = self.ring.consume_raw();
        if read < 0 {
            tracing::error!("reading the ring: {}", std::io::Error::from_raw_os_error(-read));
        }
        let (samples, is_full) = {
            let mut inbox = lock(&self.inbox);
            let is_full = inbox.stacks.len() > STACKS_LIMIT || inbox.bytes > self.stack_bytes;
            (std::mem::take(&mut inbox.samples), is_full)
        };
        if is_full {
            self.next_epoch();
        }
        samples
    }

    /// Records that could not be read as samples.
    pub fn broken(&self) -> u64 {
        lock(&self.inbox).broken
    }

    /// Forgets the stacks of the epoch before last; the kernel sends frames anew.
    pub fn next_epoch(&mut self) {
        self.epoch += 1;
        let mut inbox = lock(&self.inbox);
        inbox.older = std::mem::take(&mut inbox.stacks);
        inbox.bytes = 0;
        self.control.write(0, &self.epoch.to_le_bytes());
    }
}

/// Only ever taken on the reader's thread; a panic leaves nothing half done.
fn lock(inbox: &Mutex<Inbox>) -> MutexGuard<'_, Inbox> {
    inbox.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inbox {
    fn take(&mut self, bytes: &[u8]) {
        let Some(head) = abi::Sample::read(bytes) else {
            self.broken += 1;
            return;
        };
        let kernel = usize::from(head.kernel_frames);
        let user = usize::from(head.user_frames);
        let rest = &bytes[size_of::<abi::Sample>()..];
        let has_frames = head.flags & abi::SAMPLE_HAS_FRAMES != 0;
        let (frames, rest) = rest.split_at(if has_frames { (kernel + user) * 8 } else { 0 }.min(rest.len()));
        let words = frames.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().expect("8 bytes")));
        let mut completeness = Completeness::from_u8(head.completeness).unwrap_or(Completeness::LostFrames);
        let stack = if has_frames {
            let mut words = words;
            let stack = Arc::new(RawStack {
                kernel: words.by_ref().take(kernel).collect(),
                user: words.take(user).map(UserFrame).collect(),
            });
            self.bytes += STACK_BYTES + 8 * (kernel + user) as u64;
            self.stacks.insert(head.stack, Arc::clone(&stack));
            stack
        } else if let Some(stack) = self.stacks.get(&head.stack).or_else(|| self.older.get(&head.stack)) {
            Arc::clone(stack)
        } else {
            completeness = Completeness::LostFrames;
            Arc::new(RawStack::default())
        };
        self.samples.push(RawSample {
            time: head.time,
            pid: head.pid,
            tid: head.tid,
            cpu: head.cpu,
            cgroup: head.cgroup,
            comm: head.comm,
            kernel_thread: head.flags & abi::SAMPLE_KERNEL_THREAD != 0,
            completeness,
            period: u64::from(head.period),
            stack,
            late: head.flags & abi::SAMPLE_LATE != 0,
            copy: if head.flags & abi::SAMPLE_HAS_STACK != 0 { copy(rest) } else { None },
        });
    }
}

/// What follows the frames where the record carries a piece of the stack. Behind it there may
/// be what the ring fills up with.
fn copy(bytes: &[u8]) -> Option<Arc<UserStack>> {
    let state = abi::UserState::read(bytes)?;
    let stack = bytes.get(size_of::<abi::UserState>()..)?.get(..state.bytes as usize)?;
    Some(Arc::new(UserStack {
        registers: state.at,
        start: state.start,
        code: (state.has_code != 0).then_some(state.code),
        bytes: stack.into(),
    }))
}

impl fmt::Debug for RingReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingReader").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}
