//! Security modules that confine this process, whatever its capabilities. The container
//! runtimes' default AppArmor profile, and SELinux's type of ordinary containers, forbid to read
//! other processes: the log at the start and `doctor` say so from here.

use std::fs;

use crate::rights::Rights;

/// A security module that may stand in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Module {
    /// Confines by profiles.
    AppArmor,
    /// Confines by types.
    SeLinux,
}

impl Module {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::AppArmor, Self::SeLinux];

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AppArmor => "AppArmor",
            Self::SeLinux => "SELinux",
        }
    }

    /// The profile or type of this process, where the module is in use and confines it.
    pub fn confines(self) -> Option<String> {
        match self {
            Self::AppArmor => profile(&fs::read_to_string("/proc/self/attr/apparmor/current").ok()?),
            Self::SeLinux => {
                // The file below is whichever module's that came first.
                let in_use = fs::read_to_string("/proc/filesystems").ok()?.contains("selinuxfs");
                type_of(&in_use.then(|| fs::read_to_string("/proc/self/attr/current").ok())??)
            }
        }
    }

    /// What to do where it forbids something.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::AppArmor => {
                "run it unconfined: `appArmorProfile: {type: Unconfined}` in the container's securityContext (before \
                 Kubernetes 1.30 the annotation container.apparmor.security.beta.kubernetes.io/CONTAINER: unconfined), \
                 or --security-opt apparmor=unconfined"
            }
            Self::SeLinux => {
                "give it the type spc_t: `seLinuxOptions: {type: spc_t}` in the container's securityContext, or \
                 --security-opt label=type:spc_t"
            }
        }
    }

    /// What it takes from us: by whom, and what is lost. Without CAP_SYS_PTRACE as much is lost anyway.
    pub fn forbids(self) -> Option<String> {
        let by = self.confines()?;
        (may_read_others() && !reads_others())
            .then(|| format!("{} ({by}) forbids to read other processes", self.name()))
    }
}

/// What is lost where other processes cannot be read.
pub const LOST: &str = "they have incomplete stacks and short names";

/// Says in the log what is lost, one line a module.
pub fn say_forbidden() {
    for module in Module::ALL {
        if let Some(forbidden) = module.forbids() {
            tracing::warn!("{forbidden}: {LOST}: {}", module.remedy());
        }
    }
}

/// By capabilities alone.
fn may_read_others() -> bool {
    !Rights::own().missing().any(|right| right.name == "CAP_SYS_PTRACE")
}

/// The first process is no container's, where we are in the host's namespace.
fn reads_others() -> bool {
    fs::read_link("/proc/1/exe").is_ok()
}

/// `NAME (MODE)` or `unconfined`. Of the modes only some forbid anything.
fn profile(current: &str) -> Option<String> {
    let current = current.trim_end_matches(['\n', '\0']);
    let free = current.is_empty() || current == "unconfined";
    (!free && !current.ends_with("(complain)") && !current.ends_with("(unconfined)")).then(|| current.to_owned())
}

/// The third part of `USER:ROLE:TYPE:LEVEL`. Before a policy is loaded there is one word.
fn type_of(current: &str) -> Option<String> {
    current.trim_end_matches(['\n', '\0']).split(':').nth(2).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_modules_say_of_a_process() {
        assert_eq!(profile("cri-containerd.apparmor.d (enforce)\n").unwrap(), "cri-containerd.apparmor.d (enforce)");
        for free in ["", "unconfined\n", "docker-default (complain)\n", "podman (unconfined)\n"] {
            assert_eq!(profile(free), None, "{free}");
        }
        assert_eq!(type_of("system_u:system_r:container_t:s0:c1,c2\0").unwrap(), "container_t");
        assert_eq!(type_of("kernel\0"), None);
    }
}
