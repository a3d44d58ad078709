//! A container as the runtimes make it, by runc alone: a root file system that is read-only
//! and holds nothing but the program (or what is in its image), the runtimes' default seccomp
//! profile, no new privileges, the capabilities that are said, and of the host what is said.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::everflame::binary;
use crate::image::Image;
use crate::machine;

/// All that the agent uses.
pub const CAPABILITIES: [&str; 6] =
    ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYSLOG", "CAP_CHECKPOINT_RESTORE"];
/// The system calls that the default profile allows to these capabilities.
const SECCOMP: &str = include_str!("../seccomp-default.json");
/// What the runtimes hide of /proc and /sys, and what they make read-only.
const MASKED: [&str; 8] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What network a container is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network<'a> {
    /// One of its own, where nobody else is.
    Own,
    Host,
    /// One that `ip netns` knows.
    Named(&'a str),
}

/// What a container is given beside that.
#[derive(Debug, Clone, Copy)]
pub struct Container<'a> {
    /// Its files; none for the program alone.
    pub image: Option<&'a Image>,
    /// The user in it. One who is not root has the capabilities in the ambient set.
    pub user: u32,
    pub capabilities: &'a [&'a str],
    /// Whether it sees the host's processes.
    pub host_processes: bool,
    pub network: Network<'a>,
    /// Directories and files of the host: where, and what.
    pub mounts: &'a [(&'a str, &'a Path)],
}

impl Default for Container<'_> {
    /// What the agent is given, as root.
    fn default() -> Self {
        Self {
            image: None,
            user: 0,
            capabilities: &CAPABILITIES,
            host_processes: true,
            network: Network::Own,
            mounts: &[],
        }
    }
}

/// A container that can be run.
#[derive(Debug)]
pub struct Bundle(TempDir);

impl Container<'_> {
    /// Puts the program and a configuration that runs it into a bundle.
    pub fn bundle(&self, arguments: &[&str]) -> Bundle {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("rootfs");
        std::fs::create_dir(&root).unwrap();
        match self.image {
            Some(image) => image.unpack(&root),
            None => drop(std::fs::copy(binary(), root.join("everflame")).unwrap()),
        }
        // What a runtime makes to mount upon.
        for name in ["proc", "sys", "dev"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        for (inside, outside) in self.mounts.iter().filter(|(inside, _)| !inside.starts_with("/sys/")) {
            let at = root.join(inside.trim_start_matches('/'));
            if outside.is_dir() {
                std::fs::create_dir_all(at).unwrap();
            } else if !at.try_exists().unwrap() {
                std::fs::create_dir_all(at.parent().unwrap()).unwrap();
                std::fs::File::create(at).unwrap();
            }
        }
        let path = folder.path().join("config.json");
        std::fs::write(path, self.configuration(arguments).to_string()).unwrap();
        Bundle(folder)
    }

    /// What a runtime is told, with the program at `/everflame` of `rootfs`.
    pub fn configuration(&self, arguments: &[&str]) -> Value {
        let sets: &[&str] = match self.user {
            0 => &["bounding", "effective", "permitted"],
            _ => &["bounding", "effective", "permitted", "inheritable", "ambient"],
        };
        let capabilities: Value = sets.iter().map(|set| (set.to_string(), json!(self.capabilities))).collect();
        let mount = |to: &str, kind: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": kind, "options": options});
        let mut mounts = vec![
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "mode=755", "size=64k"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ];
        for (inside, outside) in self.mounts {
            mounts.push(json!({"destination": inside, "type": "bind", "source": outside, "options": ["rbind", "rw"]}));
        }
        let mut namespaces: Vec<Value> = ["mount", "ipc", "uts"].map(|kind| json!({"type": kind})).into();
        if !self.host_processes {
            namespaces.push(json!({"type": "pid"}));
        }
        match self.network {
            Network::Own => namespaces.push(json!({"type": "network"})),
            Network::Host => {}
            Network::Named(name) => namespaces.push(json!({"type": "network", "path": format!("/run/netns/{name}")})),
        }
        let arguments: Vec<&str> = std::iter::once("/everflame").chain(arguments.iter().copied()).collect();
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": self.user, "gid": self.user}, "args": arguments, "cwd": "/",
                "capabilities": capabilities, "noNewPrivileges": true,
            },
            "root": {"path": "rootfs", "readonly": true},
            "mounts": mounts,
            "linux": {
                "namespaces": namespaces, "maskedPaths": MASKED, "readonlyPaths": READ_ONLY,
                "seccomp": serde_json::from_str::<Value>(SECCOMP).unwrap(),
            },
        })
    }
}

impl Bundle {
    /// Runs it; runc hands signals on.
    pub fn command(&self) -> Command {
        let mut command = Command::new("runc");
        let name = self.0.path().file_name().unwrap().to_string_lossy().trim_start_matches('.').to_owned();
        command.arg("--root").arg(self.0.path().join("state")).arg("run").arg("--bundle").arg(self.0.path()).arg(name);
        command
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let name = self.0.path().file_name().unwrap().to_string_lossy().trim_start_matches('.').to_owned();
        let mut delete = Command::new("runc");
        delete.arg("--root").arg(self.0.path().join("state")).args(["delete", "--force", &name]);
        machine::finish(&mut delete);
    }
}
