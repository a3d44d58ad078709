//! The capabilities that the agent uses: what each is for and what is lost without it. The
//! log at the start, `doctor` and docs/security.md all say it from here (a test compares).

use std::fs;

/// A capability that is used.
#[derive(Debug, PartialEq, Eq)]
pub struct Right {
    /// Its number in linux/capability.h.
    number: u32,
    /// Its name.
    pub name: &'static str,
    /// Others that the kernel takes in its place, as bits.
    instead: u64,
    /// What it is used for.
    pub purpose: &'static str,
    /// What is lost without it.
    pub without: &'static str,
    /// Whether nothing works without it.
    pub needed: bool,
}

const DAC_OVERRIDE: u64 = 1 << 1;
const SYS_ADMIN: u64 = 1 << 21;

/// The highest level of kernel.perf_event_paranoid that the kernel itself knows.
const MOST_PARANOID: i32 = 2;
/// What to do above it.
pub const PARANOID_REMEDY: &str = "set it to 2 on this machine (sysctl -w kernel.perf_event_paranoid=2, and the same in \
                                   /etc/sysctl.d), or give CAP_SYS_ADMIN: above 2 the kernels of Debian and Ubuntu do not \
                                   take CAP_PERFMON for it";

/// Every capability that is used.
pub const RIGHTS: [Right; 6] = [
    Right {
        number: 39,
        name: "CAP_BPF",
        instead: SYS_ADMIN,
        purpose: "loads the kernel programs and makes their maps",
        without: "nothing can be sampled",
        needed: true,
    },
    Right {
        number: 38,
        name: "CAP_PERFMON",
        instead: SYS_ADMIN,
        purpose: "opens the clocks of all CPUs and the news of all processes",
        without: "nothing can be sampled",
        needed: true,
    },
    Right {
        number: 19,
        name: "CAP_SYS_PTRACE",
        instead: 0,
        purpose: "reads which files a process of another user or container has mapped",
        without: "processes of others that ran before or are in containers have incomplete stacks and short names",
        needed: false,
    },
    Right {
        number: 2,
        name: "CAP_DAC_READ_SEARCH",
        instead: DAC_OVERRIDE,
        purpose: "opens executables that only their owner may read",
        without: "executables that only their owner may read have no unwind tables and no symbols",
        needed: false,
    },
    Right {
        number: 34,
        name: "CAP_SYSLOG",
        instead: 0,
        purpose: "reads the addresses in /proc/kallsyms",
        without: "kernel frames stay addresses, unless kernel.kptr_restrict is 0 and kernel.perf_event_paranoid 1 or less",
        needed: false,
    },
    Right {
        number: 40,
        name: "CAP_CHECKPOINT_RESTORE",
        instead: SYS_ADMIN,
        purpose: "opens mapped files that were deleted or replaced, as by an upgrade",
        without: "libraries that were deleted or replaced since they were mapped have no unwind tables and no symbols",
        needed: false,
    },
];

/// A set of capabilities.
#[derive(Debug, Clone, Copy)]
pub struct Rights(u64);

impl Rights {
    /// Those that are in force for this process.
    pub fn own() -> Self {
        Self(effective_in(&fs::read_to_string("/proc/self/status").unwrap_or_default()))
    }

    /// Whether it has what `right` is used for.
    pub fn has(self, right: &Right) -> bool {
        self.0 & (1 << right.number | right.instead) != 0
    }

    /// What it lacks.
    pub fn missing(self) -> impl Iterator<Item = &'static Right> {
        RIGHTS.iter().filter(move |right| !self.has(right))
    }

    /// The level of kernel.perf_event_paranoid, where it is one of those that Debian's and Ubuntu's
    /// kernels have above the usual ones: there CAP_PERFMON is not enough.
    pub fn too_paranoid(self) -> Option<i32> {
        let level = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").ok()?;
        self.lacks_admin_at(level.trim().parse().ok()?)
    }

    fn lacks_admin_at(self, level: i32) -> Option<i32> {
        (level > MOST_PARANOID && self.0 & SYS_ADMIN == 0).then_some(level)
    }

    /// The names of what nothing works without and that it lacks.
    pub fn needed_and_missing(self) -> Option<String> {
        let names: Vec<&str> = self.missing().filter(|right| right.needed).map(|right| right.name).collect();
        (!names.is_empty()).then(|| names.join(" and "))
    }

    /// Says in the log what is lost, one line a capability.
    pub fn say_missing(self) {
        // Whether the kernel's symbols can be read depends on more than CAP_SYSLOG: who reads
        // them says it.
        for right in self.missing().filter(|right| !right.needed && right.name != "CAP_SYSLOG") {
            tracing::warn!("without {} {}: give it to this process, or run as root", right.name, right.without);
        }
    }
}

fn effective_in(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing() {
        let all = Rights(effective_in("Name:\tx\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n"));
        assert_eq!(all.missing().count(), 0);
        assert_eq!(all.needed_and_missing(), None);
        let none = Rights(effective_in("CapEff:\t0000000000000000\n"));
        assert_eq!(none.missing().count(), RIGHTS.len());
        assert_eq!(none.needed_and_missing().unwrap(), "CAP_BPF and CAP_PERFMON");
        let admin = Rights(SYS_ADMIN);
        assert_eq!((admin.lacks_admin_at(3), none.lacks_admin_at(2), none.lacks_admin_at(3)), (None, None, Some(3)));
        assert_eq!(
            admin.missing().map(|right| right.name).collect::<Vec<_>>(),
            ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYSLOG"]
        );
    }

    /// The table that users read says the same.
    #[test]
    fn the_document_says_the_same() {
        let document = include_str!("../../../docs/security.md");
        for right in &RIGHTS {
            let row = format!("| `{}` | {} | {} |", right.name, right.purpose, right.without);
            assert!(document.contains(&row), "docs/security.md lacks the line\n{row}");
        }
    }
}
