//! The pods that are known: by uid, by the hash that stands for it in the paths of static ones,
//! and by the ids of their containers. A pod that is gone stays for a while, for its last samples.

use std::{
    sync::{
        PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use everflame_profile::Str;
use rustc_hash::{FxHashMap, FxHashSet};

use super::object::Object;
use crate::{strings::Strings, who::Cgroup};

/// Pods that are known at the same time. A node of Kubernetes runs 110 unless told otherwise.
pub const MAX_PODS: usize = 2048;
/// How long a pod that is gone is remembered: longer than any of its samples waits.
pub const GRACE: Duration = Duration::from_secs(120);
/// Ids of containers that are remembered of one pod; a container that starts anew has a new one.
pub const MAX_IDS: usize = 32;
/// Longest name, image or label that is kept, in bytes.
const MAX_TEXT: usize = 512;
/// Of a static pod's copy on the API server: what stands for its uid on the node.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// The label that names a service.
const SERVICE: &str = "app.kubernetes.io/name";

/// An owner of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// `Deployment`, `StatefulSet`, …
    pub kind: Str,
    /// Its name.
    pub name: Str,
}

/// A container of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its name in the pod.
    pub name: Str,
    /// Its image, as it was asked for.
    pub image: Str,
}

/// What is kept of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its uid.
    pub uid: Str,
    /// Of a static pod, what stands for the uid on the node; else empty.
    pub hash: Str,
    /// Its namespace.
    pub namespace: Str,
    /// Its name.
    pub name: Str,
    /// What its label `app.kubernetes.io/name` says.
    pub service: Str,
    /// The labels that were asked for.
    pub labels: Vec<(Str, Str)>,
    /// Its owners, the nearest first.
    pub workloads: Vec<Workload>,
    /// Whether these are all.
    pub owners_told: bool,
    /// Its containers of all kinds.
    pub containers: Vec<Container>,
    /// Ids of containers, the newest first, and their index in `containers`.
    pub ids: Vec<(Str, u16)>,
}

/// A pod, and the container in it where that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The pod.
    pub pod: std::sync::Arc<Pod>,
    /// The container.
    pub container: Option<Container>,
}

/// The node's pods.
#[derive(Debug, Default)]
pub struct Pods {
    table: RwLock<Table>,
    revision: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    by_uid: FxHashMap<Str, Entry>,
    by_hash: FxHashMap<Str, Str>,
    by_container: FxHashMap<Str, Str>,
    strings: Strings,
}

#[derive(Debug)]
struct Entry {
    pod: std::sync::Arc<Pod>,
    gone: Option<Instant>,
}

impl Pods {
    /// Grows with each change.
    pub fn revision(&self) -> u64 {
        self.revision.load(Relaxed)
    }

    /// The pod of a control group.
    pub fn find(&self, cgroup: &Cgroup) -> Option<Found> {
        let table = self.read();
        let uid = table.by_container.get(&cgroup.container);
        let uid = uid.or_else(|| table.by_hash.get(&cgroup.pod)).unwrap_or(&cgroup.pod);
        let pod = &table.by_uid.get(uid)?.pod;
        let by_id = pod.ids.iter().find(|(id, _)| *id == cgroup.container).map(|(_, index)| usize::from(*index));
        let by_name = || pod.containers.iter().position(|c| !c.name.is_empty() && c.name == cgroup.name);
        let container = by_id.or_else(by_name).and_then(|index| pod.containers.get(index)).cloned();
        Some(Found { pod: pod.clone(), container })
    }

    /// How many there are, and how many of them are gone.
    pub fn len(&self) -> (usize, usize) {
        let table = self.read();
        (table.by_uid.len(), table.by_uid.values().filter(|entry| entry.gone.is_some()).count())
    }

    /// Those that found no room.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Takes in what the API server says of a pod now. `labels` are those to keep.
    /// `owners_told`: whether `workloads` are all its owners.
    pub(super) fn update(
        &self,
        object: Object,
        labels: &[String],
        workloads: Vec<(String, String)>,
        owners_told: bool,
    ) {
        let mut table = self.write();
        let pod = Pod { owners_told, ..table.pod(object, labels, workloads) };
        if pod.uid.is_empty() {
            return;
        }
        if !table.by_uid.contains_key(&pod.uid) && table.by_uid.len() >= MAX_PODS && !table.forget_gone() {
            self.refused.fetch_add(1, Relaxed);
            return;
        }
        if table.put(pod) {
            self.revision.fetch_add(1, Relaxed);
        }
    }

    /// All is known of a pod's owners.
    pub(super) fn owned(&self, uid: &str, workloads: Vec<(String, String)>) {
        let mut table = self.write();
        let Some(known) = table.by_uid.get(uid).map(|entry| Pod::clone(&entry.pod)) else { return };
        let workloads = table.workloads(workloads);
        if table.put(Pod { workloads, owners_told: true, ..known }) {
            self.revision.fetch_add(1, Relaxed);
        }
    }

    /// A pod is gone.
    pub(super) fn remove(&self, uid: &str) {
        if let Some(entry) = self.write().by_uid.get_mut(uid) {
            entry.gone.get_or_insert_with(Instant::now);
        }
    }

    /// All pods but these are gone.
    pub(super) fn keep_only(&self, uids: &FxHashSet<String>) {
        for (uid, entry) in &mut self.write().by_uid {
            if !uids.contains(&**uid) {
                entry.gone.get_or_insert_with(Instant::now);
            }
        }
    }

    /// Forgets those that were gone for long enough.
    pub(super) fn sweep(&self, grace: Duration) {
        let mut table = self.write();
        let over = |entry: &Entry| entry.gone.is_some_and(|gone| gone.elapsed() >= grace);
        let old: Vec<Str> = table.by_uid.values().filter(|e| over(e)).map(|e| e.pod.uid.clone()).collect();
        for uid in &old {
            table.forget(uid);
        }
        if !old.is_empty() {
            table.strings.sweep();
            self.revision.fetch_add(1, Relaxed);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn pod(&mut self, object: Object, wanted: &[String], workloads: Vec<(String, String)>) -> Pod {
        let Object { metadata, spec, status, .. } = object;
        let all = [spec.init_containers, spec.containers, spec.ephemeral_containers];
        let mut containers: Vec<Container> = Vec::new();
        for container in all.into_iter().flatten() {
            containers.push(Container { name: self.text(&container.name), image: self.text(&container.image) });
        }
        let mut ids = Vec::new();
        for status in status.containers() {
            let Some(index) = containers.iter().position(|c| *c.name == status.name) else { continue };
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            ids.extend(status.ids().filter(|id| id.len() <= MAX_TEXT).map(|id| (Str::from(id), index)));
        }
        let labels = wanted.iter().filter_map(|name| {
            let value = metadata.labels.get(name)?;
            Some((self.strings.get(name), self.strings.get(short(value))))
        });
        Pod {
            labels: labels.collect(),
            uid: short(&metadata.uid).into(),
            hash: metadata.annotations.get(CONFIG_HASH).map(|hash| Str::from(short(hash))).unwrap_or_default(),
            namespace: self.text(&metadata.namespace),
            name: short(&metadata.name).into(),
            service: metadata.labels.get(SERVICE).map(|name| self.text(name)).unwrap_or_default(),
            workloads: self.workloads(workloads),
            owners_told: false,
            containers,
            ids,
        }
    }

    fn workloads(&mut self, owners: Vec<(String, String)>) -> Vec<Workload> {
        owners.iter().map(|(kind, name)| Workload { kind: self.text(kind), name: self.text(name) }).collect()
    }

    fn text(&mut self, text: &str) -> Str {
        self.strings.get(short(text))
    }

    /// Says whether anything is new.
    fn put(&mut self, mut pod: Pod) -> bool {
        let known = self.by_uid.get(&pod.uid).map(|entry| &entry.pod);
        if let Some(known) = known {
            // Ids of before, as long as there is room: samples of them may still come.
            let same = |index: u16| {
                let name = &known.containers.get(usize::from(index))?.name;
                pod.containers.iter().position(|c| c.name == *name).and_then(|index| u16::try_from(index).ok())
            };
            let before = known.ids.iter().filter(|(id, _)| pod.ids.iter().all(|(new, _)| new != id));
            let before: Vec<_> = before.filter_map(|(id, index)| Some((id.clone(), same(*index)?))).collect();
            pod.ids.extend(before);
            if pod.workloads.len() < known.workloads.len() {
                pod.workloads.clone_from(&known.workloads);
            }
            pod.owners_told |= known.owners_told;
        }
        pod.ids.truncate(MAX_IDS);
        pod.ids.shrink_to_fit();
        if known.is_some_and(|known| **known == pod) {
            return false;
        }
        let uid = pod.uid.clone();
        let gone = self.by_uid.get(&uid).and_then(|entry| entry.gone);
        self.forget(&uid);
        for (id, _) in &pod.ids {
            self.by_container.insert(id.clone(), uid.clone());
        }
        if !pod.hash.is_empty() {
            self.by_hash.insert(pod.hash.clone(), uid.clone());
        }
        self.by_uid.insert(uid, Entry { pod: pod.into(), gone });
        true
    }

    /// Forgets the pod that is gone for longest.
    fn forget_gone(&mut self) -> bool {
        let gone = self.by_uid.values().filter_map(|entry| Some((entry.gone?, entry.pod.uid.clone())));
        let Some((_, uid)) = gone.min_by_key(|(gone, _)| *gone) else { return false };
        self.forget(&uid);
        true
    }

    fn forget(&mut self, uid: &Str) {
        let Some(entry) = self.by_uid.remove(uid) else { return };
        for (id, _) in &entry.pod.ids {
            self.by_container.remove(id);
        }
        // A static pod that was made anew has the hash already.
        if self.by_hash.get(&entry.pod.hash) == Some(uid) {
            self.by_hash.remove(&entry.pod.hash);
        }
    }
}

fn short(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
#[path = "pods_tests.rs"]
mod tests;
