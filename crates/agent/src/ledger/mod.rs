//! The account of every sample: what was taken is stored, dropped for a reason, or in
//! flight at a named stage, and every figure is counted on its own.
//!
//! ```text
//!            kernel                          user space
//! taken ─┬─ idle                       ┌──────────────────────────────────────┐
//!        ├─ ring_full (dropped)        │                                      │
//!        └─ ring ──▶ consumed ──▶ aggregate ──▶ spool ⇄ sent ──▶ acknowledged │
//!                                      │          │                           │
//!                                      └──────────┴──▶ dropped, by reason     │
//!                                                                             ┘
//! ```
//!
//! **One moment.** Every change is made under one mutex, and so is a report, which reads
//! the kernel's counters inside it. The kernel counts `ring` before a sample can be read,
//! so `ring - consumed` is never negative, and it is what waits in the ring buffer.
//!
//! **Death.** The figures live in a region of shared memory that outlives the process
//! ([`region`]): a change writes all of them to the other of two banks and then turns one
//! word, so a kill at any instruction leaves the state before or after it, never between.
//! The spool directory is the second thing that survives. A successor compares the two
//! ([`account::Account::settle`]): the figures carry the sequence numbers of the last
//! batch that left the spool at its head and of the last that was dropped to make room,
//! which tells for every file whether it still counts. A file is removed after the change
//! of the figures that goes with it, and written before. What was in the ring or the
//! aggregate died with the process and is counted as `agent_died`; what is in the spool is
//! sent, with reports of the instance that took it. When nothing of a dead instance is in
//! flight any more and its last report is acknowledged, its account is closed.
//!
//! **Reboot.** The region is gone then. Beside the batches the spool keeps the figures as
//! of the last change ([`account::Saved`]); what was taken after it is not known and not
//! said.
//!
//! **The server's side.** A report describes the agent as it will stand once the request
//! it travels with is acknowledged. If that acknowledgement is lost, the same batch is
//! sent again with a newer report: the server counts the batch once (profile ids) and the
//! report says again that it is not in flight. A batch that may have been stored is
//! therefore never dropped to make room: the oldest batch of the spool stays.
//!
//! **Several exporters** have a ledger each: one region after the other in the same memory, each
//! signed with its exporter's name, over the same kernel counters. What is one's own loss or delay is
//! in no other's account.
//!
//! **What remains uncertain.** A batch that was kept in memory only (the spool directory
//! could not be written), was stored, and whose agent was killed before it read the
//! acknowledgement, is counted as stored by the server and as `agent_died` here.

pub mod account;
pub mod region;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use everflame_profile::Report;
use serde::{Deserialize, Serialize};

use account::{Account, Saved};
pub use account::{Figures, Reason};
pub use region::{REGION_WORDS, Region, RegionError, exporter_key, left_by, of_place};

use crate::opinion::Tally;

/// Dead instances whose accounts are kept at the same time; older ones are closed with
/// what is known.
pub const MAX_PREDECESSORS: usize = 64;

/// What the kernel program has counted since the instance began. Sums over all CPUs that
/// satisfy `taken == idle + ring + ring_full`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KernelCounts {
    /// Ticks counted at the program's first instruction.
    pub taken: u64,
    /// Those on the idle task.
    pub idle: u64,
    /// Samples that were put into the ring buffer.
    pub ring: u64,
    /// Samples that found it full.
    pub ring_full: u64,
    /// Ticks that never reached the program, with the same busy task on both sides.
    pub missed_sure: u64,
    /// The same, where the CPU may have been idle.
    pub missed_perhaps_idle: u64,
    /// Longest time of one run of the program, nanoseconds.
    pub max_ns: u64,
}

/// What the kernel side costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KernelUsage {
    /// Time that our programs ran, nanoseconds; 0 where the kernel does not count it.
    pub run_ns: u64,
    /// Memory of our maps, bytes.
    pub map_bytes: u64,
}

/// Reads the kernel's counters; of a dead instance those that its pinned map still holds.
pub trait KernelCounters: Send {
    /// The counters at one moment.
    fn snapshot(&self) -> KernelCounts;
    /// What the kernel side costs at this moment.
    fn usage(&self) -> KernelUsage {
        KernelUsage::default()
    }
}

/// What is said of an instance in every report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// 32 hexadecimal digits: see [`new_instance`].
    pub instance: String,
    /// `host.name`.
    pub node: String,
    /// Unix time in nanoseconds when sampling began.
    pub since: i64,
    /// Version of the agent.
    pub agent_version: String,
    /// Kernel release.
    pub kernel: String,
    /// CPUs that are sampled.
    pub cpus: u32,
    /// Samples per second and CPU.
    pub rate: u32,
    /// The project that its samples are sent under.
    pub project: String,
}

/// A new name for one run of an agent, unique without coordination.
pub fn new_instance() -> std::io::Result<String> {
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(uuid.trim().replace('-', ""))
}

/// The ledger refuses to open.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The instance's name is not one.
    #[error("instance `{0}` is not 32 hexadecimal digits")]
    Instance(String),
    /// The memory given is of no use.
    #[error(transparent)]
    Region(#[from] RegionError),
}

/// The accounts of this instance and of the dead ones that still have something in flight.
#[derive(Debug)]
pub struct Ledger {
    accounts: Mutex<Accounts>,
    usage: crate::usage::UsageMeter,
    acknowledged_requests: AtomicU64,
    opinions: OnceLock<Arc<Tally>>,
    /// When a report last told of them.
    opinions_said: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Accounts {
    /// This instance's own first.
    open: Vec<Account>,
    closed: Vec<String>,
}

impl Ledger {
    /// Opens the account of this instance in `region`, which must be zero.
    pub fn new(
        about: About,
        region: &'static [AtomicU64],
        kernel: Box<dyn KernelCounters>,
    ) -> Result<Self, LedgerError> {
        let own = Account::open(about, Region::create(region)?, kernel)?;
        Ok(Self {
            accounts: Mutex::new(Accounts { open: vec![own], closed: Vec::new() }),
            usage: crate::usage::UsageMeter::default(),
            acknowledged_requests: AtomicU64::new(0),
            opinions: OnceLock::new(),
            opinions_said: Mutex::default(),
        })
    }

    /// Takes over the account of an instance that died on this boot: its region and the
    /// kernel counters that its pinned map still holds. Call before the exporter starts,
    /// which settles it against the spool. `about` carries what the region does not; its
    /// instance and `since` are read from the region.
    pub fn succeed(
        &self,
        about: About,
        region: &'static [AtomicU64],
        kernel: Box<dyn KernelCounters>,
    ) -> Result<(), LedgerError> {
        let account = Account::reopen(about, Region::open(region)?, kernel);
        self.lock().add(account);
        Ok(())
    }

    /// Name of this instance.
    pub fn instance(&self) -> String {
        self.lock().own().about.instance.clone()
    }

    /// Reports of this instance say from now on what the second unwinder says.
    pub fn with_opinions(&self, tally: Arc<Tally>) {
        // There is one for each run.
        let _ = self.opinions.set(tally);
    }

    /// `samples` were taken out of the ring buffer into the aggregate.
    pub fn consumed(&self, samples: u64) {
        self.lock().own().change(|f| {
            f.consumed += samples;
            f.aggregate += samples;
        });
    }

    /// `samples` in the aggregate are of processes that are not to be profiled.
    pub fn filtered(&self, samples: u64) {
        self.lock().own().change(|f| {
            f.aggregate = f.aggregate.saturating_sub(samples);
            f.drop_for(Reason::Filtered, samples);
        });
    }

    /// This instance's figures and the kernel's, of one moment, for its own metrics.
    pub fn own(&self) -> (About, Figures, KernelCounts, KernelUsage) {
        let mut accounts = self.lock();
        let own = accounts.own();
        (own.about.clone(), own.figures(), own.counts(), own.usage())
    }

    /// The report of this instance at this moment; grows its sequence.
    pub fn report(&self) -> Report {
        let instance = self.instance();
        self.report_of(&instance, 0).unwrap_or_default()
    }

    /// Instances whose accounts were closed since the last call: what was pinned for them
    /// can go.
    pub fn take_closed(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().closed)
    }

    /// Dead instances that still have an account here.
    pub fn predecessors(&self) -> Vec<String> {
        self.lock().open.iter().skip(1).map(|account| account.about.instance.clone()).collect()
    }

    /// Requests that were acknowledged.
    pub fn acknowledged_requests(&self) -> u64 {
        self.acknowledged_requests.load(Ordering::Relaxed)
    }

    /// The report of an instance once `acknowledged` more samples have left `sent`.
    pub(crate) fn report_of(&self, instance: &str, acknowledged: u64) -> Option<Report> {
        let mut accounts = self.lock();
        let map_bytes = accounts.own().usage().map_bytes;
        let dead = accounts.own().about.instance != instance;
        let account = accounts.find(instance)?;
        let mut report = account.report(acknowledged, dead);
        if !dead {
            let (cpu_percent, resident) = self.usage.since_last(account.usage().run_ns);
            report.cpu_percent = cpu_percent;
            report.memory_bytes = resident + map_bytes;
            let mut said = self.opinions_said.lock().unwrap_or_else(PoisonError::into_inner);
            report.second_opinion = self.opinions.get().and_then(|tally| tally.report(&mut said));
        }
        Some(report)
    }

    /// Applies a change to the figures of an instance; `false` where it has no account.
    pub(crate) fn change(&self, instance: &str, change: impl FnOnce(&mut Figures)) -> bool {
        self.lock().find(instance).map(|account| account.change(change)).is_some()
    }

    /// A request about `instance` was acknowledged.
    pub(crate) fn acknowledged(&self) {
        self.acknowledged_requests.fetch_add(1, Ordering::Relaxed);
    }

    /// What is to be written beside the spool for the case of a reboot.
    pub(crate) fn saved(&self, instance: &str) -> Option<Saved> {
        self.lock().find(instance).map(|account| account.save())
    }

    /// Brings the accounts of the dead in line with the spool: `saved` are the accounts
    /// found beside it, `files` the sequence and samples of every batch of `instance`.
    /// Answers with the sequences of files whose account is settled already, to be removed.
    pub(crate) fn settle(&self, instance: &str, saved: Option<Saved>, files: &[(u64, u64)]) -> Option<Vec<u64>> {
        let mut accounts = self.lock();
        if accounts.find(instance).is_none() {
            let revived = Account::revive(saved?);
            accounts.add(revived);
        }
        accounts.find(instance).map(|account| account.settle(files))
    }

    /// Dead instances with nothing in flight: their last report can be sent.
    pub(crate) fn done(&self) -> Vec<String> {
        let mut accounts = self.lock();
        let dead = accounts.open.iter_mut().skip(1);
        dead.filter_map(|account| {
            let figures = account.figures();
            (figures.spool + figures.sent == 0).then(|| account.about.instance.clone())
        })
        .collect()
    }

    /// Closes the account of a dead instance.
    pub(crate) fn close(&self, instance: &str) {
        let mut accounts = self.lock();
        if accounts.own().about.instance == instance {
            return;
        }
        accounts.open.retain(|account| account.about.instance != instance);
        accounts.closed.push(instance.to_string());
    }

    fn lock(&self) -> MutexGuard<'_, Accounts> {
        // A panic elsewhere leaves the figures as they were before or after a change.
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Accounts {
    fn own(&mut self) -> &mut Account {
        self.open.first_mut().expect("the own account is never removed")
    }

    fn find(&mut self, instance: &str) -> Option<&mut Account> {
        self.open.iter_mut().find(|account| account.about.instance == instance)
    }

    fn add(&mut self, account: Account) {
        if self.find(&account.about.instance).is_some() {
            return;
        }
        if self.open.len() > MAX_PREDECESSORS {
            let oldest = self.open.remove(1);
            tracing::warn!(instance = oldest.about.instance, "too many dead instances: their oldest account is closed");
            self.closed.push(oldest.about.instance);
        }
        self.open.push(account);
    }
}
