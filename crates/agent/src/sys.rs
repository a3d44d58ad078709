//! The few system calls that the standard library does not have and that are not BPF's.
//! Each is wrapped so that its callers need no `unsafe`.

use std::{
    ffi::CStr,
    fs::File,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

/// Turns the -1 of libc into the error it stands for.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Waits until one of the descriptors is readable or the time is over (milliseconds,
/// -1 for no end). Says which are readable (or broken: the read will tell).
pub fn poll(fds: &[BorrowedFd<'_>], timeout_ms: i32) -> io::Result<Vec<bool>> {
    let mut polled: Vec<libc::pollfd> =
        fds.iter().map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    // SAFETY: `polled` is a valid array of as many entries as is said; the descriptors are
    // borrowed, so they stay open during the call.
    let result = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout_ms) };
    check(result.into())?;
    Ok(polled.iter().map(|p| p.revents != 0).collect())
}

/// Opens `path` below the directory `root` as a process whose root it is would, but
/// through no magic link of /proc. The file is only found (O_PATH), not opened.
pub fn open_in_root(root: BorrowedFd<'_>, path: &CStr) -> io::Result<File> {
    // SAFETY: open_how is plain data for which zero is a valid value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_PATH | libc::O_CLOEXEC) as u64;
    how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: `path` ends in a zero, `how` is valid and its true size is passed.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_openat2, root.as_raw_fd(), path.as_ptr(), &raw const how, size_of::<libc::open_how>())
    })?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { File::from_raw_fd(fd as RawFd) })
}

/// A file in memory only.
pub fn memory_file(name: &CStr) -> io::Result<File> {
    // SAFETY: `name` ends in a zero.
    let fd = check(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) }.into())?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { File::from_raw_fd(fd as RawFd) })
}

/// A timer that never ends but becomes readable when somebody sets the clock of Unix time, and
/// when the machine wakes: that sets it too.
pub fn clock_watch() -> io::Result<File> {
    // SAFETY: no pointers.
    let fd =
        check(unsafe { libc::timerfd_create(libc::CLOCK_REALTIME, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) }.into())?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    let watch = unsafe { File::from_raw_fd(fd as RawFd) };
    let never = libc::itimerspec {
        it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: libc::timespec { tv_sec: libc::time_t::MAX, tv_nsec: 0 },
    };
    let flags = libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET;
    // SAFETY: a valid time, and nobody asks for the one before.
    check(unsafe { libc::timerfd_settime(watch.as_raw_fd(), flags, &raw const never, std::ptr::null_mut()) }.into())?;
    Ok(watch)
}

/// Makes the calling thread, and what it starts, run behind others: as `nice` counts.
pub fn stand_back(nice: i32) {
    // SAFETY: no pointers; on Linux 0 is the calling thread. It may always stand back further.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
}

/// Room for the control message that carries one descriptor, aligned as it must be.
#[repr(C, align(8))]
struct ControlRoom([u8; 64]);

/// Sends `bytes` with a descriptor. The bytes must be few (a datagram's worth): a short
/// write is an error.
pub fn send_with_fd(socket: &UnixStream, bytes: &[u8], fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut room = ControlRoom([0; 64]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr() as *mut libc::c_void, iov_len: bytes.len() };
    // SAFETY: msghdr is plain data for which zero is a valid value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = room.0.as_mut_ptr().cast();
    // SAFETY: CMSG_SPACE only computes; the control room is larger than what one
    // descriptor takes, and CMSG_FIRSTHDR / CMSG_DATA point into it.
    let sent = unsafe {
        message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd.as_raw_fd());
        libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_NOSIGNAL)
    };
    if check(sent as libc::c_long)? as usize == bytes.len() {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::WriteZero, "the request was cut short"))
    }
}

/// Receives bytes and the descriptor that came with them, if one did. 0 bytes: the
/// other end is closed.
pub fn receive_with_fd(socket: &UnixStream, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut room = ControlRoom([0; 64]);
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: msghdr is plain data for which zero is a valid value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = room.0.as_mut_ptr().cast();
    // SAFETY: CMSG_SPACE only computes; room for exactly one descriptor is offered, so the
    // kernel closes any further ones. The header walked is the one the kernel wrote.
    unsafe {
        message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as _;
        let got = check(libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC) as libc::c_long)?;
        let header = libc::CMSG_FIRSTHDR(&message);
        let mut fd = None;
        if !header.is_null() && (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
            fd = Some(OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()));
        }
        Ok((got as usize, fd))
    }
}

/// What a confined process may still use.
#[derive(Debug, Clone, Copy)]
pub struct Confinement {
    /// Bytes of private writable memory.
    pub data: u64,
    /// Bytes of address space, mapped files included.
    pub address_space: u64,
    /// Seconds of CPU time in its whole life.
    pub cpu_seconds: u64,
    /// User and group to become, where that is allowed.
    pub user: u32,
}

/// Gives up, for this process and for good: user and groups (where it may change them),
/// capabilities, the gaining of new ones, being traced by its new user, core dumps, writing
/// files, opening more than a few, starting processes. It dies with its parent.
pub fn confine(limits: &Confinement) -> io::Result<()> {
    // SAFETY: all calls take numbers or pointers to valid local structs that outlive them.
    unsafe {
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL).into())?;
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
        if libc::geteuid() == 0 {
            unless_denied(check(libc::setgroups(0, std::ptr::null()).into()))?;
            unless_denied(check(libc::setresgid(limits.user, limits.user, limits.user).into()))?;
            unless_denied(check(libc::setresuid(limits.user, limits.user, limits.user).into()))?;
        }
        // Version 3 of struct __user_cap_header_struct, for this process; two empty sets.
        let header: [u32; 2] = [0x2008_0522, 0];
        let empty = [0u32; 6];
        check(libc::syscall(libc::SYS_capset, header.as_ptr(), empty.as_ptr()))?;
        check(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0).into())?;
        // A change of user clears it.
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL).into())?;
        for (resource, limit) in [
            (libc::RLIMIT_CORE, 0),
            (libc::RLIMIT_FSIZE, 0),
            (libc::RLIMIT_NPROC, 0),
            (libc::RLIMIT_NOFILE, 16),
            (libc::RLIMIT_DATA, limits.data),
            (libc::RLIMIT_AS, limits.address_space),
            (libc::RLIMIT_CPU, limits.cpu_seconds),
        ] {
            let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
            check(libc::setrlimit(resource, &limit).into())?;
        }
    }
    Ok(())
}

/// To be refused is no failure: what is given up beside it has to do.
fn unless_denied(result: io::Result<libc::c_long>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() != io::ErrorKind::PermissionDenied => Err(e),
        _ => Ok(()),
    }
}

/// Puts a filter before all further system calls of this thread and of those it starts.
/// The process must not be able to gain privileges ([`confine`]).
pub fn filter_calls(program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads as many instructions as is said from the slice, and copies them.
    check(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) }.into())?;
    Ok(())
}

/// CPU time that this process has used, in seconds.
pub fn cpu_seconds() -> u64 {
    // SAFETY: rusage is plain data for which zero is a valid value, and valid to write to.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) as u64
    }
}

/// Makes the C library give freed memory back: large buffers (files of the kernel, unwind
/// tables, symbol indexes) pass through the agent now and then, and would stay with it.
/// Call before there are threads.
pub fn give_memory_back() {
    for (parameter, value) in
        [(libc::M_MMAP_THRESHOLD, 128 << 10), (libc::M_TRIM_THRESHOLD, 128 << 10), (libc::M_ARENA_MAX, 2)]
    {
        // SAFETY: only numbers are passed; a refusal changes nothing.
        unsafe { libc::mallopt(parameter, value) };
    }
}

unsafe extern "C" {
    fn __nss_configure_lookup(database: *const libc::c_char, services: *const libc::c_char) -> libc::c_int;
}

/// Makes the C library look up names of hosts by /etc/hosts and /etc/resolv.conf, whatever
/// nsswitch.conf says: for other ways a static program would load this machine's modules, and with
/// them another C library, which it may not fit. Call before there are threads.
pub fn names_by_hosts_and_dns() {
    // SAFETY: both end in a zero and live for good; the library copies what it needs of them.
    let result = unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
    debug_assert_eq!(result, 0, "both ways are built in");
}
