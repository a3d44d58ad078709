//! Where a process runs, as attributes: what control group, node's pods and container runtime
//! say, put together.

use std::{cell::RefCell, sync::Arc};

use everflame_profile::Str;
use rustc_hash::FxHashMap;

use super::{
    Cgroup, Runtimes,
    kubernetes::{Found, Pods, Workload},
    runtime::Runtime,
};

/// Locations that are kept, at most; when there are more, all are put together anew.
pub const MAX_LOCATIONS: usize = 4096;

/// Where a process runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Location {
    /// OpenTelemetry attributes.
    pub attributes: Vec<(Str, Str)>,
    /// The service that runs there, where its processes name none; may be empty.
    pub service: Str,
    /// More is expected to be known in a moment.
    pub awaited: bool,
    /// Nobody told, or not yet, all of its pod or container: what is missing may be there.
    pub untold: bool,
    /// The same of the pod's owners.
    pub owners_untold: bool,
}

/// Knows locations.
#[derive(Debug, Default)]
pub struct Who {
    node: Option<Str>,
    pods: Option<Arc<Pods>>,
    runtimes: Runtimes,
    locations: RefCell<Locations>,
}

#[derive(Debug, Default)]
struct Locations {
    /// The state of the pods that they were made of.
    revision: u64,
    by_cgroup: FxHashMap<Cgroup, Arc<Location>>,
}

impl Who {
    /// On a node of Kubernetes, whose name it has there; and where containers' names may be
    /// found on disk.
    pub fn new(kubernetes: Option<(&str, Arc<Pods>)>, runtimes: Runtimes) -> Self {
        let (node, pods) = kubernetes.map(|(node, pods)| (Str::from(node), pods)).unzip();
        Self { node, pods, runtimes, locations: RefCell::default() }
    }

    /// What is known now of where the processes of a control group run.
    pub fn location(&self, cgroup: &Cgroup) -> Arc<Location> {
        let revision = self.pods.as_ref().map_or(0, |pods| pods.revision());
        let mut locations = self.locations.borrow_mut();
        if locations.revision != revision || locations.by_cgroup.len() >= MAX_LOCATIONS {
            *locations = Locations { revision, by_cgroup: FxHashMap::default() };
        }
        if let Some(location) = locations.by_cgroup.get(cgroup) {
            return Arc::clone(location);
        }
        let location = Arc::new(self.find(cgroup));
        locations.by_cgroup.insert(cgroup.clone(), Arc::clone(&location));
        location
    }

    fn find(&self, cgroup: &Cgroup) -> Location {
        let mut location = Location::default();
        if let Some(node) = &self.node {
            location.say("k8s.node.name", node);
        }
        location.say("container.id", &cgroup.container);
        location.say("systemd.unit", &cgroup.unit);
        location.say("systemd.slice", &cgroup.slice);
        let runtime = if cgroup.container.is_empty() { None } else { self.runtimes.find(&cgroup.container) };
        let found = self.pods.as_ref().and_then(|pods| pods.find(cgroup));
        location.untold = match &found {
            Some(found) => {
                let none = cgroup.container.is_empty() || runtime.as_ref().is_some_and(|r| r.is_sandbox);
                found.container.is_none() && !none
            }
            None => !cgroup.pod.is_empty() || (!cgroup.container.is_empty() && runtime.is_none()),
        };
        location.awaited = self.pods.is_some() && !cgroup.pod.is_empty() && location.untold;
        location.owners_untold = location.untold || found.as_ref().is_some_and(|found| !found.pod.owners_told);
        if cgroup.pod.is_empty() {
            location.say("container.name", &cgroup.name);
            location.service = Str::clone(&cgroup.name);
        }
        // What the API server does not know, not any more or not yet, the runtime may.
        if let Some(runtime) = &runtime {
            location.take_runtime(runtime);
        }
        match &found {
            Some(found) => location.take_pod(found, cgroup),
            None => location.say("k8s.pod.uid", &cgroup.pod),
        }
        if location.service.is_empty()
            && let Some(service) = cgroup.unit.strip_suffix(".service")
        {
            location.service = service.into();
        }
        location
    }
}

impl Location {
    /// Adds an attribute, unless it is empty. What is said later counts.
    fn say(&mut self, name: &str, value: &Str) {
        if !value.is_empty() {
            self.attributes.push((name.into(), Str::clone(value)));
        }
    }

    fn take_runtime(&mut self, runtime: &Runtime) {
        self.say_image(&runtime.image);
        let Some(pod) = &runtime.pod else {
            self.say("container.name", &runtime.name);
            self.service = Str::clone(&runtime.name);
            return;
        };
        self.say("k8s.namespace.name", &pod.namespace);
        self.say("k8s.pod.name", &pod.name);
        self.say("k8s.pod.uid", &pod.uid);
        self.say("k8s.container.name", &runtime.name);
    }

    fn take_pod(&mut self, found: &Found, cgroup: &Cgroup) {
        let pod = &found.pod;
        self.say("k8s.namespace.name", &pod.namespace);
        self.say("k8s.pod.name", &pod.name);
        self.say("k8s.pod.uid", &pod.uid);
        for (name, value) in &pod.labels {
            self.say(&format!("k8s.pod.label.{name}"), value);
        }
        for Workload { kind, name } in &pod.workloads {
            match attribute(kind) {
                Some(attribute) => self.say(attribute, name),
                None => {
                    self.say("k8s.workload.kind", kind);
                    self.say("k8s.workload.name", name);
                }
            }
        }
        if let Some(container) = &found.container {
            self.say("k8s.container.name", &container.name);
            self.say_image(&container.image);
        } else {
            self.say("k8s.container.name", &cgroup.name);
        }
        let workload = pod.workloads.last().map(|workload| &workload.name);
        self.service = match (pod.service.is_empty(), workload) {
            (true, Some(name)) => Str::clone(name),
            _ => Str::clone(&pod.service),
        };
    }

    fn say_image(&mut self, image: &Str) {
        let (name, tag) = image_parts(image);
        self.say("container.image.name", &name.into());
        self.say("container.image.tag", &tag.into());
    }
}

/// The attribute of owners of a known kind.
fn attribute(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "Deployment" => "k8s.deployment.name",
        "ReplicaSet" => "k8s.replicaset.name",
        "StatefulSet" => "k8s.statefulset.name",
        "DaemonSet" => "k8s.daemonset.name",
        "Job" => "k8s.job.name",
        "CronJob" => "k8s.cronjob.name",
        "ReplicationController" => "k8s.replicationcontroller.name",
        _ => return None,
    })
}

/// Name and tag. A digest is neither.
fn image_parts(image: &str) -> (&str, &str) {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    match image.rsplit_once(':') {
        // Behind a colon there may be a port.
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_names_and_tags() {
        for (image, name, tag) in [
            ("docker.io/istio/proxyv2:1.28.0", "docker.io/istio/proxyv2", "1.28.0"),
            ("localhost:5000/shop/cart", "localhost:5000/shop/cart", ""),
            ("localhost:5000/cart:v1@sha256:00ff", "localhost:5000/cart", "v1"),
            ("busybox", "busybox", ""),
            ("", "", ""),
        ] {
            assert_eq!(image_parts(image), (name, tag));
        }
    }

    #[test]
    fn without_kubernetes_nobody_waits_and_the_unit_is_the_service() {
        let who = Who::default();
        let location = who.location(&Cgroup::of_path("/system.slice/nginx.service"));
        assert_eq!((location.awaited, &*location.service), (false, "nginx"));
        let said: Vec<_> = location.attributes.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(said, [("systemd.unit", "nginx.service"), ("systemd.slice", "system.slice")]);
        let pod = Cgroup::of_path("/kubepods/pod2c48913c-b29f-11e7-9350-020968147796");
        assert!(!who.location(&pod).awaited);
        assert!(who.location(&pod).attributes.iter().any(|(name, _)| &**name == "k8s.pod.uid"));
    }

    #[test]
    fn places_are_bounded() {
        let who = Who::default();
        for number in 0..MAX_LOCATIONS + 10 {
            who.location(&Cgroup { unit: format!("{number}.service").into(), ..Cgroup::default() });
        }
        assert_eq!(who.locations.borrow().by_cgroup.len(), 10);
    }
}
