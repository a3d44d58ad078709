//! Which pod we are in ourselves. From a control group namespace of its own a container sees
//! its group as the root, which names nobody; what the kubelet mounts into it does.

use std::fs;

use super::Cgroup;

/// The control group namespace of the host (PROC_CGROUP_INIT_INO of linux/proc_ns.h).
const INITIAL: &str = "cgroup:[4026531835]";

/// The group that looks like the root from here, unless it is the root.
pub fn own_cgroup() -> Option<Cgroup> {
    let namespace = fs::read_link("/proc/self/ns/cgroup").ok()?;
    if namespace.as_os_str() == INITIAL {
        return None;
    }
    mounted_by_kubelet(&fs::read_to_string("/proc/self/mountinfo").ok()?)
}

/// From the file for termination messages: `…/pods/UID/containers/NAME/… /dev/termination-log`.
fn mounted_by_kubelet(mounts: &str) -> Option<Cgroup> {
    mounts.lines().find_map(|line| {
        let root = line.split(' ').nth(3)?;
        let (_, rest) = root.rsplit_once("/pods/")?;
        let mut parts = rest.split('/');
        let (uid, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
        (kind == "containers").then(|| Cgroup { pod: uid.into(), name: name.into(), ..Cgroup::default() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelet_says_who_we_are() {
        let mounts = "\
            22 1 0:20 / / ro,relatime - overlay overlay rw\n\
            31 22 8:1 /var/lib/kubelet/pods/2c48913c-b29f-11e7-9350-020968147796/etc-hosts /etc/hosts rw - ext4 /dev/sda1 rw\n\
            32 22 8:1 /var/lib/kubelet/pods/2c48913c-b29f-11e7-9350-020968147796/containers/agent/0a1b2c3d /dev/termination-log rw - ext4 /dev/sda1 rw\n";
        let own = mounted_by_kubelet(mounts).unwrap();
        assert_eq!((&*own.pod, &*own.name), ("2c48913c-b29f-11e7-9350-020968147796", "agent"));
        assert_eq!(mounted_by_kubelet("22 1 0:20 / / ro - overlay overlay rw\n\n22"), None);
    }
}
