//! Control groups by the ids that samples carry. The kernel tells of each one when it is made,
//! so that a container's first process is known by it, however short it lives.

use std::{collections::VecDeque, fs, sync::Arc};

use rustc_hash::FxHashMap;

use super::{Cgroup, Cgroups};

/// Control groups of containers that are kept, at most; the oldest go first.
pub const MAX_CGROUPS: usize = 8192;

/// Control groups of containers by id.
#[derive(Debug)]
pub struct Births {
    by_id: FxHashMap<u64, Arc<Cgroup>>,
    /// In the order of their coming.
    order: VecDeque<u64>,
    shared: Cgroups,
    /// Whether there is one hierarchy, so that an id tells one container from another although
    /// nobody told of its birth.
    unified: bool,
    forgotten: u64,
}

impl Default for Births {
    fn default() -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::new(is_unified(&own))
    }
}

impl Births {
    /// Of a machine that has one hierarchy, or several.
    pub fn new(unified: bool) -> Self {
        Self { by_id: FxHashMap::default(), order: VecDeque::new(), shared: Cgroups::default(), unified, forgotten: 0 }
    }

    /// A control group was made.
    pub fn born(&mut self, id: u64, path: &str) {
        let cgroup = Cgroup::of_path(path);
        if cgroup.is_contained() {
            let cgroup = self.shared.get(cgroup);
            self.keep(id, cgroup);
        }
    }

    /// The control group of a sample, and whether it surely is that. `read` is the one of its
    /// process as /proc had it, where it was `located`: maybe before it was moved into its container.
    pub fn of_sample(&mut self, id: u64, read: &Arc<Cgroup>, located: bool) -> (Arc<Cgroup>, bool) {
        if let Some(known) = self.by_id.get(&id) {
            return (Arc::clone(if **known == **read { read } else { known }), true);
        }
        if self.unified && id != 0 && located && read.is_contained() {
            self.keep(id, Arc::clone(read));
        }
        (Arc::clone(read), located)
    }

    /// Those that were forgotten for others.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn keep(&mut self, id: u64, cgroup: Arc<Cgroup>) {
        if self.by_id.insert(id, cgroup).is_some() {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > MAX_CGROUPS
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_id.remove(&oldest);
            self.forgotten += 1;
            self.shared.sweep();
        }
    }
}

/// Whether `/proc/PID/cgroup` names the hierarchy of version 2 alone.
fn is_unified(text: &str) -> bool {
    let mut lines = text.lines();
    lines.next().is_some_and(|line| line.starts_with("0::")) && lines.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(number: usize) -> String {
        format!("/docker/{number:064x}")
    }

    fn cgroup(number: usize) -> Arc<Cgroup> {
        Arc::new(Cgroup::of_path(&path(number)))
    }

    fn of(births: &mut Births, id: u64, read: &Arc<Cgroup>) -> Arc<Cgroup> {
        births.of_sample(id, read, true).0
    }

    #[test]
    fn a_birth_says_more_than_what_was_read() {
        let mut births = Births::new(false);
        births.born(7, &path(1));
        births.born(8, "/system.slice/nginx.service");
        let nowhere: Arc<Cgroup> = Arc::default();
        assert_eq!(of(&mut births, 7, &nowhere), cgroup(1), "it was not read yet");
        assert_eq!(of(&mut births, 7, &cgroup(2)), cgroup(1), "it was read before it was moved");
        assert_eq!(of(&mut births, 8, &cgroup(2)), cgroup(2), "no container: a hierarchy of version 1 may have it");
        assert_eq!(of(&mut births, 9, &cgroup(2)), cgroup(2));
        assert_eq!(of(&mut births, 9, &nowhere), nowhere, "several containers may share it");
    }

    #[test]
    fn one_hierarchy_tells_containers_apart() {
        let mut births = Births::new(true);
        assert_eq!(births.of_sample(9, &cgroup(3), false), (cgroup(3), false), "that is where its parent is");
        assert_eq!(of(&mut births, 9, &cgroup(2)), cgroup(2));
        assert_eq!(births.of_sample(9, &Arc::default(), false), (cgroup(2), true), "another process of it");
        assert_eq!(of(&mut births, 0, &cgroup(3)), cgroup(3));
        assert_eq!(of(&mut births, 0, &Arc::default()), Arc::default(), "0 is no id");
        assert!(is_unified("0::/user.slice\n") && !is_unified("1:name=systemd:/\n0::/\n") && !is_unified(""));
    }

    #[test]
    fn when_full_the_oldest_go() {
        let mut births = Births::new(true);
        for number in 0..MAX_CGROUPS + 3 {
            births.born(number as u64 + 1, &path(number));
            births.born(number as u64 + 1, &path(number));
        }
        assert_eq!((births.by_id.len(), births.order.len(), births.forgotten()), (MAX_CGROUPS, MAX_CGROUPS, 3));
        let nowhere = Arc::default();
        assert_eq!((of(&mut births, 3, &nowhere), of(&mut births, 4, &nowhere)), (Arc::clone(&nowhere), cgroup(3)));
    }
}
