//! The log thread: writes the appends that wait as one group, waits for the disk
//! once, applies them to the head in the order of the log, and answers. It alone
//! changes the head.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        mpsc::{SyncSender, sync_channel},
    },
};

use everflame_profile::{Batch, ProfileId, Report};
use rustc_hash::FxHashSet;

use super::{
    admission::admit,
    dictionary::Mark,
    frames::Hashes,
    head::Head,
    record::{self, MAX_BATCH, Rejected, most_bytes},
    segment::{AppendError, Segment, frame},
    state::Shared,
};
use crate::{Append, Appended, StoreError};

/// Bytes of batches that are written as one group.
const GROUP_BYTES: usize = 64 << 20;
/// Sealed heads that may wait to be written before appends are refused.
pub(crate) const SEALED_LIMIT: usize = 2;

type Answer<T> = Result<T, StoreError>;

/// An append that waits.
struct Pending {
    received: i64,
    /// What was refused, by profile.
    rejected: Vec<Rejected>,
    /// Samples that were refused before the store saw them.
    invalid: u64,
    batch: Batch,
    hashes: Hashes,
    report: Option<Report>,
    bytes: usize,
    answer: SyncSender<Answer<Appended>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Pending>,
    /// Appends from their arrival to their answer.
    appends: usize,
    seals: Vec<SyncSender<Answer<()>>>,
    closing: bool,
    /// Why nothing more may be promised.
    poisoned: Option<String>,
}

/// The door to the log thread.
#[derive(Default)]
pub(crate) struct Log {
    queue: Mutex<Queue>,
    wake: Condvar,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Appends a batch; returns when it is on disk and in the head.
    pub fn append(&self, shared: &Shared, append: Append) -> Answer<Appended> {
        {
            let mut queue = self.lock();
            refuse_if_poisoned(&queue)?;
            if queue.appends >= shared.options.waiting_appends {
                return Err(StoreError::Busy(queue.appends));
            }
            queue.appends += 1;
        }
        let answer = self.enqueue(shared, append);
        self.lock().appends -= 1;
        answer
    }

    fn enqueue(&self, shared: &Shared, append: Append) -> Answer<Appended> {
        let Append { mut batch, invalid, report, received } = append;
        let rejected = admit(&mut batch, received, shared.options.retention_nanos());
        let bytes = most_bytes(&batch);
        if bytes > MAX_BATCH {
            return Err(StoreError::Unusable("the batch is too large for one record: send smaller ones".to_owned()));
        }
        let hashes = Hashes::of(&batch);
        let (answer, answered) = sync_channel(1);
        {
            let mut queue = self.lock();
            refuse_if_poisoned(&queue)?;
            queue.waiting.push_back(Pending { received, rejected, invalid, batch, hashes, report, bytes, answer });
        }
        self.wake.notify_one();
        answered.recv().unwrap_or_else(|_| Err(stopped()))
    }

    /// Seals the head, so that it can become a block.
    pub fn seal(&self) -> Answer<()> {
        let (answer, answered) = sync_channel(1);
        {
            let mut queue = self.lock();
            refuse_if_poisoned(&queue)?;
            queue.seals.push(answer);
        }
        self.wake.notify_one();
        answered.recv().unwrap_or_else(|_| Err(stopped()))
    }

    /// Ends the thread once what waits is written.
    pub fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_all();
    }

    fn poison(&self, why: String) {
        let mut queue = self.lock();
        queue.poisoned.get_or_insert(why);
        // Dropping them answers that the log has stopped.
        queue.waiting.clear();
        queue.seals.clear();
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

fn refuse_if_poisoned(queue: &Queue) -> Answer<()> {
    match &queue.poisoned {
        Some(why) => Err(StoreError::Unusable(why.clone())),
        None if queue.closing => Err(stopped()),
        None => Ok(()),
    }
}

fn stopped() -> StoreError {
    StoreError::Unusable("the store has stopped taking samples: see its log, then start again".to_owned())
}

/// The thread's own part.
pub(crate) struct Writer {
    pub shared: Arc<Shared>,
    pub log: Arc<Log>,
    pub segments: PathBuf,
    pub segment: Segment,
    /// What of the head's dictionaries is in the segment.
    pub logged: Mark,
    /// Called when a head was sealed.
    pub sealed: Box<dyn Fn() + Send>,
}

impl Writer {
    /// Runs until the log is closed.
    pub fn run(mut self) {
        // However the thread ends, nobody may wait for it in vain.
        struct Poison(Arc<Log>);
        impl Drop for Poison {
            fn drop(&mut self) {
                self.0.poison("the store has stopped".to_owned());
            }
        }
        let _poison = Poison(self.log.clone());
        loop {
            let (group, seals) = {
                let log = self.log.clone();
                let mut queue = log.lock();
                while queue.waiting.is_empty() && queue.seals.is_empty() {
                    if queue.closing || queue.poisoned.is_some() {
                        return;
                    }
                    queue = log.wake.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner());
                }
                let mut group = Vec::new();
                let mut bytes = 0;
                while let Some(next) = queue.waiting.front()
                    && (group.is_empty() || bytes + next.bytes <= GROUP_BYTES)
                {
                    bytes += next.bytes;
                    group.extend(queue.waiting.pop_front());
                }
                (group, std::mem::take(&mut queue.seals))
            };
            if !group.is_empty() {
                self.commit(group);
            }
            let (full, crowded) = {
                let state = self.shared.lock();
                let options = &self.shared.options;
                let full = state.head.rows.len() >= options.head_rows || state.head.bytes() >= options.head_bytes;
                (full, state.sealed.len() >= SEALED_LIMIT)
            };
            if !crowded && (full || !seals.is_empty()) {
                let sealed = self.seal();
                for answer in seals {
                    let _ = answer.send(match &sealed {
                        Ok(()) => Ok(()),
                        Err(error) => Err(self.shared.error("starting a segment of the log", copy(error))),
                    });
                }
            } else {
                for answer in seals {
                    let _ = answer.send(Err(StoreError::Busy(SEALED_LIMIT)));
                }
            }
        }
    }

    fn commit(&mut self, group: Vec<Pending>) {
        let mut prepared = Vec::with_capacity(group.len());
        let mut bodies = Vec::with_capacity(group.len());
        let mut logged = self.logged;
        {
            let mut state = self.shared.lock();
            let options = &self.shared.options;
            if state.crowded(options.head_bytes, options.head_rows) {
                // Blocks cannot be written as fast as samples come (or at all).
                drop(state);
                let waiting = group.len();
                for pending in group {
                    let _ = pending.answer.send(Err(StoreError::Busy(waiting)));
                }
                return;
            }
            let mut fresh = FxHashSet::default();
            for pending in &group {
                let (duplicates, rejected, again) =
                    decide(pending, |id| state.window.contains(id) || !fresh.insert(*id));
                let head = &mut state.head;
                let rows = head.prepare(&pending.batch, &pending.hashes, &duplicates, options.series_limit);
                let report = pending.report.as_ref();
                let dictionary = (&head.dictionary, &logged);
                bodies.push(record::body(pending.received, &rejected, report, dictionary, &rows.addition));
                logged = head.dictionary.mark();
                prepared.push((rows, rejected, again));
            }
        }
        let mut framed = Vec::new();
        for body in bodies {
            match record::encode(&body) {
                Ok(record) => frame(&record, &mut framed),
                Err(error) => return self.poison(group, &error.to_string()),
            }
        }
        match self.segment.append(&framed) {
            Ok(()) => {}
            Err(AppendError::Full) if group.len() > 1 => {
                // One by one: the small ones may fit. The first of them carries what all
                // have added to the dictionaries.
                group.into_iter().for_each(|pending| self.commit(vec![pending]));
                return;
            }
            Err(AppendError::Full) => {
                let path = self.shared.options.dir.display().to_string();
                for pending in group {
                    let _ = pending.answer.send(Err(StoreError::DiskFull { path: path.clone() }));
                }
                return;
            }
            Err(AppendError::Broken(error)) => return self.poison(group, &error.to_string()),
        }
        self.logged = logged;
        let mut answers = Vec::with_capacity(group.len());
        {
            let mut state = self.shared.lock();
            state.log_bytes = self.segment.length();
            for (pending, (prepared, rejected, again)) in group.into_iter().zip(prepared) {
                let duplicates = prepared.duplicates.saturating_add(again);
                let report = pending.report.as_ref();
                let stored = state.apply(prepared, report, pending.received, &rejected, self.shared.options.instances);
                answers.push((
                    pending.answer,
                    Appended {
                        stored,
                        duplicates,
                        rejected_future: rejected.future,
                        rejected_old: rejected.old,
                        rejected_limit: rejected.limit,
                        rejected_profiles: rejected.profiles,
                    },
                ));
            }
        }
        for (answer, appended) in answers {
            let _ = answer.send(Ok(appended));
        }
    }

    /// Nothing more may be promised.
    fn poison(&self, group: Vec<Pending>, error: &str) {
        let why = format!(
            "the log {} cannot be written ({error}): nothing more is taken until the disk is in order \
             and the server has been started again",
            self.segment.path().display()
        );
        tracing::error!("{why}");
        self.log.poison(why.clone());
        for pending in group {
            let _ = pending.answer.send(Err(StoreError::Unusable(why.clone())));
        }
    }

    /// Turns to a new segment and a new head.
    fn seal(&mut self) -> std::io::Result<()> {
        let generation = {
            let mut state = self.shared.lock();
            let generation = state.head.generation;
            if state.head.records == 0 {
                // At most it has entries of dictionaries that never came to the log.
                state.head = Head::new(generation);
                self.logged = Mark::NEW;
                return Ok(());
            }
            generation + 1
        };
        let segment = Segment::create(&self.segments, generation).inspect_err(|error| {
            tracing::warn!(%error, "cannot start a segment of the log: the head grows on");
        })?;
        let old = std::mem::replace(&mut self.segment, segment);
        self.logged = Mark::NEW;
        {
            let mut state = self.shared.lock();
            let head = std::mem::replace(&mut state.head, Head::new(generation));
            state.sealed_log_bytes += old.length();
            state.log_bytes = self.segment.length();
            state.seal(head);
        }
        (self.sealed)();
        Ok(())
    }
}

/// Which profiles of a request were stored before, what of the others was refused, and
/// the samples refused of those before: they were counted when they first came.
fn decide(pending: &Pending, mut known: impl FnMut(&ProfileId) -> bool) -> (Vec<u32>, Rejected, u64) {
    let (mut duplicates, mut rejected, mut again) = (Vec::new(), Rejected::default(), 0_u64);
    for (index, (profile, refused)) in pending.batch.profiles.iter().zip(&pending.rejected).enumerate() {
        if profile.id.is_some_and(|id| known(&id)) {
            duplicates.push(index as u32);
            again = again.saturating_add(refused.samples());
        } else {
            rejected.add(refused);
        }
    }
    // A request comes again as a whole.
    rejected.invalid = if duplicates.is_empty() { pending.invalid } else { 0 };
    (duplicates, rejected, again)
}

fn copy(error: &std::io::Error) -> std::io::Error {
    match error.raw_os_error() {
        Some(code) => std::io::Error::from_raw_os_error(code),
        None => std::io::Error::new(error.kind(), error.to_string()),
    }
}
