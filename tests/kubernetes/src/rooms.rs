//! The namespaces in which the cluster lives: a network and a view of the file system of its
//! own. Whatever it mounts and whichever address it takes is gone with its last process.

use std::path::Path;
use std::process::{Command, ExitCode};

use everflame_tests::machine;

/// Says to a copy of ourselves that it is inside.
const INSIDE: &str = "EVERFLAME_ROOM";
/// The node's address.
pub const NODE: &str = "10.99.0.1";
/// Where the API server is found from inside of pods.
pub const API: &str = "10.96.0.1";
/// Where names are asked for from inside of pods.
pub const DNS: &str = "10.96.0.10";

/// Whether this process is in namespaces of its own.
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs this program again in namespaces of its own, and says how that ended.
pub fn enter() -> ExitCode {
    let program = std::env::current_exe().unwrap();
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private"])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .status()
        .unwrap_or_else(|error| panic!("unshare: {error}"));
    ExitCode::from(u8::try_from(status.code().unwrap_or(101)).unwrap_or(101))
}

/// Makes the network: the node's address on a link of its own, and those that a cluster's
/// proxy would direct elsewhere on the loopback link.
pub fn network() {
    let ip = |arguments: &str| machine::output(Command::new("ip").args(arguments.split(' ')));
    ip("link set lo up");
    ip("link add node0 type veth peer name node1");
    ip(&format!("address add {NODE}/24 dev node0"));
    ip("link set node0 up");
    ip("link set node1 up");
    ip(&format!("route add default via {NODE} dev node0"));
    for address in [API, DNS] {
        ip(&format!("address add {address}/32 dev lo"));
    }
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
}

/// Makes the directories that Kubernetes insists on ours: nothing is written to the machine's.
pub fn directories(folder: &Path) {
    let mount = |arguments: &[&str]| machine::output(Command::new("mount").args(arguments));
    mount(&["-t", "tmpfs", "tmpfs", "/run"]);
    for (at, name) in [("/var/lib", "lib"), ("/var/log", "log")] {
        let [upper, work] = ["upper", "work"].map(|kind| folder.join(format!("{name}-{kind}")));
        for directory in [&upper, &work] {
            std::fs::create_dir_all(directory).unwrap();
        }
        let options = format!("lowerdir={at},upperdir={},workdir={}", upper.display(), work.display());
        mount(&["-t", "overlay", "-o", &options, "overlay", at]);
    }
}

/// What the kubelet changes on its machine.
const CHANGED: [&str; 5] = [
    "vm/overcommit_memory",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// Values that are put back when this is dropped.
#[derive(Debug)]
pub struct Settings(Vec<(String, String)>);

impl Settings {
    /// Remembers them.
    pub fn remember() -> Self {
        let paths = CHANGED.iter().map(|name| format!("/proc/sys/{name}"));
        Self(paths.filter_map(|path| Some((path.clone(), std::fs::read_to_string(path).ok()?))).collect())
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        for (path, value) in &self.0 {
            if std::fs::read_to_string(path).is_ok_and(|now| now != *value) {
                let _ = std::fs::write(path, value);
            }
        }
    }
}
