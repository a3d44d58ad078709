//! What /proc says of a process: who it is. Nothing else of it is read: no command line,
//! and of the environment one name.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    sync::Arc,
};

use everflame_profile::Str;

use crate::{
    executables::base_name,
    strings::Strings,
    who::{Cgroup, Cgroups},
};

/// Longest path of an executable that is kept, in bytes.
const MAX_PATH: usize = 1024;
/// Most of a process's environment that is searched.
const MAX_ENVIRONMENT: u64 = 256 << 10;
/// Longest service name that is kept, in bytes.
const MAX_SERVICE: usize = 255;
/// Most of a small file of /proc that is read.
const MAX_SMALL: u64 = 64 << 10;
/// The one variable that is looked for.
const SERVICE: &[u8] = b"OTEL_SERVICE_NAME=";

/// From `/proc/PID/stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The name that the kernel has for it.
    pub comm: String,
    /// `R`, `S`, … `Z`.
    pub state: u8,
    /// Whether it has no user memory.
    pub kernel_thread: bool,
    /// How many threads it has.
    pub threads: u64,
    /// When it was started, in clock ticks since boot: tells apart two with the same pid.
    pub start: u64,
}

impl Status {
    /// Whether nothing of it will run any more.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X') && self.threads <= 1
    }
}

/// Reads a process's status.
pub fn status(pid: u32) -> io::Result<Status> {
    let text = small(&format!("/proc/{pid}/stat"))?;
    parse_status(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an unknown form of /proc/PID/stat"))
}

fn parse_status(text: &[u8]) -> Option<Status> {
    const KERNEL_THREAD: u64 = 0x0020_0000;
    // The name may hold anything, parentheses too.
    let open = text.iter().position(|b| *b == b'(')?;
    let close = text.iter().rposition(|b| *b == b')')?;
    let comm = String::from_utf8_lossy(text.get(open + 1..close)?).into_owned();
    let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |n: usize| fields.get(n - 3).and_then(|f| f.parse::<u64>().ok());
    Some(Status {
        comm,
        state: *fields.first()?.as_bytes().first()?,
        kernel_thread: number(9)? & KERNEL_THREAD != 0,
        threads: number(20)?,
        start: number(22)?,
    })
}

/// The name of a kernel thread without what its worker is busy with at the moment
/// (`kworker/0:1-events` is `kworker/0:1`).
pub fn kernel_thread_name(comm: &str) -> &str {
    let Some(colon) = comm.starts_with("kworker/").then(|| comm.find(':')).flatten() else { return comm };
    let end = comm[colon..].find(['-', '+']).map_or(comm.len(), |at| colon + at);
    &comm[..end]
}

/// Name and path of the executable, as the process sees it.
pub fn executable(pid: u32, strings: &mut Strings) -> io::Result<(Str, Str)> {
    let path = fs::read_link(format!("/proc/{pid}/exe"))?;
    Ok(name_and_path(path.as_os_str().as_bytes(), strings))
}

/// The same of a path that is known.
pub fn name_and_path(path: &[u8], strings: &mut Strings) -> (Str, Str) {
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    let name = base_name(path);
    let path = path.get(..MAX_PATH).unwrap_or(path);
    let path = String::from_utf8_lossy(path).replace(|c: char| c.is_control(), "\u{fffd}");
    (strings.get(&name), strings.get(&path))
}

/// The control group that a process is in.
pub fn cgroup(pid: u32, cgroups: &mut Cgroups) -> io::Result<Arc<Cgroup>> {
    let text = small(&format!("/proc/{pid}/cgroup"))?;
    Ok(cgroups.read(&text))
}

/// The service name in a process's environment, or an empty string. Reads the process's
/// memory, so it can hang.
pub fn service(pid: u32) -> String {
    let mut text = Vec::new();
    let read = File::open(format!("/proc/{pid}/environ")).and_then(|f| f.take(MAX_ENVIRONMENT).read_to_end(&mut text));
    // Not to be allowed is no reason to say anything: it is optional.
    read.ok().and_then(|_| service_in(&text)).unwrap_or_default()
}

fn service_in(text: &[u8]) -> Option<String> {
    let value = text.split(|b| *b == 0).find_map(|variable| variable.strip_prefix(SERVICE))?;
    let value = value.get(..MAX_SERVICE).unwrap_or(value);
    Some(String::from_utf8_lossy(value).replace(|c: char| c.is_control(), "\u{fffd}"))
}

/// Reads a file of /proc that is never large.
pub fn small(path: &str) -> io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(1024);
    File::open(path)?.take(MAX_SMALL).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_of_a_hostile_name() {
        let text = b"12 (a) R 9 (b)) S 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 777 1 2\n";
        let status = parse_status(text).unwrap();
        assert_eq!(status.comm, "a) R 9 (b)");
        assert_eq!((status.state, status.threads, status.start, status.kernel_thread), (b'S', 3, 777, false));
        assert!(parse_status(b"12 (a").is_none());
    }

    #[test]
    fn only_the_service_name_is_taken() {
        assert_eq!(service_in(b"A=1\0XOTEL_SERVICE_NAME=no\0OTEL_SERVICE_NAME=cart\0B=2\0"), Some("cart".into()));
        assert_eq!(service_in(b"SECRET=x\0"), None);
    }

    #[test]
    fn kernel_workers_keep_their_names_only() {
        assert_eq!(kernel_thread_name("kworker/0:1-events"), "kworker/0:1");
        assert_eq!(kernel_thread_name("kworker/u4:0+flush"), "kworker/u4:0");
        assert_eq!(kernel_thread_name("kworker/R-rcu_gp"), "kworker/R-rcu_gp");
        assert_eq!(kernel_thread_name("ksoftirqd/0"), "ksoftirqd/0");
    }
}
