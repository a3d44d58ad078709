//! A sample as the kernel program hands it over, and the stack it points to.

use std::{borrow::Cow, sync::Arc};

use everflame_profile::Completeness;

use crate::bpf::{
    abi::CODE_BYTES,
    host::{Memory, Piece, Registers},
};

/// Number of an executable on this node, never reused while the agent runs.
/// Numbers below [`FIRST_EXECUTABLE`] are not executables: frames in memory that
/// belongs to no file carry their absolute address in the same 64 bits.
pub type ExecutableNumber = u32;

/// The smallest number that an executable can have.
pub const FIRST_EXECUTABLE: ExecutableNumber = 16;

/// A user frame in 8 bytes: executable number (20 bits) and ELF virtual address
/// (44 bits), or, where the number is below [`FIRST_EXECUTABLE`], an absolute address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UserFrame(pub u64);

impl UserFrame {
    const ADDRESS_BITS: u32 = 44;
    /// The bits of an absolute address that are kept.
    pub const ABSOLUTE: u64 = (1 << 48) - 1;

    /// The executable and the ELF virtual address in it, or the absolute address of
    /// code in anonymous or unknown memory.
    pub fn place(self) -> Place {
        let number = (self.0 >> Self::ADDRESS_BITS) as ExecutableNumber;
        if number < FIRST_EXECUTABLE {
            Place::Absolute(self.0)
        } else {
            Place::File { executable: number, address: self.0 & ((1 << Self::ADDRESS_BITS) - 1) }
        }
    }
}

/// Where a user frame stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// In a file's code.
    File {
        /// Whose.
        executable: ExecutableNumber,
        /// ELF virtual address.
        address: u64,
    },
    /// In memory of no known file.
    Absolute(u64),
}

/// A stack's frames, leaf first, shared by all samples of an epoch that saw it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct RawStack {
    /// Kernel addresses.
    pub kernel: Vec<u64>,
    /// User frames below them.
    pub user: Vec<UserFrame>,
}

/// Where a thread stood in user space, and a piece of its stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserStack {
    /// Its registers.
    pub registers: Registers,
    /// The code at its pc, from the byte before on: see `bpf/peek.h`.
    pub code: Option<[u8; CODE_BYTES]>,
    /// Address of the first byte: the stack pointer, or a little below.
    pub start: u64,
    /// From there on.
    pub bytes: Box<[u8]>,
}

impl UserStack {
    /// Memory that waiting with it takes.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.bytes.len()
    }

    /// From the stack pointer on.
    pub fn above(&self) -> &[u8] {
        let below = usize::try_from(self.registers.sp.saturating_sub(self.start)).unwrap_or(usize::MAX);
        self.bytes.get(below..).unwrap_or_default()
    }
}

impl Memory for UserStack {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        let code_start = self.registers.pc.wrapping_sub(1);
        let stack = Piece { start: self.start, bytes: &self.bytes };
        let code = self.code.as_ref().map(|bytes| Piece { start: code_start, bytes });
        stack.read(address, into) || code.is_some_and(|code| code.read(address, into))
    }
}

/// One tick of the sampler on a task that was not idle.
#[derive(Debug, Clone)]
pub struct RawSample {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time: u64,
    /// Process (thread group), in the host's PID namespace; 0 for none.
    pub pid: u32,
    /// Thread, in the host's PID namespace.
    pub tid: u32,
    /// CPU number.
    pub cpu: u32,
    /// Id of the task's cgroup (v2 hierarchy).
    pub cgroup: u64,
    /// The thread's name, zero-terminated unless 16 bytes long.
    pub comm: [u8; 16],
    /// Whether the task is a kernel thread (no user memory).
    pub kernel_thread: bool,
    /// Whether the stack reached its root.
    pub completeness: Completeness,
    /// The true period of this CPU's sampler, nanoseconds.
    pub period: u64,
    /// The frames.
    pub stack: Arc<RawStack>,
    /// What user space had not told the kernel yet ended the walk: it can be walked again.
    pub late: bool,
    /// A copy of the stack, where it is late, and now and then where it is not.
    pub copy: Option<Arc<UserStack>>,
}

impl RawSample {
    /// The thread's name, up to its zero.
    pub fn thread(&self) -> Cow<'_, str> {
        let end = self.comm.iter().position(|b| *b == 0).unwrap_or(self.comm.len());
        String::from_utf8_lossy(&self.comm[..end])
    }
}
