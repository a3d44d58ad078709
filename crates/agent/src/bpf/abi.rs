//! The structs and numbers of `bpf/abi.h`, mirrored by hand. The sizes are checked here;
//! a test compares the offsets with what a C compiler says of the header.

#![allow(missing_docs, reason = "bpf/abi.h says what each number and field is")]

use std::sync::atomic::{AtomicI64, AtomicU64};

pub const MAPPING_CHUNK: u32 = 16384;
pub const CHUNK_ELEMENTS: u32 = 16384;
pub const ELEMENT_SIZE: usize = 64;
pub const EXECUTABLE_LIMIT: u32 = 131072;
pub const USER_COUNTER_ELEMENTS: u32 = 16;
pub const USER_FRAMES: usize = 1024;
pub const KERNEL_FRAMES: usize = 127;
pub const COUNTER_WORDS: usize = 32;
pub const SAMPLE_KERNEL_THREAD: u8 = 1;
pub const SAMPLE_HAS_FRAMES: u8 = 2;
pub const SAMPLE_HAS_STACK: u8 = 4;
pub const SAMPLE_LATE: u8 = 8;
pub const STACK_BYTES: usize = 32768;
pub const CODE_BYTES: usize = 16;
pub const BELOW_SP: usize = 128;
pub const GENERAL_REGISTERS: usize = if cfg!(target_arch = "aarch64") { 32 } else { 16 };
pub const TABLE_NOT_YET: u32 = 0;
pub const TABLE_NEVER: u32 = u32::MAX;

#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    pub start: u64,
    pub bias: u64,
    pub pages: u32,
    pub executable: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Process {
    pub chunk: u32,
    pub first: u32,
    pub count: u32,
    pub generation: u32,
    pub exec_ns: u64,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub time_limit_ns: u64,
    pub ring_size: u64,
    pub only_wanted: u32,
    pub copy_every: u32,
    pub copy_rate: u64,
    pub address_mask: u64,
    pub kernel_stack: u64,
}

/// The fixed part of a record in the ring; frames follow.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub time: u64,
    pub stack: u64,
    pub cgroup: u64,
    pub pid: u32,
    pub tid: u32,
    pub cpu: u32,
    pub period: u32,
    pub kernel_frames: u16,
    pub user_frames: u16,
    pub completeness: u8,
    pub flags: u8,
    pub reserved: u16,
    pub comm: [u8; 16],
}

/// Where a thread stands.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Registers {
    /// Program counter.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer.
    pub fp: u64,
    /// Link register; 0 where the machine has none.
    pub lr: u64,
    /// All that rules can name, by DWARF's numbers.
    pub general: [u64; GENERAL_REGISTERS],
}

/// The fixed part of what follows the frames where a record carries a stack.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct UserState {
    pub at: Registers,
    pub start: u64,
    pub bytes: u32,
    pub has_code: u32,
    pub code: [u8; CODE_BYTES],
}

/// A control group that was made.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct CgroupBirth {
    pub id: u64,
    pub path: [u8; 496],
}

/// One CPU's counters, written by the kernel program while we read.
#[repr(C)]
#[derive(Debug)]
pub struct Counters {
    pub taken: AtomicU64,
    pub idle: AtomicU64,
    pub ring: AtomicU64,
    pub ring_full: AtomicU64,
    pub missed_sure: AtomicI64,
    pub missed_perhaps_idle: AtomicI64,
    pub max_ns: AtomicU64,
    pub frames_sent: AtomicU64,
    pub last_time: AtomicU64,
    pub last_tid: AtomicU64,
    pub last_missed_sure: AtomicU64,
    pub rearmed: AtomicU64,
    pub wakeups: AtomicU64,
    pub run_ns: AtomicU64,
    pub copies: AtomicU64,
    pub copied_bytes: AtomicU64,
    pub copies_refused: AtomicU64,
    pub allowance: AtomicU64,
    pub allowance_time: AtomicU64,
    pub copy_turn: AtomicU64,
    pub births_lost: AtomicU64,
    pub reserved: [AtomicU64; COUNTER_WORDS - 21],
}

const _: () = {
    assert!(size_of::<Mapping>() == 24);
    assert!(size_of::<Process>() == 24);
    assert!(size_of::<Options>() == 48);
    assert!(size_of::<UserState>() == 64 + 8 * GENERAL_REGISTERS);
    assert!(size_of::<Sample>() == 64);
    assert!(size_of::<CgroupBirth>() == 504);
    assert!(size_of::<Counters>() == COUNTER_WORDS * 8);
};

impl Sample {
    /// Reads the fixed part of a record; `None` where it is too short.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let b: &[u8; 64] = bytes.get(..size_of::<Self>())?.try_into().ok()?;
        let u64_at = |at: usize| u64::from_le_bytes(b[at..at + 8].try_into().expect("8 bytes"));
        let u32_at = |at: usize| u32::from_le_bytes(b[at..at + 4].try_into().expect("4 bytes"));
        let u16_at = |at: usize| u16::from_le_bytes(b[at..at + 2].try_into().expect("2 bytes"));
        Some(Self {
            time: u64_at(0),
            stack: u64_at(8),
            cgroup: u64_at(16),
            pid: u32_at(24),
            tid: u32_at(28),
            cpu: u32_at(32),
            period: u32_at(36),
            kernel_frames: u16_at(40),
            user_frames: u16_at(42),
            completeness: b[44],
            flags: b[45],
            reserved: 0,
            comm: b[48..64].try_into().expect("16 bytes"),
        })
    }
}

impl UserState {
    /// Reads the fixed part; `None` where it is too short.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.split_at_checked(size_of::<Registers>())?;
        let (start, rest) = rest.split_first_chunk::<8>()?;
        let (counts, rest) = rest.split_first_chunk::<8>()?;
        let word = |n: usize| u64::from_le_bytes(std::array::from_fn(|b| words[n * 8 + b]));
        let count = |n: usize| u32::from_le_bytes(std::array::from_fn(|b| counts[n * 4 + b]));
        let general = std::array::from_fn(|n| word(4 + n));
        let at = Registers { pc: word(0), sp: word(1), fp: word(2), lr: word(3), general };
        let start = u64::from_le_bytes(*start);
        Some(Self { at, start, bytes: count(0), has_code: count(1), code: *rest.first_chunk()? })
    }
}

impl Process {
    /// As the map's value.
    pub fn to_bytes(self) -> [u8; 24] {
        let mut b = [0; 24];
        for (slot, word) in b.chunks_exact_mut(4).zip([self.chunk, self.first, self.count, self.generation]) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        b[16..].copy_from_slice(&self.exec_ns.to_le_bytes());
        b
    }

    /// From the map's value.
    pub fn from_bytes(b: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(b.get(at..at + 4)?.try_into().ok()?));
        let exec_ns = u64::from_le_bytes(b.get(16..24)?.try_into().ok()?);
        Some(Self { chunk: word(0)?, first: word(4)?, count: word(8)?, generation: word(12)?, exec_ns })
    }
}

impl Options {
    /// As read-only data of the programs.
    pub fn to_bytes(self) -> [u8; 48] {
        let mut b = [0; 48];
        b[..8].copy_from_slice(&self.time_limit_ns.to_le_bytes());
        b[8..16].copy_from_slice(&self.ring_size.to_le_bytes());
        b[16..20].copy_from_slice(&self.only_wanted.to_le_bytes());
        b[20..24].copy_from_slice(&self.copy_every.to_le_bytes());
        b[24..32].copy_from_slice(&self.copy_rate.to_le_bytes());
        b[32..40].copy_from_slice(&self.address_mask.to_le_bytes());
        b[40..].copy_from_slice(&self.kernel_stack.to_le_bytes());
        b
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, mem::offset_of, process::Command};

    /// The C compiler's word on the header against ours.
    #[test]
    fn offsets_are_those_of_the_header() {
        let fields = [
            ("mapping", "bias", offset_of!(Mapping, bias)),
            ("mapping", "pages", offset_of!(Mapping, pages)),
            ("mapping", "executable", offset_of!(Mapping, executable)),
            ("process", "generation", offset_of!(Process, generation)),
            ("process", "exec_ns", offset_of!(Process, exec_ns)),
            ("options", "ring_size", offset_of!(Options, ring_size)),
            ("options", "only_wanted", offset_of!(Options, only_wanted)),
            ("options", "copy_every", offset_of!(Options, copy_every)),
            ("options", "copy_rate", offset_of!(Options, copy_rate)),
            ("options", "address_mask", offset_of!(Options, address_mask)),
            ("options", "kernel_stack", offset_of!(Options, kernel_stack)),
            ("registers", "lr", offset_of!(Registers, lr)),
            ("registers", "general", offset_of!(Registers, general)),
            ("user_state", "start", offset_of!(UserState, start)),
            ("user_state", "bytes", offset_of!(UserState, bytes)),
            ("user_state", "has_code", offset_of!(UserState, has_code)),
            ("user_state", "code", offset_of!(UserState, code)),
            ("sample", "stack", offset_of!(Sample, stack)),
            ("sample", "cgroup", offset_of!(Sample, cgroup)),
            ("sample", "pid", offset_of!(Sample, pid)),
            ("sample", "cpu", offset_of!(Sample, cpu)),
            ("sample", "period", offset_of!(Sample, period)),
            ("sample", "kernel_frames", offset_of!(Sample, kernel_frames)),
            ("sample", "user_frames", offset_of!(Sample, user_frames)),
            ("sample", "completeness", offset_of!(Sample, completeness)),
            ("sample", "flags", offset_of!(Sample, flags)),
            ("sample", "comm", offset_of!(Sample, comm)),
            ("counters", "ring_full", offset_of!(Counters, ring_full)),
            ("counters", "max_ns", offset_of!(Counters, max_ns)),
            ("counters", "rearmed", offset_of!(Counters, rearmed)),
            ("counters", "wakeups", offset_of!(Counters, wakeups)),
            ("counters", "run_ns", offset_of!(Counters, run_ns)),
            ("counters", "copies", offset_of!(Counters, copies)),
            ("counters", "copy_turn", offset_of!(Counters, copy_turn)),
            ("counters", "births_lost", offset_of!(Counters, births_lost)),
            ("cgroup_birth", "path", offset_of!(CgroupBirth, path)),
        ];
        let mut source = String::from("#include <linux/types.h>\n#include \"abi.h\"\n#include <stddef.h>\n");
        for (name, field, offset) in fields {
            source += &format!("_Static_assert(offsetof(struct {name}, {field}) == {offset}, \"{name}.{field}\");\n");
        }
        for (name, size) in [
            ("mapping", size_of::<Mapping>()),
            ("process", size_of::<Process>()),
            ("options", size_of::<Options>()),
            ("sample", size_of::<Sample>()),
            ("registers", size_of::<Registers>()),
            ("user_state", size_of::<UserState>()),
            ("cgroup_birth", size_of::<CgroupBirth>()),
            ("counters", size_of::<Counters>()),
        ] {
            source += &format!("_Static_assert(sizeof(struct {name}) == {size}, \"{name}\");\n");
        }
        let mut file = tempfile::Builder::new().suffix(".c").tempfile().expect("a temporary file");
        file.write_all(source.as_bytes()).expect("written");
        let status = Command::new("cc")
            .args(["-fsyntax-only", "-I", concat!(env!("CARGO_MANIFEST_DIR"), "/../../bpf")])
            .arg(file.path())
            .status()
            .expect("cc runs");
        assert!(status.success(), "abi.rs and abi.h disagree: see the assertion above");
    }
}
