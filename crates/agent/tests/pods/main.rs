//! The watch of a node's pods against an API server that forgets, refuses, and goes away.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod cluster;

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use cluster::{Cluster, id, pod, uid, until};
use everflame_agent::who::{
    Cgroup, Runtimes, Who,
    kubernetes::{Found, MAX_PODS, Pods, Secret, Watch},
};
use serde_json::json;

fn group(pod: usize, container: usize) -> Cgroup {
    Cgroup::of_path(&format!("/kubepods/burstable/pod{}/{}", uid(pod), id(container)))
}

fn find(pods: &Pods, number: usize) -> Option<Found> {
    pods.find(&group(number, 2 * number))
}

fn until_known(watch: &Watch, number: usize) {
    until("the pod is known", || find(watch.pods(), number).is_some_and(|found| found.container.is_some()));
}

fn until_connected(watch: &Watch) {
    until("it is connected", || watch.stats().connected.load(Relaxed));
}

#[test]
fn what_is_listed_and_what_comes_and_goes() {
    let cluster = Cluster::start();
    cluster.put(pod(1, true));
    let watch = cluster.watch_with(None, &["version"]);
    until_known(&watch, 1);
    let who = Who::new(Some((cluster::NODE, Arc::clone(watch.pods()))), Runtimes::default());
    let location = who.location(&group(1, 3));
    let said = |name: &str| location.attributes.iter().rev().find(|(n, _)| &**n == name).map(|(_, v)| v.to_string());
    for (name, value) in [
        ("k8s.node.name", "node-1"),
        ("k8s.namespace.name", "shop"),
        ("k8s.pod.name", "cart-7d9f-1"),
        ("k8s.pod.uid", &uid(1)),
        ("k8s.container.name", "istio-proxy"),
        ("k8s.deployment.name", "cart"),
        ("k8s.replicaset.name", "cart-7d9f"),
        ("k8s.pod.label.version", "v1"),
        ("container.id", &id(3)),
        ("container.image.name", "istio/proxyv2"),
        ("container.image.tag", "1.28.0"),
    ] {
        assert_eq!(said(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!((&*location.service, location.awaited), ("cart", false));
    // One that comes: first without its containers' ids.
    assert!(who.location(&group(2, 4)).awaited);
    cluster.put(pod(2, false));
    until("it is known", || find(watch.pods(), 2).is_some());
    assert!(who.location(&group(2, 4)).awaited, "its container is still to be told");
    cluster.put(pod(2, true));
    until_known(&watch, 2);
    assert!(!who.location(&group(2, 4)).awaited);
    cluster.delete(&uid(2));
    until("it is gone", || watch.pods().len() == (2, 1));
    assert!(find(watch.pods(), 2).is_some(), "its last samples still come");
    assert_eq!((watch.stats().lists.load(Relaxed), watch.stats().failures.load(Relaxed)), (1, 0));
    assert_eq!(cluster.requests("/apis/"), 0, "the Deployment is in the name");
}

#[test]
fn a_pod_that_ran_between_two_events_is_named() {
    let cluster = Cluster::start();
    let watch = cluster.watch();
    until_connected(&watch);
    cluster.put(pod(1, false));
    // Its end is the first that is told of its container.
    let mut ended = pod(1, false);
    ended["status"]["containerStatuses"] = json!([{"name": "app", "containerID": "", "lastState": {},
        "state": {"terminated": {"exitCode": 0, "containerID": format!("containerd://{}", id(2))}}}]);
    cluster.change(|state| state.put(ended));
    cluster.delete(&uid(1));
    until_known(&watch, 1);
}

#[test]
fn what_was_forgotten_is_listed_anew() {
    let cluster = Cluster::start();
    (1..=3).for_each(|number| cluster.put(pod(number, true)));
    let watch = cluster.watch();
    until_known(&watch, 3);
    // Told in the middle of a watch.
    cluster.change(|state| state.put(pod(4, true)));
    until_known(&watch, 4);
    cluster.delete(&uid(2));
    until("it is gone", || watch.pods().len() == (4, 1));
    cluster.forget();
    until("it is listed anew", || watch.stats().lists.load(Relaxed) == 2);
    assert!(cluster.state().requests.iter().any(|r| !r.contains("resourceVersion")), "the newest state is asked for");
    // Told as the answer to a watch, with changes in between.
    cluster.change(|state| state.down = true);
    until("the outage is seen", || !watch.stats().connected.load(Relaxed));
    cluster.delete(&uid(3));
    cluster.put(pod(5, true));
    cluster.forget();
    cluster.change(|state| state.down = false);
    until_known(&watch, 5);
    assert_eq!((watch.pods().len(), watch.stats().lists.load(Relaxed)), ((5, 2), 3));
    assert!(watch.stats().expired.load(Relaxed) >= 2);
}

#[test]
fn a_bookmark_saves_the_list() {
    let cluster = Cluster::start();
    cluster.put(pod(1, true));
    let watch = cluster.watch();
    until_connected(&watch);
    cluster.bookmark();
    until("the bookmark is read", || watch.stats().bookmarks.load(Relaxed) == 1);
    // All before the bookmark is forgotten, and the watch ends.
    cluster.change(|state| state.down = true);
    until("the end is seen", || !watch.stats().connected.load(Relaxed) || watch.stats().watches.load(Relaxed) > 1);
    cluster.change(|state| state.down = false);
    cluster.put(pod(2, true));
    until_known(&watch, 2);
    assert_eq!((watch.stats().lists.load(Relaxed), watch.stats().expired.load(Relaxed)), (1, 0));
}

#[test]
fn while_the_server_is_away_what_was_known_stays() {
    let cluster = Cluster::start();
    cluster.put(pod(1, true));
    let watch = cluster.watch();
    until_known(&watch, 1);
    cluster.change(|state| state.down = true);
    until("attempts fail", || watch.stats().failures.load(Relaxed) >= 3);
    assert!(watch.stats().failure().unwrap().contains("cannot be reached"));
    assert!(find(watch.pods(), 1).is_some());
    cluster.put(pod(2, true));
    cluster.delete(&uid(1));
    cluster.change(|state| state.down = false);
    until_known(&watch, 2);
    until("the other is gone", || watch.pods().len() == (2, 1));
    assert_eq!((watch.stats().lists.load(Relaxed), watch.stats().failure()), (1, None), "it went on where it was");
}

#[test]
fn a_new_token_is_used_at_once() {
    let cluster = Cluster::start();
    cluster.put(pod(1, true));
    cluster.change(|state| state.token = Some("first".into()));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "first\n").unwrap();
    let watch = cluster.watch_with(Some(Secret::File(file.path().into())), &[]);
    until_known(&watch, 1);
    cluster.change(|state| state.token = Some("second".into()));
    cluster.hang_up();
    until("the old one is refused", || watch.stats().failure().is_some_and(|f| f.contains("401")));
    assert!(!watch.stats().failure().unwrap().contains("first"), "no secret in what is said");
    std::fs::write(&file, "second").unwrap();
    cluster.put(pod(2, true));
    until_known(&watch, 2);
    assert_eq!(watch.stats().lists.load(Relaxed), 1);
}

#[test]
fn what_is_forbidden_is_said_and_tried_again() {
    let cluster = Cluster::start();
    cluster.put(pod(1, true));
    cluster.change(|state| state.forbidden.push("/api/v1/pods".into()));
    let watch = cluster.watch();
    until("it is said", || watch.stats().failure().is_some_and(|f| f.contains("403: the account may not do that")));
    cluster.change(|state| state.forbidden.clear());
    until_known(&watch, 1);
}

#[test]
fn owners_are_asked_for_where_names_do_not_tell() {
    let cluster = Cluster::start();
    let owned = |number: usize, api: &str, kind: &str, name: &str| {
        let mut pod = pod(number, true);
        pod["metadata"]["labels"] = json!({});
        pod["metadata"]["ownerReferences"] =
            json!([{"apiVersion": api, "kind": kind, "name": name, "uid": name, "controller": true}]);
        pod
    };
    let controlled = |kind: &str, name: &str| json!({"metadata": {"ownerReferences": [{"apiVersion": "x/v1", "kind": kind, "name": name, "uid": "o", "controller": true}]}});
    cluster.change(|state| {
        state.objects.insert("/apis/apps/v1/namespaces/shop/replicasets/web-1".into(), controlled("Rollout", "web"));
        state.objects.insert("/apis/batch/v1/namespaces/shop/jobs/once".into(), json!({"metadata": {}}));
        for (number, api, kind, name) in [
            (1, "apps/v1", "ReplicaSet", "web-1"),
            (2, "apps/v1", "ReplicaSet", "web-1"),
            (3, "batch/v1", "Job", "once"),
            (4, "batch/v1", "Job", "nightly-29929440"),
            (5, "example.com/v1", "Robot", "r2"),
        ] {
            state.put(owned(number, api, kind, name));
        }
    });
    let watch = cluster.watch();
    let owners = |number: usize| -> Vec<String> {
        let found = find(watch.pods(), number);
        found.iter().flat_map(|found| &found.pod.workloads).map(|w| format!("{}/{}", w.kind, w.name)).collect()
    };
    for (number, wanted) in [
        (1, vec!["ReplicaSet/web-1", "Rollout/web"]),
        (2, vec!["ReplicaSet/web-1", "Rollout/web"]),
        (3, vec!["Job/once"]),
        (4, vec!["Job/nightly-29929440", "CronJob/nightly"]),
        (5, vec!["Robot/r2"]),
    ] {
        until(&format!("{wanted:?}"), || owners(number) == wanted);
    }
    assert_eq!(cluster.requests("/replicasets/web-1"), 1, "each is asked for once");
    let who = Who::new(Some((cluster::NODE, Arc::clone(watch.pods()))), Runtimes::default());
    let location = who.location(&group(1, 2));
    let workload: Vec<_> = location.attributes.iter().filter(|(name, _)| name.starts_with("k8s.workload")).collect();
    assert_eq!(workload.iter().map(|(_, value)| &**value).collect::<Vec<_>>(), ["Rollout", "web"]);
    assert_eq!(&*location.service, "web");

    // Without the right to ask, once is enough, and a name may still tell.
    let strict = Cluster::start();
    strict.change(|state| {
        state.forbidden.push("/apis/".into());
        state.put(owned(1, "apps/v1", "ReplicaSet", "web-1"));
        state.put(owned(2, "batch/v1", "Job", "nightly-29929440"));
    });
    let watch = strict.watch();
    until_known(&watch, 2);
    let cron = |found: Found| found.pod.workloads.iter().any(|w| &*w.kind == "CronJob");
    until("the name tells", || find(watch.pods(), 2).is_some_and(cron));
    assert_eq!(strict.requests("/apis/"), 1);
}

/// Fifty pods a minute, an hour of them.
#[test]
fn churn_leaves_nothing_behind() {
    let cluster = Cluster::start();
    let watch = cluster.watch();
    until_connected(&watch);
    for number in 1..=3_000 {
        cluster.put(pod(number, false));
        cluster.put(pod(number, true));
        if number % 100 == 0 {
            until_known(&watch, number);
        }
        cluster.delete(&uid(number));
    }
    until_known(&watch, 3_000);
    until("all events are taken", || watch.stats().events.load(Relaxed) == 9_000);
    let (all, gone) = watch.pods().len();
    assert!(all <= MAX_PODS && gone == all, "{all}, {gone} of them gone");
    assert_eq!((watch.pods().refused(), watch.stats().lists.load(Relaxed)), (0, 1));
}

/// Away for ten seconds, or for five minutes with `EVERFLAME_OUTAGES=all`. Meanwhile the token is
/// replaced, pods come and go, and the server forgets where we were.
#[test]
fn away_for_long() {
    let all = std::env::var("EVERFLAME_OUTAGES").is_ok_and(|value| value == "all");
    let away = Duration::from_secs(if all { 300 } else { 10 });
    let cluster = Cluster::start();
    cluster.put(pod(1, true));
    cluster.put(pod(2, true));
    cluster.change(|state| state.token = Some("first".into()));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "first").unwrap();
    let watch = cluster.watch_with(Some(Secret::File(file.path().into())), &[]);
    until_known(&watch, 2);
    cluster.change(|state| state.down = true);
    until("the outage is seen", || !watch.stats().connected.load(Relaxed));
    let start = Instant::now();
    while start.elapsed() < away {
        assert!((1..=2).all(|number| find(watch.pods(), number).is_some()), "what was known stays");
        std::thread::sleep(Duration::from_millis(100));
    }
    // Pauses double from 0.1 s to 30 s, each shortened by up to half.
    let attempts_of = |share: f64| {
        let (mut attempts, mut at, mut pause) = (0, 0.0, 0.1f64);
        while at < away.as_secs_f64() {
            (attempts, at, pause) = (attempts + 1, at + share * pause, (2.0 * pause).min(30.0));
        }
        attempts
    };
    let attempts = watch.stats().failures.load(Relaxed);
    println!("away for {away:?}: {attempts} attempts");
    assert!((attempts_of(1.0) - 1..=attempts_of(0.5) + 1).contains(&attempts), "{attempts} attempts in {away:?}");
    cluster.delete(&uid(2));
    cluster.put(pod(3, true));
    cluster.forget();
    cluster.change(|state| (state.token, state.requests) = (Some("second".into()), Vec::new()));
    std::fs::write(&file, "second").unwrap();
    let (back, mut asked) = (Instant::now(), None);
    cluster.change(|state| state.down = false);
    while find(watch.pods(), 3).is_none_or(|found| found.container.is_none()) {
        asked = asked.or((cluster.requests("") > 0).then(Instant::now));
        let listing = asked.map_or(Duration::ZERO, |asked| asked.elapsed());
        assert!(back.elapsed() < Duration::from_secs(32), "the longest pause is 30 s");
        assert!(listing < Duration::from_secs(3), "it was asked, and what it has forgotten is not listed at once");
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("pods are known again after {:?}", back.elapsed());
    until("the other is gone", || watch.pods().len() == (3, 1));
    assert_eq!((watch.stats().lists.load(Relaxed), watch.stats().failure()), (2, None));
    assert!(watch.stats().expired.load(Relaxed) >= 1, "it was told that it is too old");
    assert!(cluster.requests("") <= 3, "a watch, a list, a watch: {:?}", cluster.state().requests);
}

/// A connection that says nothing any more, as behind a firewall that has forgotten it, is left for another.
#[test]
#[ignore = "takes three minutes: make test-kubernetes runs it"]
fn a_silent_connection_is_left() {
    let cluster = Cluster::start();
    cluster.put(pod(1, true));
    let watch = cluster.watch();
    until_known(&watch, 1);
    until("it watches", || watch.stats().watches.load(Relaxed) == 1);
    cluster.change(|state| state.silent = true);
    std::thread::sleep(Duration::from_millis(200));
    cluster.change(|state| state.silent = false);
    cluster.put(pod(2, true));
    let start = Instant::now();
    while find(watch.pods(), 2).is_none() {
        assert!(start.elapsed() < Duration::from_secs(170), "it still waits");
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("left after {:?}", start.elapsed());
    assert_eq!(watch.stats().lists.load(Relaxed), 1, "it went on where it was");
}
