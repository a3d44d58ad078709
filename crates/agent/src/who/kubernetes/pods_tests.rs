//! What is known of pods while they come, change and go.

use serde_json::json;

use super::*;

fn id(number: usize) -> String {
    format!("{number:064x}")
}

fn object(uid: &str, name: &str, status: serde_json::Value) -> Object {
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": uid,
            "labels": {"app.kubernetes.io/name": "cart", "version": "v1", "other": "x"},
        },
        "spec": {
            "initContainers": [{"name": "setup", "image": "setup:1"}],
            "containers": [{"name": "app", "image": "cart:1"}, {"name": "istio-proxy", "image": "proxyv2:1"}],
        },
        "status": status,
    }))
    .unwrap()
}

fn statuses(ids: &[(&str, usize)]) -> serde_json::Value {
    let one = |(name, number): &(&str, usize)| json!({"name": name, "containerID": format!("containerd://{}", id(*number)), "state": {"running": {}}});
    json!({"containerStatuses": ids.iter().map(one).collect::<Vec<_>>()})
}

fn group(pod: &str, container: usize) -> Cgroup {
    let container = if container == 0 { Str::default() } else { id(container).into() };
    Cgroup { pod: pod.into(), container, ..Cgroup::default() }
}

fn container(pods: &Pods, pod: &str, number: usize) -> Option<String> {
    pods.find(&group(pod, number))?.container.map(|container| container.name.to_string())
}

#[test]
fn by_uid_first_and_by_container_when_it_is_told() {
    let pods = Pods::default();
    let update = |status| pods.update(object("u1", "cart-1", status), &["version".into()], Vec::new(), true);
    update(json!({}));
    let found = pods.find(&group("u1", 1)).unwrap();
    assert_eq!((&*found.pod.name, &*found.pod.service, found.container), ("cart-1", "cart", None));
    assert_eq!(found.pod.labels, [("version".into(), "v1".into())], "only what was asked for");
    let before = pods.revision();
    update(statuses(&[("app", 1), ("istio-proxy", 2), ("unheard-of", 9)]));
    assert!(pods.revision() > before);
    for (number, name) in [(1, Some("app")), (2, Some("istio-proxy")), (9, None)] {
        assert_eq!(container(&pods, "u1", number).as_deref(), name);
    }
    assert_eq!(container(&pods, "", 2).as_deref(), Some("istio-proxy"), "a path without the pod");
    let named = Cgroup { name: "app".into(), ..group("u1", 0) };
    assert_eq!(pods.find(&named).unwrap().container.unwrap().image.as_ref(), "cart:1");
    // It starts anew: samples of the one before may still come.
    let before = pods.revision();
    update(statuses(&[("app", 3), ("istio-proxy", 2)]));
    assert_eq!([1, 3].map(|n| container(&pods, "u1", n)), [Some("app".into()), Some("app".into())]);
    assert!(pods.revision() > before);
    let before = pods.revision();
    update(statuses(&[("app", 3), ("istio-proxy", 2)]));
    assert_eq!(pods.revision(), before, "nothing is new");
    for number in 10..10 + 2 * MAX_IDS {
        update(statuses(&[("app", number)]));
    }
    let newest = 9 + 2 * MAX_IDS;
    assert_eq!(container(&pods, "", newest).as_deref(), Some("app"));
    assert_eq!((container(&pods, "", 3), pods.read().by_container.len()), (None, MAX_IDS), "bounded");
}

#[test]
fn a_static_pod_by_its_hash() {
    let pods = Pods::default();
    let hash = "dfe1e0d2b3c1a7f4d5e6f708192a3b4c";
    let mut mirror = object("u1", "etcd-node1", json!({}));
    mirror.metadata.annotations.insert(CONFIG_HASH.into(), hash.into());
    pods.update(mirror, &[], Vec::new(), true);
    assert_eq!(&*pods.find(&group(hash, 5)).unwrap().pod.name, "etcd-node1");
    // The kubelet makes the copy anew.
    let mut again = object("u2", "etcd-node1", json!({}));
    again.metadata.annotations.insert(CONFIG_HASH.into(), hash.into());
    pods.update(again, &[], Vec::new(), true);
    pods.remove("u1");
    pods.sweep(Duration::ZERO);
    assert_eq!(&*pods.find(&group(hash, 5)).unwrap().pod.uid, "u2");
}

#[test]
fn the_gone_stay_for_a_while() {
    let pods = Pods::default();
    for uid in ["u1", "u2", "u3"] {
        pods.update(object(uid, uid, statuses(&[("app", 1)])), &[], Vec::new(), true);
    }
    pods.remove("u1");
    pods.keep_only(&FxHashSet::from_iter(["u1".to_owned(), "u3".to_owned()]));
    pods.sweep(GRACE);
    assert_eq!(pods.len(), (3, 2));
    assert!(pods.find(&group("u1", 0)).is_some());
    pods.sweep(Duration::ZERO);
    assert_eq!(pods.len(), (1, 0));
    assert!(pods.find(&group("u1", 0)).is_none() && pods.find(&group("u3", 0)).is_some());
    assert!(pods.read().by_container.len() <= 1);
}

#[test]
fn owners_that_are_known_stay_known() {
    let pods = Pods::default();
    let rs = || ("ReplicaSet".to_owned(), "cart-1".to_owned());
    pods.update(object("u1", "cart-1", json!({})), &[], vec![rs()], true);
    pods.owned("u1", vec![rs(), ("Rollout".into(), "cart".into())]);
    pods.owned("nobody", vec![rs()]);
    // The next event is from before they were asked for.
    pods.update(object("u1", "cart-1", statuses(&[("app", 1)])), &[], vec![rs()], true);
    let owners = pods.find(&group("u1", 1)).unwrap().pod.workloads.clone();
    assert_eq!(owners.iter().map(|o| &*o.kind).collect::<Vec<_>>(), ["ReplicaSet", "Rollout"]);
}

#[test]
fn when_full_the_gone_make_room_and_others_are_refused() {
    let pods = Pods::default();
    for number in 0..MAX_PODS {
        pods.update(object(&format!("u{number}"), "x", json!({})), &[], Vec::new(), true);
    }
    pods.remove("u7");
    pods.update(object("new", "x", json!({})), &[], Vec::new(), true);
    assert!(pods.find(&group("new", 0)).is_some() && pods.find(&group("u7", 0)).is_none());
    pods.update(object("one more", "x", json!({})), &[], Vec::new(), true);
    assert_eq!((pods.len(), pods.refused()), ((MAX_PODS, 0), 1));
    assert!(pods.find(&group("one more", 0)).is_none());
}

#[test]
fn long_texts_are_cut_between_letters() {
    assert_eq!(short(&"é".repeat(300)).len(), MAX_TEXT);
    assert_eq!(short(&format!("x{}", "é".repeat(300))).len(), MAX_TEXT - 1);
}
