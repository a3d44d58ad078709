//! Our few fields against Kubernetes' own types of version 1.33: what those write, ours read.

use k8s_openapi::{
    api::{apps::v1::ReplicaSet, batch::v1::Job, core::v1 as core},
    apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta, OwnerReference as Owner, Status, Time, WatchEvent},
};

use super::*;

const IMAGE: &str = "registry.example/shop/cart:v1";

fn pairs(pairs: &[(&str, &str)]) -> Option<BTreeMap<String, String>> {
    Some(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

fn owned_by(kind: &str, name: &str) -> ObjectMeta {
    let owner = |name: &str, controller: Option<bool>| Owner {
        api_version: "apps/v1".into(),
        block_owner_deletion: Some(true),
        controller,
        kind: kind.into(),
        name: name.into(),
        uid: format!("uid of {name}"),
    };
    ObjectMeta {
        owner_references: Some(vec![owner("another", None), owner("third", Some(false)), owner(name, Some(true))]),
        ..ObjectMeta::default()
    }
}

fn status(name: &str, now: Option<&str>, ended: Option<&str>, before: Option<&str>) -> core::ContainerStatus {
    let terminated = |id: Option<&str>| {
        id.map(|id| core::ContainerState {
            terminated: Some(core::ContainerStateTerminated {
                container_id: Some(format!("containerd://{id}")),
                exit_code: 1,
                ..Default::default()
            }),
            ..Default::default()
        })
    };
    core::ContainerStatus {
        name: name.into(),
        image: IMAGE.into(),
        container_id: now.map(|id| format!("cri-o://{id}")),
        state: terminated(ended),
        last_state: terminated(before),
        ready: true,
        ..Default::default()
    }
}

/// A pod with all that a pod can have of containers.
fn pod() -> core::Pod {
    let container = |name: &str| core::Container {
        name: name.into(),
        image: Some(IMAGE.into()),
        restart_policy: Some("Always".into()),
        ..Default::default()
    };
    core::Pod {
        metadata: ObjectMeta {
            name: Some("cart-7d9f-x2x".into()),
            namespace: Some("shop".into()),
            uid: Some("5c0e".into()),
            resource_version: Some("4711".into()),
            creation_timestamp: serde_json::from_str::<Time>("\"2026-11-27T08:00:05Z\"").ok(),
            labels: pairs(&[("app.kubernetes.io/name", "cart")]),
            annotations: pairs(&[("kubernetes.io/config.hash", "abc")]),
            ..owned_by("ReplicaSet", "cart-7d9f")
        },
        spec: Some(core::PodSpec {
            containers: vec![container("app"), core::Container { image: None, ..container("bare") }],
            init_containers: Some(vec![container("istio-proxy")]),
            ephemeral_containers: Some(vec![core::EphemeralContainer {
                name: "debugger".into(),
                image: Some(IMAGE.into()),
                target_container_name: Some("app".into()),
                ..Default::default()
            }]),
            node_name: Some("node-1".into()),
            ..Default::default()
        }),
        status: Some(core::PodStatus {
            phase: Some("Running".into()),
            container_statuses: Some(vec![
                status("app", Some("a1"), None, Some("a0")),
                status("bare", None, Some("b1"), None),
            ]),
            init_container_statuses: Some(vec![status("istio-proxy", Some("i1"), None, None)]),
            ephemeral_container_statuses: Some(vec![status("debugger", Some("e1"), None, None)]),
            ..Default::default()
        }),
    }
}

/// Through the text that the API server would send.
fn read<T: serde::de::DeserializeOwned>(theirs: &impl serde::Serialize) -> T {
    let text = serde_json::to_string(theirs).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn a_pod_as_kubernetes_writes_it() {
    let ours: Object = read(&pod());
    let meta = &ours.metadata;
    assert_eq!([&*meta.name, &meta.namespace, &meta.uid], ["cart-7d9f-x2x", "shop", "5c0e"]);
    assert_eq!([&*meta.resource_version, &meta.creation_timestamp], ["4711", "2026-11-27T08:00:05Z"]);
    assert_eq!(Some(&meta.labels), pairs(&[("app.kubernetes.io/name", "cart")]).as_ref());
    assert_eq!(Some(&meta.annotations), pairs(&[("kubernetes.io/config.hash", "abc")]).as_ref());
    let names = |specs: &[ContainerSpec]| specs.iter().map(|c| (c.name.clone(), c.image.clone())).collect::<Vec<_>>();
    let with_image = |name: &str| (name.to_owned(), IMAGE.to_owned());
    assert_eq!(names(&ours.spec.containers), [with_image("app"), ("bare".into(), String::new())]);
    assert_eq!(names(&ours.spec.init_containers), [with_image("istio-proxy")]);
    assert_eq!(names(&ours.spec.ephemeral_containers), [with_image("debugger")]);
    let ids: Vec<_> =
        ours.status.containers().map(|s| (s.name.clone(), s.ids().map(str::to_owned).collect::<Vec<_>>())).collect();
    let of = |name: &str, ids: &[&str]| (name.to_owned(), ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>());
    assert_eq!(
        ids,
        [of("istio-proxy", &["i1"]), of("app", &["a1", "a0"]), of("bare", &["b1"]), of("debugger", &["e1"])]
    );
}

/// A pod of which nothing is set: all that may be left out is.
#[test]
fn an_empty_pod_as_kubernetes_writes_it() {
    let ours: Object = read(&core::Pod { spec: Some(core::PodSpec::default()), ..core::Pod::default() });
    assert!(ours.metadata.name.is_empty() && ours.spec.containers.is_empty());
    assert_eq!(ours.status.containers().count(), 0);
}

#[test]
fn owners_as_kubernetes_writes_them() {
    let set = ReplicaSet { metadata: owned_by("Deployment", "cart"), ..Default::default() };
    let job = Job { metadata: owned_by("CronJob", "nightly"), ..Default::default() };
    for (ours, kind, name) in [
        (read::<Object>(&pod()), "ReplicaSet", "cart-7d9f"),
        (read(&set), "Deployment", "cart"),
        (read(&job), "CronJob", "nightly"),
    ] {
        let expected = OwnerReference {
            api_version: "apps/v1".into(),
            kind: kind.into(),
            name: name.into(),
            uid: format!("uid of {name}"),
            controller: true,
        };
        assert_eq!(ours.metadata.controller(), Some(&expected));
    }
}

#[test]
fn events_as_kubernetes_writes_them() {
    for (theirs, kind) in [
        (WatchEvent::Added(pod()), "ADDED"),
        (WatchEvent::Modified(pod()), "MODIFIED"),
        (WatchEvent::Deleted(pod()), "DELETED"),
    ] {
        let ours: Event = read(&theirs);
        assert_eq!((&*ours.kind, &*ours.object.metadata.uid), (kind, "5c0e"));
    }
    let bookmark = WatchEvent::<core::Pod>::Bookmark { annotations: BTreeMap::new(), resource_version: "12".into() };
    let ours: Event = read(&bookmark);
    assert_eq!((&*ours.kind, &*ours.object.metadata.resource_version), ("BOOKMARK", "12"));
    let gone = Status {
        code: Some(410),
        message: Some("too old resource version: 1 (2)".into()),
        metadata: ListMeta::default(),
        reason: Some("Expired".into()),
        status: Some("Failure".into()),
        ..Status::default()
    };
    let ours: Event = read(&WatchEvent::<core::Pod>::ErrorStatus(gone));
    assert_eq!((&*ours.kind, ours.object.code), ("ERROR", 410));
    assert_eq!(ours.object.message, "too old resource version: 1 (2)");
}
