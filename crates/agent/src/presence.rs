//! Samplers on one machine know of each other: each holds a shared lock on the host's PID
//! namespace. It is the one object that all of them see, whatever their mount and network
//! namespaces and their users; it takes no right, and the kernel takes the lock away when its
//! holder ends. Two samplers do no harm but cost twice, so it is said and they go on.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::MetadataExt,
    sync::{Mutex, PoisonError},
};

/// What the lock is on. The file of a namespace is the same for all who are in it.
const NAMESPACE: &str = "/proc/self/ns/pid";
/// Other samplers that are named; of a machine with more, that is enough to see.
const MOST: usize = 16;

/// Our own presence, until it is dropped.
#[derive(Debug)]
pub struct Presence {
    _lock: Option<File>,
    said: Mutex<BTreeSet<u32>>,
}

/// Another sampler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    /// Its process id.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

impl Presence {
    /// Takes the lock.
    pub fn announce() -> Self {
        let locked = File::open(NAMESPACE).and_then(|file| {
            file.try_lock_shared()?;
            Ok(file)
        });
        let lock = locked.inspect_err(|e| tracing::debug!("other samplers will not know of this one: {e}")).ok();
        Self { _lock: lock, said: Mutex::default() }
    }

    /// Says in the log who else samples, each once.
    pub fn say_others(&self) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let others = others();
        for other in others.iter().filter(|other| !said.contains(&other.pid)) {
            tracing::warn!(
                "{} (process {}) samples this machine too: both cost, and where both send to one server each second \
                 of CPU time counts twice there; end one of them",
                other.name,
                other.pid
            );
        }
        *said = others.into_iter().map(|other| other.pid).collect();
    }
}

/// The other samplers on this machine, as far as their PID namespace is ours.
pub fn others() -> Vec<Other> {
    let holders = holders().unwrap_or_default();
    let other = holders.into_iter().filter(|pid| *pid != std::process::id()).map(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Other { pid, name: name.trim().to_owned() }
    });
    other.take(MOST).collect()
}

/// Processes that hold the lock; `None` where it cannot be told.
pub fn holders() -> Option<BTreeSet<u32>> {
    let namespace = fs::metadata(NAMESPACE).ok()?;
    let file = (libc::major(namespace.dev()), libc::minor(namespace.dev()), namespace.ino());
    Some(holders_in(&fs::read_to_string("/proc/locks").ok()?, file))
}

/// Those of a file (major, minor, inode) in /proc/locks.
fn holders_in(text: &str, file: (u32, u32, u64)) -> BTreeSet<u32> {
    let holder = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        // One who waits has `->` first.
        words.next().filter(|kind| *kind == "FLOCK")?;
        let mut words = words.skip(2);
        let pid = words.next()?.parse().ok()?;
        let mut of = words.next()?.splitn(3, ':');
        let (major, minor) = (u32::from_str_radix(of.next()?, 16).ok()?, u32::from_str_radix(of.next()?, 16).ok()?);
        ((major, minor, of.next()?.parse().ok()?) == file).then_some(pid)
    };
    text.lines().filter_map(holder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_read() {
        let text = "1: FLOCK  ADVISORY  READ 16507 00:04:4026531836 0 EOF\n\
                    2: POSIX  ADVISORY  READ 16508 00:04:4026531836 0 EOF\n\
                    3: FLOCK  ADVISORY  WRITE 16509 fd:01:4026531836 0 EOF\n\
                    4: FLOCK  ADVISORY  READ 7 00:04:4026531836 0 EOF\n\
                    4: -> FLOCK  ADVISORY  WRITE 8 00:04:4026531836 0 EOF\nnonsense\n5:\n";
        assert_eq!(holders_in(text, (0, 4, 4026531836)), BTreeSet::from([7, 16507]));
    }

    #[test]
    fn a_presence_is_seen_until_it_ends() {
        let present = || holders().expect("/proc/locks can be read").contains(&std::process::id());
        let one = Presence::announce();
        let two = Presence::announce();
        assert!(present());
        drop(one);
        assert!(present(), "the second is there still");
        drop(two);
        assert!(!present());
        assert!(others().iter().all(|other| other.pid != std::process::id()));
    }
}
