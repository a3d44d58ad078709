//! The control groups that a kubelet makes, found and removed.

use std::path::PathBuf;
use std::time::Duration;

use everflame_tests::machine::{self, wait_for};

/// The group of all pods.
const PODS: &str = "kubepods";

/// The group of pods in every hierarchy that has it.
pub fn of_pods() -> Vec<PathBuf> {
    let mut hierarchies = vec![PathBuf::from("/sys/fs/cgroup")];
    hierarchies.extend(std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|e| e.path()));
    hierarchies.into_iter().map(|hierarchy| hierarchy.join(PODS)).filter(|path| path.is_dir()).collect()
}

/// Ends whatever is in pods and removes their groups.
pub fn remove() {
    wait_for("the end of all that is in pods", Duration::from_secs(30), || {
        let groups = of_pods();
        for group in &groups {
            remove_below(group);
        }
        of_pods().is_empty().then_some(())
    });
}

fn remove_below(group: &PathBuf) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
        }
    }
    for pid in std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines() {
        machine::signal(pid.parse().expect("a number"), "KILL");
    }
    let _ = std::fs::remove_dir(group);
}
