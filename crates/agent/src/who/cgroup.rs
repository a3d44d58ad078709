//! What the path of a control group says: container, pod, systemd unit. Nothing is asked of
//! anybody, so that it holds when all else is away. The layouts of the runtimes are told apart
//! by what their parts look like, not by where they stand: nodes in containers (kind, minikube)
//! and other roots of the kubelet change only what stands before.

use std::sync::Arc;

use everflame_profile::Str;
use rustc_hash::FxHashSet;

use super::own::own_cgroup;

/// Hexadecimal digits of a container id.
const ID_DIGITS: usize = 64;
/// Of a static pod's hash, which stands where the uid of others does.
const HASH_DIGITS: usize = 32;
/// Where hyphens are in a uid.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];
const UID_LENGTH: usize = 36;
/// Longest unit, slice or name that is kept, in bytes.
const MAX_NAME: usize = 255;

/// A control group by its path. What it does not say is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Cgroup {
    /// Id of the container, 64 hexadecimal digits: the pod's, else the innermost.
    pub container: Str,
    /// The pod's uid; of a static pod the hash of its manifest.
    pub pod: Str,
    /// The container's name, where the path has one: LXC, machines of systemd.
    pub name: Str,
    /// The innermost unit of systemd, inside of the container where there is one.
    pub unit: Str,
    /// The innermost slice of systemd, unless there is a container.
    pub slice: Str,
}

impl Cgroup {
    /// From `/proc/PID/cgroup`, any version: the line that says most.
    pub fn parse(text: &[u8]) -> Self {
        let lines = text.split(|b| *b == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
        let paths = lines.filter_map(|line| Some(Parts::of(line.splitn(3, ':').nth(2)?)));
        // Of equals the first: `max_by_key` keeps the last.
        let best = paths.fold(None, |best: Option<Parts<'_>>, parts| match best {
            Some(best) if best.worth() >= parts.worth() => Some(best),
            _ => Some(parts),
        });
        best.unwrap_or_default().into()
    }

    /// From a path of the version 2 hierarchy.
    pub fn of_path(path: &str) -> Self {
        Parts::of(path).into()
    }

    /// Whether a container or a pod is named.
    pub fn is_contained(&self) -> bool {
        !self.container.is_empty() || !self.pod.is_empty() || !self.name.is_empty()
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Parts<'a> {
    container: &'a str,
    pod: &'a str,
    name: &'a str,
    unit: &'a str,
    slice: &'a str,
}

impl<'a> Parts<'a> {
    fn of(path: &'a str) -> Self {
        let mut parts = Self::default();
        for element in path.split('/') {
            // `PARENT:PREFIX:ID` is what runc makes of a systemd path without systemd.
            for part in element.split(':') {
                parts.take(part);
            }
        }
        parts
    }

    fn take(&mut self, part: &'a str) {
        if let Some(uid) = pod_in(part) {
            // A pod inside of a container is another one's.
            *self = Self { pod: uid, ..Self::default() };
        } else if let Some(id) = container_in(part) {
            // Of what a pod's process runs in containers of its own, the pod's container tells more.
            let id = if self.pod.is_empty() || self.container.is_empty() { id } else { self.container };
            *self = Self { container: id, pod: self.pod, ..Self::default() };
        } else if let Some(name) = name_in(part) {
            *self = Self { name, ..Self::default() };
        } else if part.len() > MAX_NAME || is_monitor(part) {
            // What watches a container stands beside it, and is none of the pod's containers.
        } else if part.ends_with(".service") || part.ends_with(".scope") {
            self.unit = part;
        } else if part.ends_with(".slice") && self.container.is_empty() {
            self.slice = part;
        }
    }

    /// How much it says.
    fn worth(&self) -> u8 {
        let says = |text: &str, worth| if text.is_empty() { 0 } else { worth };
        says(self.container, 8) + says(self.pod, 4) + says(self.name, 4) + says(self.unit, 2) + says(self.slice, 1)
    }
}

impl From<Parts<'_>> for Cgroup {
    fn from(parts: Parts<'_>) -> Self {
        let pod = if parts.pod.contains('_') { parts.pod.replace('_', "-").into() } else { parts.pod.into() };
        let [container, name, unit, slice] = [parts.container, parts.name, parts.unit, parts.slice].map(Str::from);
        Self { container, pod, name, unit, slice }
    }
}

/// `ID`, `docker-ID.scope`, `cri-containerd-ID`, …
fn container_in(part: &str) -> Option<&str> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let start = part.len().checked_sub(ID_DIGITS)?;
    let (prefix, id) = (part.get(..start)?, part.get(start..)?);
    (is_hex(id) && (prefix.is_empty() || prefix.ends_with('-')) && !is_monitor(part)).then_some(id)
}

/// `podUID`, `kubepods-burstable-podUID.slice`, …
fn pod_in(part: &str) -> Option<&str> {
    let part = part.strip_suffix(".slice").unwrap_or(part);
    let at = part.rfind("pod")?;
    let (prefix, uid) = (part.get(..at)?, part.get(at + 3..)?);
    let bounded = prefix.is_empty() || prefix.ends_with('-');
    (bounded && (is_uid(uid) || (uid.len() == HASH_DIGITS && is_hex(uid)))).then_some(uid)
}

/// `lxc.payload.NAME`, `lxc/NAME` is not told apart from any directory; `machine-NAME.scope`.
fn name_in(part: &str) -> Option<&str> {
    let machine = || part.strip_prefix("machine-")?.strip_suffix(".scope");
    part.strip_prefix("lxc.payload.").or_else(machine).filter(|name| !name.is_empty() && name.len() <= MAX_NAME)
}

/// What watches a container: `crio-conmon-ID.scope`, `libpod-conmon-ID`.
fn is_monitor(part: &str) -> bool {
    part.contains("conmon-")
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// With hyphens, or underscores where systemd cannot have those.
fn is_uid(text: &str) -> bool {
    let right = |(at, b): (usize, u8)| match HYPHENS.contains(&at) {
        true => b == b'-' || b == b'_',
        false => b.is_ascii_hexdigit(),
    };
    text.len() == UID_LENGTH && text.bytes().enumerate().all(right)
}

/// Control groups that many processes share, once.
#[derive(Debug)]
pub struct Cgroups {
    all: FxHashSet<Arc<Cgroup>>,
    /// What looks like the root from here, unless it is the root.
    own: Option<Cgroup>,
}

impl Default for Cgroups {
    fn default() -> Self {
        Self { all: FxHashSet::default(), own: own_cgroup() }
    }
}

impl Cgroups {
    /// Of `/proc/PID/cgroup`.
    pub fn read(&mut self, text: &[u8]) -> Arc<Cgroup> {
        let own = self.own.as_ref().filter(|_| text.trim_ascii() == b"0::/");
        self.get(own.cloned().unwrap_or_else(|| Cgroup::parse(text)))
    }

    /// The shared form.
    pub fn get(&mut self, cgroup: Cgroup) -> Arc<Cgroup> {
        if let Some(known) = self.all.get(&cgroup) {
            return Arc::clone(known);
        }
        let new = Arc::new(cgroup);
        self.all.insert(Arc::clone(&new));
        new
    }

    /// Forgets those that nobody uses any more.
    pub fn sweep(&mut self) {
        self.all.retain(|cgroup| Arc::strong_count(cgroup) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9";
    const OUTER: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";
    const UID: &str = "2c48913c-b29f-11e7-9350-020968147796";
    const UID_: &str = "2c48913c_b29f_11e7_9350_020968147796";
    const HASH: &str = "dfe1e0d2b3c1a7f4d5e6f708192a3b4c";

    /// What is in /proc/PID/cgroup, and what is to be read in it: container, pod, unit, slice.
    /// `ID`, `OUTER`, `UID`, `UID_` and `HASH` stand for those above.
    const LAYOUTS: &[(&str, &str, [&str; 4])] = &[
        // Kubernetes, driver cgroupfs.
        ("v2 cgroupfs containerd burstable", "0::/kubepods/burstable/podUID/ID\n", ["ID", "UID", "", ""]),
        ("v2 cgroupfs containerd guaranteed", "0::/kubepods/podUID/ID\n", ["ID", "UID", "", ""]),
        ("v2 cgroupfs crio besteffort", "0::/kubepods/besteffort/podUID/crio-ID\n", ["ID", "UID", "", ""]),
        ("v2 cgroupfs crio monitor", "0::/kubepods/besteffort/podUID/crio-conmon-ID\n", ["", "UID", "", ""]),
        ("v2 cgroupfs static pod", "0::/kubepods/burstable/podHASH/ID\n", ["ID", "HASH", "", ""]),
        ("v2 the pod alone", "0::/kubepods/burstable/podUID\n", ["", "UID", "", ""]),
        // Driver systemd.
        (
            "v2 systemd containerd burstable",
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/cri-containerd-ID.scope\n",
            ["ID", "UID", "", ""],
        ),
        (
            "v2 systemd containerd guaranteed",
            "0::/kubepods.slice/kubepods-podUID_.slice/cri-containerd-ID.scope\n",
            ["ID", "UID", "", ""],
        ),
        (
            "v2 systemd static pod",
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podHASH.slice/cri-containerd-ID.scope\n",
            ["ID", "HASH", "", ""],
        ),
        (
            "v2 systemd crio",
            "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID_.slice/crio-ID.scope\n",
            ["ID", "UID", "", ""],
        ),
        (
            "v2 systemd crio with crun",
            "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID_.slice/crio-ID.scope/container\n",
            ["ID", "UID", "", ""],
        ),
        (
            "v2 systemd crio monitor",
            "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID_.slice/crio-conmon-ID.scope\n",
            ["", "UID", "", ""],
        ),
        (
            "v2 systemd cri-dockerd",
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/docker-ID.scope\n",
            ["ID", "UID", "", ""],
        ),
        (
            "v2 systemd path, runtime without systemd",
            "0::/system.slice/containerd.service/kubepods-burstable-podUID_.slice:cri-containerd:ID\n",
            ["ID", "UID", "", ""],
        ),
        (
            "v2 a root of the kubelet's own",
            "0::/node.slice/kubelet-kubepods.slice/kubelet-kubepods-podUID_.slice/cri-containerd-ID.scope\n",
            ["ID", "UID", "", ""],
        ),
        (
            "v2 systemd inside of a container",
            "0::/kubepods/podUID/ID/system.slice/cron.service\n",
            ["ID", "UID", "cron.service", ""],
        ),
        // From a control group namespace of our own: relative to where we are.
        ("v2 seen from a sibling pod", "0::/../../podUID/ID\n", ["ID", "UID", "", ""]),
        (
            "v2 seen from a sibling pod, systemd",
            "0::/../../kubepods-burstable-podUID_.slice/cri-containerd-ID.scope\n",
            ["ID", "UID", "", ""],
        ),
        ("v2 seen from the same pod", "0::/../cri-containerd-ID.scope\n", ["ID", "", "", ""]),
        ("v2 we ourselves", "0::/\n", ["", "", "", ""]),
        // Version 1: each controller has its line.
        (
            "v1 cgroupfs containerd",
            "12:pids:/kubepods/burstable/podUID/ID\n4:memory:/kubepods/burstable/podUID/ID\n\
             1:name=systemd:/kubepods/burstable/podUID/ID\n",
            ["ID", "UID", "", ""],
        ),
        (
            "v1 systemd docker",
            "11:cpuset:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/docker-ID.scope\n\
             1:name=systemd:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/docker-ID.scope\n",
            ["ID", "UID", "", ""],
        ),
        (
            "v1 systemd path, runtime without systemd",
            "11:memory:/system.slice/containerd.service/kubepods-burstable-podUID_.slice:cri-containerd:ID\n",
            ["ID", "UID", "", ""],
        ),
        // Hybrid: version 1 says it, version 2 need not.
        (
            "hybrid, said by one only",
            "7:pids:/kubepods/podUID/ID\n0::/system.slice/containerd.service\n",
            ["ID", "UID", "", ""],
        ),
        ("hybrid, said by both", "7:pids:/kubepods/podUID/ID\n0::/kubepods/podUID/ID\n", ["ID", "UID", "", ""]),
        ("hybrid, a controller left at the root", "9:rdma:/\n7:pids:/docker/ID\n0::/docker/ID\n", ["ID", "", "", ""]),
        // Nodes in containers.
        ("kind cgroupfs", "0::/docker/OUTER/kubelet/kubepods/burstable/podUID/ID\n", ["ID", "UID", "", ""]),
        (
            "kind systemd",
            "0::/system.slice/docker-OUTER.scope/kubelet.slice/kubelet-kubepods.slice/\
             kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-podUID_.slice/cri-containerd-ID.scope\n",
            ["ID", "UID", "", ""],
        ),
        ("kind's kubelet", "0::/docker/OUTER/kubelet.slice/kubelet.service\n", ["OUTER", "", "kubelet.service", ""]),
        ("minikube", "5:memory:/docker/OUTER/kubepods/besteffort/podUID/ID\n", ["ID", "UID", "", ""]),
        ("a container that a pod's process made", "0::/kubepods/podUID/OUTER/docker/ID\n", ["OUTER", "UID", "", ""]),
        // Without Kubernetes.
        ("docker cgroupfs", "0::/docker/ID\n", ["ID", "", "", ""]),
        ("docker systemd", "0::/system.slice/docker-ID.scope\n", ["ID", "", "", ""]),
        ("docker v1", "9:blkio:/docker/ID\n1:name=systemd:/docker/ID\n", ["ID", "", "", ""]),
        ("nerdctl", "0::/system.slice/nerdctl-ID.scope\n", ["ID", "", "", ""]),
        ("podman", "0::/machine.slice/libpod-ID.scope/container\n", ["ID", "", "", ""]),
        ("podman's monitor", "0::/machine.slice/libpod-conmon-ID.scope\n", ["", "", "", "machine.slice"]),
        (
            "podman of a user",
            "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container\n",
            ["ID", "", "", ""],
        ),
        ("podman cgroupfs", "0::/libpod_parent/libpod-ID\n", ["ID", "", "", ""]),
        ("a task of Amazon's ECS", "9:perf_event:/ecs/0123456789abcdef0123456789abcdef/ID\n", ["ID", "", "", ""]),
        // No container.
        ("a service", "0::/system.slice/nginx.service\n", ["", "", "nginx.service", "system.slice"]),
        (
            "a service hybrid",
            "5:pids:/system.slice/nginx.service\n1:name=systemd:/system.slice/nginx.service\n\
             0::/system.slice/nginx.service\n",
            ["", "", "nginx.service", "system.slice"],
        ),
        (
            "an instance of a service",
            "0::/system.slice/system-postgresql.slice/postgresql@15-main.service\n",
            ["", "", "postgresql@15-main.service", "system-postgresql.slice"],
        ),
        (
            "a user's program",
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-vim.scope\n",
            ["", "", "app-vim.scope", "app.slice"],
        ),
        ("a session", "0::/user.slice/user-0.slice/session-1.scope\n", ["", "", "session-1.scope", "user-0.slice"]),
        ("init", "0::/init.scope\n", ["", "", "init.scope", ""]),
        ("the root", "0::/\n", ["", "", "", ""]),
        // What only looks like it.
        ("a digit too many", "0::/docker/ID0\n", ["", "", "", ""]),
        ("digits of another kind", "0::/docker/x0ID\n", ["", "", "", ""]),
        ("a pod that is none", "0::/kubepods/pod1/ID\n", ["ID", "", "", ""]),
        ("a directory", "0::/tripodUID\n", ["", "", "", ""]),
        ("not a line", "\u{0}\n::\nabc\n", ["", "", "", ""]),
    ];

    fn filled(text: &str) -> String {
        let text = text.replace("OUTER", OUTER).replace("HASH", HASH).replace("UID_", UID_).replace("UID", UID);
        text.replace("ID", ID)
    }

    #[test]
    fn every_layout() {
        for (layout, text, [container, pod, unit, slice]) in LAYOUTS {
            let [container, pod, unit, slice] = [container, pod, unit, slice].map(|text| Str::from(filled(text)));
            let wanted = Cgroup { container, pod, unit, slice, ..Cgroup::default() };
            assert_eq!(Cgroup::parse(filled(text).as_bytes()), wanted, "{layout}: {}", filled(text));
        }
    }

    #[test]
    fn names_that_stand_in_paths() {
        for (path, name) in [
            ("/lxc.payload.web1/system.slice/nginx.service", "web1"),
            ("/machine.slice/machine-qemu\\x2d1\\x2dvm.scope", "qemu\\x2d1\\x2dvm"),
            ("/lxc.payload.", ""),
            ("/system.slice", ""),
        ] {
            assert_eq!(&*Cgroup::of_path(path).name, name, "{path}");
        }
    }

    #[test]
    fn hostile_paths_are_read_without_harm() {
        for text in
            ["0::", "0::/pod", "0::/podé", "0::/é".repeat(50).as_str(), &format!("0::/{}.slice", "x".repeat(300))]
        {
            assert_eq!(Cgroup::parse(text.as_bytes()), Cgroup::default(), "{text}");
        }
        let not_utf8 = [b"0::/\xff\n1::/docker/".as_slice(), ID.as_bytes()].concat();
        assert_eq!(&*Cgroup::parse(&not_utf8).container, ID);
    }

    #[test]
    fn equal_ones_are_shared_while_they_are_used() {
        let mut all = Cgroups::default();
        let path = format!("/docker/{ID}");
        let (one, two) = (all.get(Cgroup::of_path(&path)), all.get(Cgroup::of_path(&path)));
        assert!(Arc::ptr_eq(&one, &two));
        drop(one);
        all.sweep();
        assert_eq!(all.all.len(), 1);
        drop(two);
        all.sweep();
        assert!(all.all.is_empty());
    }
}
