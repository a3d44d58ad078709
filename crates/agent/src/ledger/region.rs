//! Figures in memory that outlives the process, changed all at once or not at all.

use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64;

/// Words that a region must have (1 KiB).
pub const REGION_WORDS: usize = 128;
/// Words of one bank.
pub(super) const BANK: usize = 48;

const MAGIC: u64 = u64::from_le_bytes(*b"EFLEDG01");
const AT_MAGIC: usize = 0;
const AT_TURN: usize = 1;
const AT_INSTANCE: usize = 2;
const AT_SINCE: usize = 4;
const AT_EXPORTER: usize = 5;
const BANKS: usize = 16;

/// Why a region cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// Too small.
    #[error("the ledger's region has {0} words; it needs {REGION_WORDS}")]
    Small(usize),
    /// It holds something already.
    #[error("the ledger's region is in use; give a new one")]
    InUse,
    /// It holds nothing, or the ledger of another version.
    #[error("the ledger's region holds no ledger of this version; nothing can be taken over")]
    Unknown,
}

/// What the region of an exporter is signed with: 0 of the main one, which has no name to be found by.
pub fn exporter_key(name: Option<&str>) -> u64 {
    name.map_or(0, |name| xxh3_64(name.as_bytes()).max(1))
}

/// The region of an exporter in a process's memory, which holds one after the other; empty beyond its end.
pub fn of_place(words: &'static [AtomicU64], place: usize, exporter: u64) -> &'static [AtomicU64] {
    let region = words.chunks_exact(REGION_WORDS).nth(place).unwrap_or_default();
    if let Some(word) = region.get(AT_EXPORTER) {
        word.store(exporter, Ordering::Release);
    }
    region
}

/// The region that the exporter of this name left in the memory of a process that is gone.
pub fn left_by(words: &'static [AtomicU64], exporter: u64) -> Option<&'static [AtomicU64]> {
    let is = |word: usize, region: &[AtomicU64]| region[word].load(Ordering::Acquire);
    words.chunks_exact(REGION_WORDS).find(|region| is(AT_MAGIC, region) == MAGIC && is(AT_EXPORTER, region) == exporter)
}

/// Two banks of figures and the word that says which one holds.
#[derive(Debug, Clone, Copy)]
pub struct Region(&'static [AtomicU64]);

impl Region {
    /// Takes a region of zeros.
    pub fn create(words: &'static [AtomicU64]) -> Result<Self, RegionError> {
        let region = Self::checked(words)?;
        if region.get(AT_MAGIC) != 0 {
            return Err(RegionError::InUse);
        }
        Ok(region)
    }

    /// Takes the region of a process that is gone.
    pub fn open(words: &'static [AtomicU64]) -> Result<Self, RegionError> {
        let region = Self::checked(words)?;
        if region.get(AT_MAGIC) != MAGIC {
            return Err(RegionError::Unknown);
        }
        Ok(region)
    }

    fn checked(words: &'static [AtomicU64]) -> Result<Self, RegionError> {
        if words.len() < REGION_WORDS { Err(RegionError::Small(words.len())) } else { Ok(Self(words)) }
    }

    /// Whose region it is; makes it readable for a successor.
    pub(super) fn sign(&self, instance: u128, since: i64) {
        self.set(AT_INSTANCE, (instance >> 64) as u64);
        self.set(AT_INSTANCE + 1, instance as u64);
        self.set(AT_SINCE, since as u64);
        self.set(AT_MAGIC, MAGIC);
    }

    /// The instance and when it began.
    pub fn signature(&self) -> (u128, i64) {
        let instance = u128::from(self.get(AT_INSTANCE)) << 64 | u128::from(self.get(AT_INSTANCE + 1));
        (instance, self.get(AT_SINCE) as i64)
    }

    /// The figures that hold.
    pub(super) fn read(&self) -> [u64; BANK] {
        let bank = BANKS + self.turn() * BANK;
        std::array::from_fn(|at| self.get(bank + at))
    }

    /// Replaces all figures in one step.
    pub(super) fn write(&self, figures: &[u64; BANK]) {
        let other = 1 - self.turn();
        for (at, figure) in figures.iter().enumerate() {
            self.set(BANKS + other * BANK + at, *figure);
        }
        self.set(AT_TURN, other as u64);
    }

    fn turn(&self) -> usize {
        (self.get(AT_TURN) & 1) as usize
    }

    fn get(&self, at: usize) -> u64 {
        self.0[at].load(Ordering::Acquire)
    }

    /// Release: no store is seen before those that precede it in the program, so the
    /// turn is seen after the bank, and the signature before the magic number.
    fn set(&self, at: usize, value: u64) {
        self.0[at].store(value, Ordering::Release);
    }
}
