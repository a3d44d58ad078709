//! Counters that outlive a killed agent: pinned below bpffs, and listed beside the spool,
//! so that whoever takes over the spool finds the accounts of those who died with it.
//!
//! Beside each pin stands a link that says whose it is. A pin whose owner is dead and whose
//! spool is gone would stay until the machine is started anew: the next agent removes it.

use std::{
    fs::{self, Metadata},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    bpf::{
        counters::CounterMap,
        monotonic_ns,
        programs::{Programs, pinned_counters},
    },
    presence,
};

/// Where the counters are pinned.
pub const PINNED: &str = "/sys/fs/bpf/everflame";
/// Ends the name of the link beside a pin. (bpffs takes no dots.)
const OWNER: &str = "-owner";
/// Of a dead agent whose spool we cannot look for, in another container: how long its
/// successor may take to come, after the last tick.
const SUCCESSOR_WITHIN: Duration = Duration::from_hours(24);
/// Names below [`PINNED`] that are looked at.
const MOST: usize = 4096;

/// The pins of the agents that used one spool.
#[derive(Debug)]
pub struct Pins {
    place: PathBuf,
    spool: PathBuf,
    list: PathBuf,
    own: Option<String>,
}

impl Pins {
    /// The pins that belong to a spool directory.
    pub fn open(spool: &Path) -> Self {
        let list = spool.join("instances");
        if let Err(e) = fs::create_dir_all(&list) {
            tracing::warn!("{}: {e}; the account of a killed agent will be lost", list.display());
        }
        let spool = fs::canonicalize(spool).unwrap_or_else(|_| spool.to_owned());
        Self { place: PINNED.into(), spool, list, own: None }
    }

    /// Instances that died: name, node, and the counters that they left.
    pub fn predecessors(&mut self) -> Vec<(String, String, CounterMap)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.list).into_iter().flatten().flatten() {
            let Ok(instance) = entry.file_name().into_string() else { continue };
            match is_instance(&instance).then(|| pinned_counters(&self.place.join(&instance))).flatten() {
                Some(counters) => {
                    found.push((instance, fs::read_to_string(entry.path()).unwrap_or_default(), counters))
                }
                // The machine was started anew, or it never got as far as pinning.
                None => drop(fs::remove_file(entry.path())),
            }
        }
        found
    }

    /// Pins our own counters.
    pub fn pin(&mut self, programs: &Programs, instance: &str, node: &str) {
        let path = self.place.join(instance);
        let pinned = programs.pin_counters(&path).map_err(|e| e.to_string());
        match pinned.and_then(|()| fs::write(self.list.join(instance), node).map_err(|e| e.to_string())) {
            Ok(()) => {
                self.own = Some(instance.to_owned());
                let link = self.place.join(format!("{instance}{OWNER}"));
                if let Err(e) = symlink(Owner::ourselves(&self.spool).to_text(), &link) {
                    tracing::debug!("{}: {e}", link.display());
                }
            }
            Err(e) => {
                let _ = fs::remove_file(&path);
                tracing::warn!("counters will not outlive this process if it is killed: {e}");
            }
        }
    }

    /// Removes what was pinned for instances whose accounts are closed.
    pub fn forget(&mut self, instances: &[String]) {
        for instance in instances.iter().filter(|i| is_instance(i)) {
            self.unpin(instance);
            let _ = fs::remove_file(self.list.join(instance));
        }
    }

    /// Removes our own, when everything was sent and acknowledged.
    pub fn forget_own(&mut self) {
        if let Some(own) = self.own.take() {
            self.forget(&[own]);
        }
    }

    /// Removes what agents left that are dead and that nobody will succeed. Says how many.
    pub fn remove_stale(&self) -> u64 {
        let here = Owner::ourselves(&self.spool);
        let living = presence::holders();
        let mut removed = 0;
        for entry in fs::read_dir(&self.place).into_iter().flatten().flatten().take(MOST) {
            let Ok(instance) = entry.file_name().into_string() else { continue };
            if !is_instance(&instance) || self.own.as_ref() == Some(&instance) || self.lists(&instance) {
                continue;
            }
            let owner = fs::read_link(self.place.join(format!("{instance}{OWNER}"))).ok();
            let owner = owner.and_then(|text| Owner::from_text(text.to_str()?));
            let lives = match (&owner, &living) {
                (Some(owner), Some(living)) if owner.pids == here.pids => Some(living.contains(&owner.pid)),
                _ => None,
            };
            let stale = match (lives, &owner) {
                (Some(true), _) => false,
                (Some(false), Some(owner)) if owner.mounts == here.mounts => {
                    fs::symlink_metadata(owner.spool.join("instances").join(&instance)).is_err()
                }
                _ => pinned_counters(&self.place.join(&instance)).is_some_and(|c| is_old(c.last_tick())),
            };
            removed += u64::from(stale && self.unpin(&instance));
        }
        if removed > 0 {
            let place = self.place.display();
            tracing::info!("{removed} accounts of dead agents without a spool were removed from {place}");
        }
        removed
    }

    fn lists(&self, instance: &str) -> bool {
        fs::symlink_metadata(self.list.join(instance)).is_ok_and(|facts: Metadata| facts.is_file())
    }

    fn unpin(&self, instance: &str) -> bool {
        let _ = fs::remove_file(self.place.join(format!("{instance}{OWNER}")));
        fs::remove_file(self.place.join(instance)).is_ok()
    }
}

/// Whose a pin is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    /// Process id, in the namespace that follows.
    pid: u32,
    pids: String,
    /// The mount namespace in which the path of the spool holds.
    mounts: String,
    spool: PathBuf,
}

impl Owner {
    fn ourselves(spool: &Path) -> Self {
        let namespace = |kind: &str| {
            let link = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap_or_default();
            link.to_string_lossy().into_owned()
        };
        Self { pid: std::process::id(), pids: namespace("pid"), mounts: namespace("mnt"), spool: spool.to_owned() }
    }

    fn to_text(&self) -> String {
        format!("{} {} {} {}", self.pid, self.pids, self.mounts, self.spool.display())
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut words = text.splitn(4, ' ');
        let pid = words.next()?.parse().ok()?;
        let (pids, mounts) = (words.next()?.to_owned(), words.next()?.to_owned());
        Some(Self { pid, pids, mounts, spool: words.next()?.into() })
    }
}

/// Whether an agent that ticked last at this time (0: never) is dead for long.
fn is_old(last_tick: u64) -> bool {
    let silent = Duration::from_nanos(monotonic_ns().saturating_sub(last_tick));
    last_tick != 0 && silent > SUCCESSOR_WITHIN
}

fn is_instance(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_written_as_it_is_read() {
        let owner = Owner::ourselves(Path::new("/var/lib/with a space/spool"));
        assert!(owner.pids.starts_with("pid:[") && owner.mounts.starts_with("mnt:["));
        assert_eq!(Owner::from_text(&owner.to_text()), Some(owner));
        assert_eq!(Owner::from_text("12 pid:[1]"), None);
    }
}
