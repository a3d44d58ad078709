//! Counters that outlive a killed agent: pinned below bpffs, and listed beside the spool,
//! so that whoever takes over the spool finds the accounts of those who died with it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::bpf::{
    counters::CounterMap,
    programs::{Programs, pinned_counters},
};

/// Where the counters are pinned.
pub const PINNED: &str = "/sys/fs/bpf/everflame";

/// The pins of the agents that used one spool.
#[derive(Debug)]
pub struct Pins {
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
        Self { list, own: None }
    }

    /// Instances that died: name, node, and the counters that they left.
    pub fn predecessors(&mut self) -> Vec<(String, String, CounterMap)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.list).into_iter().flatten().flatten() {
            let Ok(instance) = entry.file_name().into_string() else { continue };
            match is_instance(&instance).then(|| pinned_counters(&Path::new(PINNED).join(&instance))).flatten() {
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
        let path = Path::new(PINNED).join(instance);
        let pinned = programs.pin_counters(&path).map_err(|e| e.to_string());
        match pinned.and_then(|()| fs::write(self.list.join(instance), node).map_err(|e| e.to_string())) {
            Ok(()) => self.own = Some(instance.to_owned()),
            Err(e) => tracing::warn!("counters will not outlive this process if it is killed: {e}"),
        }
    }

    /// Removes what was pinned for instances whose accounts are closed.
    pub fn forget(&mut self, instances: &[String]) {
        for instance in instances.iter().filter(|i| is_instance(i)) {
            let _ = fs::remove_file(Path::new(PINNED).join(instance));
            let _ = fs::remove_file(self.list.join(instance));
        }
    }

    /// Removes our own, when everything was sent and acknowledged.
    pub fn forget_own(&mut self) {
        if let Some(own) = self.own.take() {
            self.forget(&[own]);
        }
    }
}

fn is_instance(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit())
}
