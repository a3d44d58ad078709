//! What container runtimes keep on disk about their containers: names, and under Kubernetes the
//! pod too, known before the API server tells and when it cannot. No socket of a runtime is
//! asked: whoever may do that may do everything.
//!
//! | runtime | file |
//! |---|---|
//! | containerd (also k3s, MicroK8s) | `config.json` of the bundle: annotations of its CRI plugin |
//! | CRI-O | `config.json` of the bundle: annotations |
//! | Docker, cri-dockerd | `config.v2.json`: name, image, labels |
//! | podman | `containers.json` of the storage: names |

use std::{
    cell::RefCell,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use everflame_profile::Str;
use rustc_hash::FxHashMap;
use serde::{Deserialize, de::DeserializeOwned};

/// Containers that are remembered, at most; when there are more, all are looked up anew.
pub const MAX_CONTAINERS: usize = 4096;
/// Largest file that is read.
const MAX_FILE: u64 = 4 << 20;
/// Where containerds of several distributions keep bundles: a directory for each of their namespaces.
const CONTAINERD: [&str; 3] = [
    "run/containerd/io.containerd.runtime.v2.task",
    "run/k3s/containerd/io.containerd.runtime.v2.task",
    "var/snap/microk8s/common/run/containerd/io.containerd.runtime.v2.task",
];
/// Where CRI-O and podman keep bundles.
const STORAGE_RUN: &str = "run/containers/storage/overlay-containers";
/// Where podman keeps names.
const STORAGE: &str = "var/lib/containers/storage/overlay-containers/containers.json";
/// Where Docker keeps containers.
const DOCKER: &str = "var/lib/docker/containers";

/// What a runtime says of a container. What it does not say is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runtime {
    /// Its name: in its pod, where there is one, else to the runtime.
    pub name: Str,
    /// Its image, as it was asked for.
    pub image: Str,
    /// The pod that it is in.
    pub pod: Option<PodName>,
    /// Whether it only holds a pod's namespaces.
    pub is_sandbox: bool,
}

/// A pod as a runtime knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodName {
    /// Its namespace.
    pub namespace: Str,
    /// Its name.
    pub name: Str,
    /// Its uid.
    pub uid: Str,
}

/// Looks containers up, each once.
#[derive(Debug)]
pub struct Runtimes {
    /// The host's root directory; none to look nowhere.
    root: Option<PathBuf>,
    known: RefCell<FxHashMap<Str, Option<Arc<Runtime>>>>,
}

impl Default for Runtimes {
    /// Knows none.
    fn default() -> Self {
        Self { root: None, known: RefCell::default() }
    }
}

impl Runtimes {
    /// Those of this machine, which we see through its first process where we are in a container.
    pub fn of_host() -> Self {
        let namespace = |who: &str| fs::read_link(format!("/proc/{who}/ns/mnt")).ok();
        let inside = namespace("1").is_some_and(|host| Some(host) != namespace("self"));
        Self::under(Path::new(if inside { "/proc/1/root" } else { "/" }))
    }

    /// Those of a machine whose root directory is mounted there.
    pub fn under(root: &Path) -> Self {
        Self { root: Some(root.into()), known: RefCell::default() }
    }

    /// What the runtime says of a container.
    pub fn find(&self, id: &Str) -> Option<Arc<Runtime>> {
        let root = self.root.as_deref()?;
        let mut known = self.known.borrow_mut();
        if known.len() >= MAX_CONTAINERS {
            known.clear();
        }
        let entry = known.entry(Str::clone(id));
        entry.or_insert_with(|| look_up(root, id).map(Arc::new)).clone()
    }
}

fn look_up(root: &Path, id: &str) -> Option<Runtime> {
    // It becomes part of a path.
    if !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let bundles = CONTAINERD.iter().flat_map(|tasks| fs::read_dir(root.join(tasks)).into_iter().flatten().flatten());
    let bundles = bundles.map(|namespace| namespace.path().join(id).join("config.json"));
    let bundles = bundles.chain([root.join(STORAGE_RUN).join(id).join("userdata/config.json")]);
    let of_bundle = |path: PathBuf| Runtime::of_annotations(&read::<Bundle>(&path)?.annotations);
    let of_docker = || Some(Runtime::of_docker(read(&root.join(DOCKER).join(id).join("config.v2.json"))?));
    let of_podman = || {
        let all: Vec<Stored> = read(&root.join(STORAGE))?;
        let name = all.into_iter().find(|stored| stored.id == id)?.names.into_iter().next()?;
        Some(Runtime { name: name.into(), ..Runtime::default() })
    };
    bundles.filter_map(of_bundle).next().or_else(of_docker).or_else(of_podman)
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(MAX_FILE).read_to_end(&mut text).ok()?;
    let parsed = serde_json::from_slice(&text);
    parsed.inspect_err(|e| tracing::debug!("what a container runtime says in {}: {e}", path.display())).ok()
}

/// An OCI runtime's configuration.
#[derive(Deserialize)]
struct Bundle {
    #[serde(default)]
    annotations: FxHashMap<String, String>,
}

/// Docker's.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Docker {
    #[serde(default)]
    name: String,
    #[serde(default)]
    config: DockerConfig,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DockerConfig {
    image: String,
    labels: Option<FxHashMap<String, String>>,
}

/// One of podman's list.
#[derive(Deserialize)]
struct Stored {
    id: String,
    #[serde(default)]
    names: Vec<String>,
}

impl Runtime {
    /// What the CRI plugins of containerd and CRI-O write into a container's configuration.
    fn of_annotations(said: &FxHashMap<String, String>) -> Option<Self> {
        let get = |name: &str| said.get(name).map(|value| Str::from(value.as_str()));
        let or_none = |name: &str| get(name).unwrap_or_default();
        if let Some(kind) = get("io.kubernetes.cri.container-type") {
            let pod = PodName {
                namespace: or_none("io.kubernetes.cri.sandbox-namespace"),
                name: or_none("io.kubernetes.cri.sandbox-name"),
                uid: or_none("io.kubernetes.cri.sandbox-uid"),
            };
            let (name, image) = (or_none("io.kubernetes.cri.container-name"), or_none("io.kubernetes.cri.image-name"));
            return Some(Self { name, image, pod: Some(pod), is_sandbox: &*kind == "sandbox" });
        }
        let kind = get("io.kubernetes.cri-o.ContainerType")?;
        let is_sandbox = &*kind == "sandbox";
        let name = if is_sandbox { Str::default() } else { or_none("io.kubernetes.container.name") };
        let image = or_none("io.kubernetes.cri-o.ImageName");
        Some(Self { name, image, pod: PodName::of_labels(said), is_sandbox })
    }

    fn of_docker(said: Docker) -> Self {
        let labels = said.config.labels.unwrap_or_default();
        let image = Str::from(said.config.image);
        let Some(pod) = PodName::of_labels(&labels) else {
            let name = said.name.strip_prefix('/').unwrap_or(&said.name);
            return Self { name: name.into(), image, ..Self::default() };
        };
        let is_sandbox = labels.get("io.kubernetes.docker.type").is_some_and(|kind| kind == "podsandbox");
        let name = labels.get("io.kubernetes.container.name").filter(|_| !is_sandbox);
        Self { name: name.map(String::as_str).unwrap_or_default().into(), image, pod: Some(pod), is_sandbox }
    }
}

impl PodName {
    /// By the labels that the kubelet gives to containers.
    fn of_labels(labels: &FxHashMap<String, String>) -> Option<Self> {
        let get = |name: &str| labels.get(name).map(|value| Str::from(value.as_str()));
        Some(Self {
            namespace: get("io.kubernetes.pod.namespace")?,
            name: get("io.kubernetes.pod.name")?,
            uid: get("io.kubernetes.pod.uid").unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> Str {
        String::from(digit).repeat(64).into()
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn pod(namespace: &str, name: &str, uid: &str) -> Option<PodName> {
        Some(PodName { namespace: namespace.into(), name: name.into(), uid: uid.into() })
    }

    #[test]
    fn every_runtime_is_understood() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let bundle =
            |annotations: &str| format!(r#"{{"ociVersion":"1.0.2","annotations":{{{annotations}}},"root":{{}}}}"#);
        let tasks = CONTAINERD[0];
        let cri = r#""io.kubernetes.cri.sandbox-namespace":"shop","io.kubernetes.cri.sandbox-name":"cart-1","io.kubernetes.cri.sandbox-uid":"u1""#;
        write(
            root,
            &format!("{tasks}/k8s.io/{}/config.json", id('1')),
            &bundle(&format!(
                r#""io.kubernetes.cri.container-type":"container","io.kubernetes.cri.container-name":"app","io.kubernetes.cri.image-name":"shop/cart:v1",{cri}"#
            )),
        );
        write(
            root,
            &format!("{tasks}/k8s.io/{}/config.json", id('2')),
            &bundle(&format!(r#""io.kubernetes.cri.container-type":"sandbox",{cri}"#)),
        );
        let kubelet = r#""io.kubernetes.pod.namespace":"shop","io.kubernetes.pod.name":"cart-2","io.kubernetes.pod.uid":"u2","io.kubernetes.container.name":"app""#;
        write(
            root,
            &format!("{STORAGE_RUN}/{}/userdata/config.json", id('3')),
            &bundle(&format!(
                r#"{kubelet},"io.kubernetes.cri-o.ContainerType":"container","io.kubernetes.cri-o.ImageName":"shop/cart:v2""#
            )),
        );
        write(
            root,
            &format!("{DOCKER}/{}/config.v2.json", id('4')),
            r#"{"Name":"/web","Config":{"Image":"nginx:1","Labels":null}}"#,
        );
        write(
            root,
            &format!("{DOCKER}/{}/config.v2.json", id('5')),
            &format!(
                r#"{{"Name":"/k8s_app_cart-2_shop","Config":{{"Image":"sha256:00","Labels":{{{kubelet},"io.kubernetes.docker.type":"container"}}}}}}"#
            ),
        );
        // Podman's bundle says nothing of names; its storage does.
        write(root, &format!("{STORAGE_RUN}/{}/userdata/config.json", id('6')), &bundle(""));
        write(
            root,
            STORAGE,
            &format!(
                r#"[{{"id":"{}","names":["web"],"metadata":"{{}}"}},{{"id":"{}","names":["db"]}}]"#,
                id('9'),
                id('6')
            ),
        );
        write(root, &format!("{tasks}/k8s.io/{}/config.json", id('7')), "{\"annotations\":");
        let runtimes = Runtimes::under(root);
        let find = |digit| runtimes.find(&id(digit)).map(|found| Runtime::clone(&found));
        let container = |name: &str, image: &str, pod| {
            Some(Runtime { name: name.into(), image: image.into(), pod, is_sandbox: false })
        };
        assert_eq!(find('1'), container("app", "shop/cart:v1", pod("shop", "cart-1", "u1")));
        assert_eq!(find('2').map(|found| (found.is_sandbox, found.pod)), Some((true, pod("shop", "cart-1", "u1"))));
        assert_eq!(find('3'), container("app", "shop/cart:v2", pod("shop", "cart-2", "u2")));
        assert_eq!(find('4'), container("web", "nginx:1", None));
        assert_eq!(find('5'), container("app", "sha256:00", pod("shop", "cart-2", "u2")));
        assert_eq!(find('6'), container("db", "", None));
        assert_eq!((find('7'), find('8')), (None, None), "broken, and not there");
        assert_eq!(runtimes.find(&"../../etc".into()), None);
        fs::remove_dir_all(root.join(DOCKER)).unwrap();
        assert_eq!(find('4'), container("web", "nginx:1", None), "it was asked once");
    }

    #[test]
    fn containers_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let runtimes = Runtimes::under(folder.path());
        for number in 0..MAX_CONTAINERS + 5 {
            runtimes.find(&format!("{number:064x}").into());
        }
        assert_eq!(runtimes.known.borrow().len(), 5);
        assert_eq!(Runtimes::default().find(&id('1')), None);
    }
}
