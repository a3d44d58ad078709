//! Batches on their way: one file each until the server has acknowledged them.
//!
//! The order of every step is what makes a kill at any moment harmless: a batch's file is
//! in place before the ledger says that it is spooled, and goes only after the ledger
//! says (in memory and in the account file) that it has left. Where the directory cannot
//! be written, batches are kept in memory within a limit.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    batch_file::{self, BatchFileError, BatchName},
    files::{TEMPORARY, effect, lock, remove, write_whole},
};
use crate::ledger::{Figures, Ledger, Reason, account::Saved};

const ASIDE: &str = ".unreadable";
const ACCOUNT: &str = ".account";
/// Unreadable files that are kept to be looked at; the others are removed.
pub const MAX_SET_ASIDE: usize = 16;
/// Longest account file.
const MAX_ACCOUNT_BYTES: u64 = 64 << 10;
/// Files of a spool directory that are taken over at start.
pub const MAX_FILES: usize = 100_000;

/// How much the spool may hold.
#[derive(Debug, Clone, Copy)]
pub struct SpoolLimits {
    /// Bytes of files.
    pub disk_bytes: u64,
    /// Bytes of batches kept in memory while the directory cannot be written.
    pub memory_bytes: u64,
}

/// The directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another agent has it.
    #[error("the spool {0} is in use by another agent: give each its own with --spool")]
    InUse(PathBuf),
}

/// A batch of the spool.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub name: BatchName,
    bytes: u64,
    /// The file's bytes, where they could not be written.
    memory: Option<Bytes>,
}

/// How full the spool is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpoolUse {
    /// Batches.
    pub batches: usize,
    /// Bytes in files.
    pub disk_bytes: u64,
    /// Bytes in memory.
    pub memory_bytes: u64,
    /// Whether the last batch had to be kept in memory.
    pub disk_failing: bool,
}

/// All batches that are not acknowledged, oldest first.
#[derive(Debug)]
pub(super) struct Spool {
    directory: PathBuf,
    lock: Option<File>,
    limits: SpoolLimits,
    ledger: Arc<Ledger>,
    instance: String,
    sequence: u64,
    entries: VecDeque<Entry>,
    usage: SpoolUse,
    set_aside: usize,
}

impl Spool {
    /// Takes the directory, alone, and what is left in it, which settles the accounts of
    /// dead instances. A directory that cannot be used is not fatal: memory is, then.
    pub fn open(directory: &Path, limits: SpoolLimits, ledger: Arc<Ledger>) -> Result<Self, SpoolError> {
        let lock = match lock(directory) {
            Ok(lock) => Some(lock),
            Err(TryLockError::WouldBlock) => return Err(SpoolError::InUse(directory.to_path_buf())),
            Err(TryLockError::Error(e)) => {
                tracing::warn!("cannot use the spool {}: {e}; batches are kept in memory", directory.display());
                None
            }
        };
        let instance = ledger.instance();
        let mut spool = Self {
            directory: directory.to_path_buf(),
            lock,
            limits,
            ledger,
            instance,
            sequence: 0,
            entries: VecDeque::new(),
            usage: SpoolUse::default(),
            set_aside: 0,
        };
        spool.take_over();
        // From the first moment: a batch without an account could not be accounted for.
        spool.save_own();
        Ok(spool)
    }

    /// How full it is.
    pub fn usage(&self) -> SpoolUse {
        SpoolUse { batches: self.entries.len(), ..self.usage }
    }

    /// The batch to send next.
    pub fn head(&self) -> Option<Entry> {
        self.entries.front().cloned()
    }

    /// The compressed request of a batch.
    pub fn packed(&self, entry: &Entry) -> Result<Bytes, BatchFileError> {
        let file = match &entry.memory {
            Some(bytes) => bytes.clone(),
            None => Bytes::from(fs::read(self.path(&entry.name))?),
        };
        let packed = batch_file::read(&entry.name, &file)?;
        Ok(file.slice_ref(packed))
    }

    /// Takes a batch out of the aggregate's hands: on disk, else in memory, else it is
    /// dropped and counted. `packed` is the compressed request.
    pub fn push(&mut self, packed: &[u8], samples: u64) {
        self.sequence += 1;
        let name = BatchName { instance: self.instance.clone(), sequence: self.sequence, samples };
        let file = batch_file::write(&name, packed);
        let bytes = file.len() as u64;
        let kept = match self.write(&name, &file) {
            Ok(()) => {
                self.usage.disk_bytes += bytes;
                self.usage.disk_failing = false;
                Some(None)
            }
            Err(e) => {
                if !std::mem::replace(&mut self.usage.disk_failing, true) {
                    let directory = self.directory.display();
                    tracing::warn!("cannot write to the spool {directory}: {e}; batches are kept in memory");
                }
                let limit = self.limits.memory_bytes;
                self.make_room(|usage| usage.memory_bytes + bytes > limit, |entry| entry.memory.is_some());
                (self.usage.memory_bytes + bytes <= limit).then(|| {
                    self.usage.memory_bytes += bytes;
                    Some(Bytes::from(file))
                })
            }
        };
        let Some(memory) = kept else { return self.drop_new(samples) };
        self.entries.push_back(Entry { name, bytes, memory });
        let instance = self.instance.clone();
        self.change(&instance, |f| {
            f.aggregate = f.aggregate.saturating_sub(samples);
            f.spool += samples;
        });
    }

    /// The server has the head for good.
    pub fn acknowledged(&mut self) {
        self.leave(|f, samples| f.acknowledged += samples);
    }

    /// The server will never take the head.
    pub fn refused(&mut self) {
        self.leave(|f, samples| f.drop_for(Reason::Refused, samples));
    }

    /// The head cannot be read. It is set aside, to be looked at.
    pub fn unreadable(&mut self) {
        let Some(entry) = self.head() else { return };
        let path = self.path(&entry.name);
        self.leave_after(
            |f, samples| f.drop_for(Reason::SpoolUnreadable, samples),
            |spool| {
                let aside = path.with_extension(ASIDE.trim_start_matches('.'));
                if spool.set_aside >= MAX_SET_ASIDE || fs::rename(&path, aside).is_err() {
                    remove(&path);
                } else {
                    spool.set_aside += 1;
                }
            },
        );
    }

    /// Removes what is kept of an instance whose account is closed.
    pub fn forget(&self, instance: &str) {
        remove(&self.directory.join(format!("{instance}{ACCOUNT}")));
    }

    /// Writes this instance's account beside the batches, for the case of a reboot.
    pub fn save_own(&mut self) {
        let instance = self.instance.clone();
        self.save(&instance);
    }

    fn leave(&mut self, change: impl FnOnce(&mut Figures, u64)) {
        let Some(entry) = self.head() else { return };
        let path = self.path(&entry.name);
        self.leave_after(change, |_| {
            if entry.memory.is_none() {
                remove(&path);
            }
        });
    }

    /// The head, which is counted as sent, leaves.
    fn leave_after(&mut self, change: impl FnOnce(&mut Figures, u64), clear: impl FnOnce(&mut Self)) {
        let Some(entry) = self.entries.pop_front() else { return };
        let BatchName { instance, sequence, samples } = entry.name.clone();
        self.change(&instance, |f| {
            f.sent = f.sent.saturating_sub(samples);
            f.finished_sequence = sequence;
            change(f, samples);
        });
        clear(self);
        self.release(&entry);
    }

    fn release(&mut self, entry: &Entry) {
        let total = match entry.memory {
            Some(_) => &mut self.usage.memory_bytes,
            None => &mut self.usage.disk_bytes,
        };
        *total = total.saturating_sub(entry.bytes);
    }

    /// A batch that came but is in no place.
    pub fn drop_new(&mut self, samples: u64) {
        let instance = self.instance.clone();
        self.change(&instance, |f| {
            f.aggregate = f.aggregate.saturating_sub(samples);
            f.drop_for(Reason::SpoolFull, samples);
        });
    }

    /// Drops the oldest batches while `full`. The first batch of every instance stays,
    /// since the server may have it already.
    fn make_room(&mut self, full: impl Fn(&SpoolUse) -> bool, among: impl Fn(&Entry) -> bool) {
        let mut first: HashMap<String, u64> = HashMap::new();
        let mut at = 0;
        while full(&self.usage) {
            let Some(entry) = self.entries.get(at) else { return };
            let kept = *first.entry(entry.name.instance.clone()).or_insert(entry.name.sequence);
            if kept == entry.name.sequence || !among(entry) {
                at += 1;
                continue;
            }
            let Some(entry) = self.entries.remove(at) else { return };
            let BatchName { instance, sequence, samples } = &entry.name;
            self.change(instance, |f| {
                f.spool = f.spool.saturating_sub(*samples);
                f.drop_for(Reason::SpoolFull, *samples);
                f.dropped_sequence = *sequence;
                f.kept_sequence = kept;
            });
            if entry.memory.is_none() {
                remove(&self.path(&entry.name));
            }
            self.release(&entry);
        }
    }

    fn write(&mut self, name: &BatchName, file: &[u8]) -> io::Result<()> {
        if self.lock.is_none() {
            // The directory was not there at start; it may be now.
            self.lock = Some(lock(&self.directory).map_err(io::Error::from)?);
        }
        let (bytes, limit) = (file.len() as u64, self.limits.disk_bytes);
        self.make_room(|usage| usage.disk_bytes + bytes > limit, |entry| entry.memory.is_none());
        if self.usage.disk_bytes + bytes > limit {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "its limit is too small for two batches"));
        }
        write_whole(&self.path(name), file)
    }

    fn path(&self, name: &BatchName) -> PathBuf {
        self.directory.join(name.file_name())
    }

    fn change(&mut self, instance: &str, change: impl FnOnce(&mut Figures)) {
        effect();
        if self.ledger.change(instance, change) {
            self.save(instance);
        }
    }

    fn save(&mut self, instance: &str) {
        let (Some(saved), true) = (self.ledger.saved(instance), self.lock.is_some()) else { return };
        let written = serde_json::to_vec(&saved)
            .map_err(io::Error::from)
            .and_then(|json| write_whole(&self.directory.join(format!("{instance}{ACCOUNT}")), &json));
        if let Err(e) = written {
            tracing::debug!("the account beside the spool is not up to date: {e}");
        }
    }

    /// Reads what earlier instances left.
    fn take_over(&mut self) {
        let mut found: HashMap<String, Vec<(BatchName, u64)>> = HashMap::new();
        let mut accounts: HashSet<String> = self.ledger.predecessors().into_iter().collect();
        let Ok(listing) = fs::read_dir(&self.directory) else {
            return self.settle_all(found, accounts);
        };
        for file in listing.flatten().take(MAX_FILES) {
            let name = file.file_name().to_string_lossy().into_owned();
            let bytes = file.metadata().map_or(0, |m| m.len());
            if name.ends_with(TEMPORARY) {
                remove(&file.path());
            } else if name.ends_with(ASIDE) {
                self.set_aside += 1;
            } else if let Some(instance) = name.strip_suffix(ACCOUNT) {
                accounts.insert(instance.to_string());
            } else if let Some(batch) = BatchName::parse(&name) {
                found.entry(batch.instance.clone()).or_default().push((batch, bytes));
            }
        }
        self.settle_all(found, accounts);
    }

    fn settle_all(&mut self, mut found: HashMap<String, Vec<(BatchName, u64)>>, mut accounts: HashSet<String>) {
        accounts.extend(found.keys().cloned());
        accounts.remove(&self.instance);
        let mut taken: Vec<Entry> = Vec::new();
        for instance in &accounts {
            let instance = instance.as_str();
            let batches = found.remove(instance).unwrap_or_default();
            let files: Vec<(u64, u64)> = batches.iter().map(|(name, _)| (name.sequence, name.samples)).collect();
            let gone = match self.ledger.settle(instance, self.read_account(instance), &files) {
                Some(gone) => gone,
                None if files.is_empty() => Vec::new(),
                None => {
                    tracing::warn!(
                        instance,
                        "an earlier agent left batches without its account: they are sent as they are"
                    );
                    Vec::new()
                }
            };
            for (name, bytes) in batches {
                if gone.contains(&name.sequence) {
                    remove(&self.path(&name));
                } else {
                    self.usage.disk_bytes += bytes;
                    taken.push(Entry { name, bytes, memory: None });
                }
            }
            self.save(instance);
        }
        // Broken accounts, and those beyond the ledger's limit, would pile up.
        let open = self.ledger.predecessors();
        for instance in accounts.iter().filter(|instance| !open.contains(instance)) {
            self.forget(instance);
        }
        taken.sort_by(|a, b| (&a.name.instance, a.name.sequence).cmp(&(&b.name.instance, b.name.sequence)));
        self.entries = taken.into();
    }

    fn read_account(&self, instance: &str) -> Option<Saved> {
        let path = self.directory.join(format!("{instance}{ACCOUNT}"));
        let length = fs::metadata(&path).ok()?.len();
        if length > MAX_ACCOUNT_BYTES {
            return None;
        }
        let saved: Saved = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        (saved.about.instance == instance).then_some(saved)
    }
}
