//! What unwinding has to know of a machine: its registers by DWARF's numbers, where a frame is when a function
//! begins, and the code that is known by what it is.
use crate::layout::{Rule, cfa, fp, ra};

const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;

/// DWARF's number of x30 of arm64, the link register.
pub(crate) const LINK: i16 = 30;

/// A machine whose code is unwound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Arm64,
}

impl Machine {
    /// The one that this code runs on.
    pub const fn here() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::X86_64 }
    }

    /// By the number in an ELF header.
    pub(crate) fn of(number: u16) -> Option<Self> {
        match number {
            EM_X86_64 => Some(Self::X86_64),
            EM_AARCH64 => Some(Self::Arm64),
            _ => None,
        }
    }

    /// The frame pointer.
    pub(crate) const fn fp(self) -> u64 {
        if matches!(self, Self::X86_64) { 6 } else { 29 }
    }

    /// The stack pointer.
    pub(crate) const fn sp(self) -> u64 {
        if matches!(self, Self::X86_64) { 7 } else { 31 }
    }

    /// Registers below this number can be named by a rule.
    pub(crate) const fn registers(self) -> u64 {
        if matches!(self, Self::X86_64) { 16 } else { 31 }
    }

    /// Where a function begins, and all along one that makes no frame.
    pub(crate) const fn entry(self) -> Rule {
        match self {
            Self::X86_64 => Rule::of(cfa::SP, 8),
            Self::Arm64 => Rule { ra: ra::REGISTER, ra_offset: LINK, ..Rule::of(cfa::SP, 0) },
        }
    }

    /// A signal trampoline: what the kernel interrupted is in its `struct ucontext`, to which sp
    /// points on x86-64, and which follows 128 bytes of `siginfo` on arm64.
    pub(crate) const fn signal_frame(self) -> Rule {
        match self {
            Self::X86_64 => Rule::SIGNAL_FRAME,
            Self::Arm64 => Rule { cfa_offset: 560, fp_offset: 544, ra_offset: 568, ..Rule::SIGNAL_FRAME },
        }
    }

    /// `rt_sigreturn`, as every libc, the vDSO and Go write it.
    pub(crate) const fn trampoline(self) -> &'static [u8] {
        match self {
            // mov rax, 15; syscall
            Self::X86_64 => &[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05],
            // mov x8, #139; svc #0
            Self::Arm64 => &[0x68, 0x11, 0x80, 0xd2, 0x01, 0, 0, 0xd4],
        }
    }

    /// The new thread's half of musl's `clone`, whose stack begins here.
    pub(crate) const fn new_thread(self) -> &'static [u8] {
        match self {
            // xor ebp, ebp; pop rdi; call r9, and then the thread's end
            Self::X86_64 => &[0x31, 0xed, 0x5f, 0x41, 0xff, 0xd1, 0x89, 0xc7, 0x31, 0xc0, 0xb0, 60, 0x0f, 0x05, 0xf4],
            // ldp x1, x0, [sp], #16; blr x1; mov x8, #93; svc #0
            Self::Arm64 => &[0xe1, 0x03, 0xc1, 0xa8, 0x20, 0, 0x3f, 0xd6, 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0, 0, 0xd4],
        }
    }

    /// glibc's `__start_context`, to which the first function of a context returns; empty where its unwind
    /// data says that.
    pub(crate) const fn start_context(self) -> &'static [u8] {
        match self {
            // mov rsp, rbx; mov rdi, [rsp]; test rdi, rdi; je
            Self::X86_64 => &[0x48, 0x89, 0xdc, 0x48, 0x8b, 0x3c, 0x24, 0x48, 0x85, 0xff, 0x74],
            Self::Arm64 => &[],
        }
    }

    /// The rule for a frame `size` bytes large whose caller's frame pointer and return address lie side by
    /// side, the first of them `fp_offset` from the CFA.
    pub(crate) const fn record(self, size: i32, fp_offset: i32) -> Rule {
        Rule { fp: fp::CFA, fp_offset, ra: ra::RECORD, ..Rule::of(cfa::SP, size) }
    }
}
