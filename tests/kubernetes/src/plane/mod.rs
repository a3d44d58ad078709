//! The cluster: its programs in the order in which they need each other, and their end.

mod keys;
mod node;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use everflame_tests::{Skip, machine, machine::wait_for};
use tempfile::TempDir;

use crate::images::Image;
use crate::kubectl::Kubectl;
use crate::names::Names;
use crate::rooms::{API, NODE, Settings};
use crate::{cgroups, rooms};

/// Longest time for a program to be ready, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(120);
/// The only node.
pub const NODE_NAME: &str = "node-1";
const API_SERVER: &str = "kube-apiserver";
const SERVICES: &str = "10.96.0.0/16";

/// A running cluster of one node.
#[derive(Debug)]
pub struct Plane {
    // In the order in which they are ended.
    programs: Vec<(&'static str, Child)>,
    containerd: PathBuf,
    binaries: PathBuf,
    kubectl: Kubectl,
    _names: Names,
    _settings: Settings,
    folder: TempDir,
}

/// The folder of the programs, or why there is none.
pub fn binaries() -> Result<PathBuf, Skip> {
    machine::need_root()?;
    for program in ["unshare", "ip", "runc", "openssl", "tar"] {
        machine::need_program(program)?;
    }
    let script = machine::repository().join("scripts/kubernetes.sh");
    let output = machine::finish(Command::new(script).arg("find"));
    if !output.status.success() {
        return Err(Skip(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    if !cgroups::of_pods().is_empty() && runs("kubelet") {
        return Err(Skip("this machine is a Kubernetes node already".into()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().into())
}

impl Plane {
    /// Starts everything, in namespaces that are ours already.
    pub fn start(binaries: &Path) -> Self {
        assert!(rooms::inside(), "rooms::enter comes first");
        // A run that was killed may have left them.
        cgroups::remove();
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::remember();
        rooms::network();
        rooms::directories(folder.path());
        keys::make(folder.path());
        let kubectl =
            Kubectl { program: binaries.join("bin/kubectl"), kubeconfig: keys::kubeconfig(folder.path()), who: None };
        let mut plane = Self {
            programs: Vec::new(),
            containerd: folder.path().join("containerd.sock"),
            binaries: binaries.to_owned(),
            _names: Names::serve(Arc::new(kubectl.clone())),
            kubectl,
            _settings: settings,
            folder,
        };
        plane.control();
        plane.node();
        plane
    }

    /// An administrator's kubectl.
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// The folder of the programs.
    pub fn binaries(&self) -> &Path {
        &self.binaries
    }

    /// A folder that is gone with the cluster.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Hands an image to containerd.
    pub fn import(&self, image: &Image) {
        let archive = image.write(self.folder.path());
        machine::output(self.ctr().args(["images", "import"]).arg(&archive));
        std::fs::remove_file(archive).unwrap();
    }

    /// What a program of the cluster has logged.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default()
    }

    fn ctr(&self) -> Command {
        let mut command = Command::new(self.binaries.join("bin/ctr"));
        command.arg("--address").arg(&self.containerd).args(["--namespace", "k8s.io"]);
        command
    }

    /// Starts a program, which ends with us.
    fn run(&mut self, name: &'static str, arguments: &[String]) {
        let log = File::create(self.folder.path().join(format!("{name}.log"))).unwrap();
        let path = format!("{}:{}/bin", std::env::var("PATH").unwrap_or_default(), self.binaries.display());
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(self.binaries.join("bin").join(name))
            .args(arguments)
            .current_dir(self.folder.path())
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        self.programs.insert(0, (name, child));
    }

    /// Waits until `ask` has an answer; the program's log says why there is none.
    fn until<T>(&self, name: &str, what: &str, ask: impl FnMut() -> Option<T>) -> T {
        let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| wait_for(what, START_LIMIT, ask)));
        answer.unwrap_or_else(|_| {
            let log = self.log(name);
            let lines: Vec<&str> = log.lines().collect();
            panic!(
                "{name}: {what}: not within {START_LIMIT:?}:\n{}",
                lines[lines.len().saturating_sub(30)..].join("\n")
            )
        })
    }

    /// Ends the API server. All else runs on, as far as it can without.
    pub fn end_api_server(&mut self) {
        let at = self.programs.iter().position(|(name, _)| *name == API_SERVER).expect("it runs");
        let (_, mut child) = self.programs.remove(at);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn control(&mut self) {
        let [data, accounts, config, authority, folder] =
            ["etcd", "accounts.key", "kubeconfig", "ca.crt", ""].map(|name| self.at(name));
        self.run("etcd", &options(&[("data-dir", &data), ("log-level", "warn")]));
        self.start_api_server();
        let common =
            [("kubeconfig", config.as_str()), ("leader-elect", "false"), ("bind-address", "127.0.0.1"), ("port", "0")];
        let mut manager = common.to_vec();
        manager.extend([
            ("authentication-kubeconfig", config.as_str()),
            ("authorization-kubeconfig", &config),
            ("service-account-private-key-file", &accounts),
            ("root-ca-file", &authority),
            ("cert-dir", &folder),
            ("flex-volume-plugin-dir", &folder),
        ]);
        self.run("kube-controller-manager", &options(&manager));
        self.run("kube-scheduler", &options(&[&common[..], &[("cert-dir", &folder)]].concat()));
    }

    /// Starts the API server on what etcd has, and waits until it answers.
    pub fn start_api_server(&mut self) {
        let [tokens, certificate, key, accounts, folder] =
            ["tokens.csv", "api.crt", "api.key", "accounts.key", ""].map(|name| self.at(name));
        self.run(
            API_SERVER,
            &options(&[
                ("etcd-servers", "http://127.0.0.1:2379"),
                ("bind-address", "0.0.0.0"),
                ("secure-port", "443"),
                ("advertise-address", NODE),
                ("service-cluster-ip-range", SERVICES),
                ("token-auth-file", &tokens),
                ("authorization-mode", "Node,RBAC"),
                ("allow-privileged", "true"),
                ("service-account-issuer", "https://kubernetes.default.svc"),
                ("service-account-key-file", &accounts),
                ("service-account-signing-key-file", &accounts),
                ("tls-cert-file", &certificate),
                ("tls-private-key-file", &key),
                ("kubelet-preferred-address-types", "InternalIP"),
                ("cert-dir", &folder),
            ]),
        );
        let kubectl = self.kubectl.clone();
        self.until(API_SERVER, "the API server's /readyz", || {
            kubectl.try_run(&["get", "--raw", "/readyz"]).status.success().then_some(())
        });
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        if std::env::var_os("EVERFLAME_KEEP_LOGS").is_some() {
            let to = std::env::temp_dir().join("everflame-plane-logs");
            let _ = std::fs::create_dir_all(&to);
            for entry in std::fs::read_dir(self.folder.path()).unwrap().flatten() {
                if entry.path().extension().is_some_and(|e| e == "log") {
                    let _ = std::fs::copy(entry.path(), to.join(entry.file_name()));
                }
            }
        }
        for (_, child) in &mut self.programs {
            let _ = child.kill();
            let _ = child.wait();
        }
        // Containers and their shims are children of nobody: they are known by their groups,
        // and by the network, which is ours alone.
        cgroups::remove();
        for pid in of_our_network() {
            machine::signal(pid, "KILL");
        }
        wait_for("the end of all that the cluster ran", Duration::from_secs(30), || {
            of_our_network().is_empty().then_some(())
        });
        for mounted in mounts_below(self.folder.path()) {
            machine::finish(Command::new("umount").args(["-l", &mounted]));
        }
        for at in ["/var/lib", "/var/log", "/run"] {
            machine::finish(Command::new("umount").args(["-l", at]));
        }
    }
}

/// `--NAME=VALUE` of each pair.
fn options(pairs: &[(&str, &str)]) -> Vec<String> {
    pairs.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

/// Processes in our network, but for ourselves.
fn of_our_network() -> Vec<u32> {
    let network = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let (ours, me) = (network("self"), std::process::id());
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != me && network(&pid.to_string()) == ours).collect()
}

fn mounts_below(folder: &Path) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1).map(str::to_owned));
    let mut below: Vec<String> = points.filter(|at| Path::new(at).starts_with(folder)).collect();
    below.reverse();
    below
}

fn runs(name: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .into_iter()
        .any(|entry| std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm.trim() == name))
}

/// The API server's address.
pub fn api_url() -> String {
    format!("https://{API}:443")
}
