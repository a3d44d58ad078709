//! Label names as people write them, and the OpenTelemetry attributes they mean.

/// Short names and the attributes they stand for; the first one that is set counts.
const SHORT_NAMES: [(&str, &[&str]); 11] = [
    ("namespace", &["k8s.namespace.name"]),
    ("pod", &["k8s.pod.name"]),
    ("container", &["k8s.container.name", "container.name"]),
    ("workload", &WORKLOAD),
    ("service", &["service.name"]),
    ("node", &["host.name"]),
    ("process", &["process.executable.name"]),
    ("thread", &["thread.name"]),
    ("pid", &["process.pid"]),
    ("cpu", &["cpu.logical_number"]),
    ("project", &["project"]),
];

/// Names of the owners of a pod, the outermost first.
const WORKLOAD: [&str; 8] = [
    "k8s.deployment.name",
    "k8s.statefulset.name",
    "k8s.daemonset.name",
    "k8s.cronjob.name",
    "k8s.workload.name",
    "k8s.job.name",
    "k8s.replicaset.name",
    "k8s.replicationcontroller.name",
];

/// The attribute name that a written name stands for: short names are replaced,
/// everything else stays as it is. Those stay too that are whichever of several
/// attributes is set. A name without dots also means every stored attribute
/// that equals it once all but letters and digits of the attribute are underscores.
pub fn resolve_label(name: &str) -> String {
    match SHORT_NAMES.iter().find(|(short, _)| *short == name) {
        Some((_, [attribute])) => (*attribute).to_owned(),
        _ => name.to_owned(),
    }
}

/// The attributes that a resolved name may stand for; the first that is set counts.
pub fn candidates(name: &str) -> Vec<&str> {
    let several = SHORT_NAMES.iter().find(|(short, attributes)| *short == name && attributes.len() > 1);
    several.map_or_else(|| vec![name], |(_, attributes)| attributes.to_vec())
}

/// Whether a stored attribute is meant by a resolved name.
pub fn means(name: &str, attribute: &str) -> bool {
    let plain = |byte: u8| if byte.is_ascii_alphanumeric() { byte } else { b'_' };
    name == attribute
        || (name.len() == attribute.len() && !name.contains('.') && attribute.bytes().map(plain).eq(name.bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_attributes() {
        assert_eq!(resolve_label("pod"), "k8s.pod.name");
        assert_eq!(resolve_label("workload"), "workload");
        assert_eq!(resolve_label("k8s_pod_name"), "k8s_pod_name");
        assert_eq!(resolve_label("container"), "container");
        assert_eq!(candidates("workload")[0], "k8s.deployment.name");
        assert_eq!(candidates("container"), ["k8s.container.name", "container.name"]);
        assert_eq!(candidates("pod"), ["pod"], "a quoted name is what it says");
        assert!(means("k8s_pod_name", "k8s.pod.name"));
        assert!(means("k8s.pod.name", "k8s.pod.name"));
        assert!(!means("k8s.pod_name", "k8s.pod.name"));
        assert!(!means("pod", "k8s.pod.name"));
        assert!(means("k8s_pod_label_app_kubernetes_io_name", "k8s.pod.label.app.kubernetes.io/name"));
    }
}
