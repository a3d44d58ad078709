//! Calls that somebody else's process can make hang: its memory or its files may lie on a file
//! system that it answers for itself. They are made on a thread that can be left behind.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

/// Longest time such a call is waited for. Reading a page from a slow disk takes less.
const PATIENCE: Duration = Duration::from_millis(500);
/// Threads that hang at most; then no more calls are made until one comes back.
const MAX_HANGING: u32 = 8;

type Call = Box<dyn FnOnce() + Send>;

/// A thread for such calls, started when it is needed.
#[derive(Debug, Default)]
pub struct Patience {
    calls: Option<SyncSender<Call>>,
    hanging: Arc<AtomicU32>,
}

impl Patience {
    /// Makes the call; `None` where it did not come back in time, or too many hang already.
    pub fn call<T: Send + 'static>(&mut self, what: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        if self.hanging.load(Ordering::Relaxed) >= MAX_HANGING {
            return None;
        }
        let (answer, answered) = sync_channel(1);
        // Counts as hanging while it runs; all but one of those who do are left behind.
        let hanging = Arc::clone(&self.hanging);
        hanging.fetch_add(1, Ordering::Relaxed);
        let call: Call = Box::new(move || {
            let value = what();
            hanging.fetch_sub(1, Ordering::Relaxed);
            // Nobody listens where it took too long.
            let _ = answer.send(value);
        });
        if self.calls().is_none_or(|calls| calls.send(call).is_err()) {
            self.hanging.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        match answered.recv_timeout(PATIENCE) {
            Ok(value) => Some(value),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                // The thread ends when the call does, since nobody can send to it any more.
                self.calls = None;
                None
            }
        }
    }

    fn calls(&mut self) -> Option<&SyncSender<Call>> {
        if self.calls.is_none() {
            let (calls, incoming) = sync_channel::<Call>(1);
            let body = move || incoming.iter().for_each(|call| call());
            thread::Builder::new().name("patience".into()).spawn(body).ok()?;
            self.calls = Some(calls);
        }
        self.calls.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn what_hangs_is_left_behind_and_too_many_are_refused() {
        let mut patience = Patience::default();
        assert_eq!(patience.call(|| 7), Some(7));
        let barrier = Arc::new(Barrier::new(MAX_HANGING as usize + 1));
        for _ in 0..MAX_HANGING {
            assert_eq!(patience.call(|| 7), Some(7), "the others do not matter");
            let barrier = Arc::clone(&barrier);
            assert_eq!(patience.call(move || barrier.wait().is_leader()), None);
        }
        assert_eq!(patience.call(|| 7), None, "too many hang");
        barrier.wait();
        while patience.hanging.load(Ordering::Relaxed) > 0 {
            thread::yield_now();
        }
        assert_eq!(patience.call(|| 7), Some(7), "they came back");
    }
}
