//! The attributes that filters may name, and what has to be known of a process before one counts.

use everflame_profile::label::means;

use crate::{identity::ProcessIdentity, who::Location};

/// What labels of pods begin with.
const POD_LABEL: &str = "k8s.pod.label.";

/// All but the labels of pods.
const ATTRIBUTES: [(&str, Source); 24] = [
    ("host.name", Source::Node),
    ("k8s.node.name", Source::Node),
    ("project", Source::Node),
    ("process.pid", Source::Node),
    ("process.executable.name", Source::Executable),
    ("process.executable.path", Source::Executable),
    ("service.name", Source::Service),
    ("container.id", Source::Cgroup),
    ("systemd.unit", Source::Cgroup),
    ("systemd.slice", Source::Cgroup),
    ("k8s.namespace.name", Source::Container),
    ("k8s.pod.name", Source::Container),
    ("k8s.container.name", Source::Container),
    ("container.name", Source::Container),
    ("k8s.pod.uid", Source::Pod),
    ("container.image.name", Source::Pod),
    ("container.image.tag", Source::Pod),
    ("k8s.deployment.name", Source::Owners),
    ("k8s.statefulset.name", Source::Owners),
    ("k8s.daemonset.name", Source::Owners),
    ("k8s.cronjob.name", Source::Owners),
    ("k8s.job.name", Source::Owners),
    ("k8s.replicaset.name", Source::Owners),
    ("k8s.replicationcontroller.name", Source::Owners),
];
/// Owners of other kinds.
const OTHER_OWNERS: [&str; 2] = ["k8s.workload.kind", "k8s.workload.name"];

/// Who tells an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Known from the start.
    Node,
    /// The executable.
    Executable,
    /// The control group.
    Cgroup,
    /// API server and container runtime, in the same words.
    Container,
    /// The API server; what was said before it did may be something else.
    Pod,
    /// The API server, about the owners of the pod.
    Owners,
    /// All of them.
    Service,
}

/// What is known of a process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub process: &'a ProcessIdentity,
    pub location: &'a Location,
}

impl Source {
    /// Of an attribute by its name, as a selector has it; `None` where no process has it.
    pub fn of(name: &str) -> Option<Self> {
        if name.len() > POD_LABEL.len() && name.starts_with(POD_LABEL) {
            return Some(Self::Pod);
        }
        if OTHER_OWNERS.iter().any(|attribute| means(name, attribute)) {
            return Some(Self::Owners);
        }
        ATTRIBUTES.iter().find(|(attribute, _)| means(name, attribute)).map(|(_, source)| *source)
    }

    /// Whether a value that is there will stay.
    pub fn is_final(self, of: Facts<'_>) -> bool {
        match self {
            Self::Container | Self::Owners => of.process.located,
            _ => self.is_told(of),
        }
    }

    /// Whether a value that is missing will be missing for good.
    pub fn is_told(self, of: Facts<'_>) -> bool {
        let Facts { process, location } = of;
        match self {
            Self::Node => true,
            Self::Executable => process.named,
            Self::Cgroup => process.located,
            Self::Container | Self::Pod => process.located && !location.untold,
            Self::Owners => process.located && !location.untold && !location.owners_untold,
            Self::Service => process.named && (!process.service.is_empty() || Self::Owners.is_told(of)),
        }
    }
}

/// The label of pods that an attribute is, where it is one.
pub(super) fn pod_label(name: &str) -> Option<&str> {
    name.strip_prefix(POD_LABEL)
}

/// Whether it looks like a label of pods, written so that no one can tell which.
pub(super) fn is_plain_pod_label(name: &str) -> bool {
    name.starts_with("k8s_pod_label_")
}
