//! The system calls that a worker may still make: what memory, its socket and its end need,
//! and nothing by which it could open, start, signal or reach anything. It holds whatever
//! the worker's user is, which the agent cannot always change.

use libc::{c_long, sock_filter};

/// What is let through. Everything else answers EPERM.
const ALLOWED: [c_long; 25] = [
    // The socket, and the file that came over it.
    libc::SYS_recvmsg,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_statx,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_clock_gettime,
    // Signals of its own making, and its end.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];
/// What is let through unless it would make memory executable.
const ALLOWED_BUT_FOR_CODE: [c_long; 2] = [libc::SYS_mmap, libc::SYS_mprotect];

/// AUDIT_ARCH_* of linux/audit.h.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Offsets in struct seccomp_data: number, architecture, low half of the third argument.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const PROTECTION: u32 = 32;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_BITS: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// The filter, for [`crate::sys::filter_calls`].
pub fn program() -> Vec<sock_filter> {
    let refuse = op(RETURN, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    let allow = op(RETURN, libc::SECCOMP_RET_ALLOW);
    let mut program = vec![
        op(LOAD, ARCH),
        jump(IF_EQUAL, ARCHITECTURE, 1, 0),
        // Another architecture's numbers mean other calls.
        op(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        op(LOAD, NUMBER),
    ];
    for call in ALLOWED {
        program.extend([jump(IF_EQUAL, call as u32, 0, 1), allow]);
    }
    for call in ALLOWED_BUT_FOR_CODE {
        let protected = [op(LOAD, PROTECTION), jump(IF_BITS, libc::PROT_EXEC as u32, 0, 1), refuse, allow];
        program.push(jump(IF_EQUAL, call as u32, 0, protected.len() as u8));
        program.extend(protected);
    }
    program.push(refuse);
    program
}

fn op(code: u32, k: u32) -> sock_filter {
    jump(code, k, 0, 0)
}

/// Skips so many instructions if it holds, and so many if not.
fn jump(code: u32, k: u32, holds: u8, else_: u8) -> sock_filter {
    sock_filter { code: code as u16, jt: holds, jf: else_, k }
}
