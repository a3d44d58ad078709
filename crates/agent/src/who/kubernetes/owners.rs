//! Whose a pod is: the owner that it names and that one's own, where there is one.
//!
//! A ReplicaSet's Deployment is in its name, which ends in the pod's label `pod-template-hash`; a
//! Job's CronJob likewise, with the time that it was due. Where names do not tell, the owner is
//! asked for, if our account may. A pod that nobody owns is its own workload.

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::{
    client::{Client, ClientError},
    object::{Metadata, Object, OwnerReference},
};

/// Owners that are remembered, at most; when there are more, all are asked for anew.
pub const MAX_OWNERS: usize = 4096;
/// How long nothing is asked after a refusal or a failure.
const REST: Duration = Duration::from_secs(300);
/// The label that a Deployment gives its pods.
const TEMPLATE_HASH: &str = "pod-template-hash";
/// A CronJob's job is made at most so long after it was due.
const LATE: i64 = 24 * 60;

/// An owner's kind and name.
pub type Owner = (String, String);

/// Knows owners.
#[derive(Debug, Default)]
pub struct Owners {
    /// By uid: who controls it.
    known: FxHashMap<String, Option<Owner>>,
    rest_until: Option<Instant>,
    pub asked: u64,
}

impl Owners {
    /// The owners of a pod, the nearest first, as far as they are known without asking; and the
    /// one to ask for, if that would tell more.
    pub fn of(&self, pod: &Metadata) -> (Vec<Owner>, Option<OwnerReference>) {
        // The kubelet's copies of static pods are the node's, which is no workload.
        let Some(owner) = pod.controller().filter(|owner| owner.kind != "Node") else {
            return (vec![("Pod".into(), pod.name.clone())], None);
        };
        let mut owners = vec![(owner.kind.clone(), owner.name.clone())];
        if url(owner, &pod.namespace).is_none() {
            return (owners, None);
        }
        if let Some(deployment) = deployment_in(owner, pod) {
            owners.push(("Deployment".into(), deployment.into()));
            return (owners, None);
        }
        match self.known.get(&owner.uid) {
            Some(known) => owners.extend(known.clone()),
            None => return (owners, Some(owner.clone())),
        }
        (owners, None)
    }

    /// Asks for an owner of a pod. Answers with all its owners where they are told.
    pub fn ask(&mut self, owner: &OwnerReference, pod: &Metadata, client: &Client) -> Option<Vec<Owner>> {
        let found = self.ask_for(owner, pod, client)?;
        Some([(owner.kind.clone(), owner.name.clone())].into_iter().chain(found).collect())
    }

    /// Who controls an owner, if anybody does; `None` where nobody tells.
    fn ask_for(&mut self, owner: &OwnerReference, pod: &Metadata, client: &Client) -> Option<Option<Owner>> {
        let by_name = || cron_job_in(owner, &pod.creation_timestamp).map(|name| ("CronJob".into(), name.into()));
        if self.rest_until.is_some_and(|until| Instant::now() < until) {
            return by_name().map(Some);
        }
        self.asked += 1;
        let found = match client.object(&url(owner, &pod.namespace)?) {
            Ok(object) => controller_of(&object),
            Err(ClientError::Status { code: 404, .. }) => by_name(), // it is gone already
            Err(e) => {
                self.rest_until = Some(Instant::now() + REST);
                tracing::info!("{} {} cannot be asked for its owner: {e}", owner.kind, owner.name);
                return by_name().map(Some);
            }
        };
        if self.known.len() >= MAX_OWNERS {
            self.known.clear();
        }
        self.known.insert(owner.uid.clone(), found.clone());
        Some(found)
    }
}

fn controller_of(object: &Object) -> Option<Owner> {
    object.metadata.controller().map(|owner| (owner.kind.clone(), owner.name.clone()))
}

/// Where an owner is asked for that has owners itself.
fn url(owner: &OwnerReference, namespace: &str) -> Option<String> {
    let (group, plural) = match (owner.api_version.split_once('/')?.0, owner.kind.as_str()) {
        ("apps", "ReplicaSet") => ("apps", "replicasets"),
        ("batch", "Job") => ("batch", "jobs"),
        _ => return None,
    };
    // Both become part of a path.
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    (plain(&owner.name) && plain(namespace))
        .then(|| format!("/apis/{group}/v1/namespaces/{namespace}/{plural}/{}", owner.name))
}

/// The Deployment in a ReplicaSet's name.
fn deployment_in<'a>(owner: &'a OwnerReference, pod: &Metadata) -> Option<&'a str> {
    let hash = pod.labels.get(TEMPLATE_HASH).filter(|_| owner.kind == "ReplicaSet")?;
    owner.name.strip_suffix(hash.as_str())?.strip_suffix('-').filter(|name| !name.is_empty())
}

/// The CronJob in a Job's name, which ends in the minute (before 1.21 the second) that it was
/// due: one that has nothing to do with when the pod was made is another number.
fn cron_job_in<'a>(owner: &'a OwnerReference, created: &str) -> Option<&'a str> {
    let (name, due) = owner.name.rsplit_once('-').filter(|(name, _)| owner.kind == "Job" && !name.is_empty())?;
    let due: i64 = due.parse().ok()?;
    let created = unix_minutes(created)?;
    let plausible = |due: i64| (-1..=LATE).contains(&(created - due));
    (plausible(due) || plausible(due / 60)).then_some(name)
}

/// Of `2026-11-27T08:00:00Z`.
fn unix_minutes(text: &str) -> Option<i64> {
    let field = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (field(0, 4)?, field(5, 7)?, field(8, 10)?);
    let (hour, minute) = (field(11, 13)?, field(14, 16)?);
    if !text.ends_with('Z') || !(1..=12).contains(&month) {
        return None;
    }
    // Days since the epoch by the civil calendar, years beginning in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        y * 365 + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (m * 153 + 2) / 5 + day - 1 - 719_468;
    Some((days * 24 + hour) * 60 + minute)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(api_version: &str, kind: &str, name: &str) -> OwnerReference {
        let (api_version, kind, name) = (api_version.into(), kind.into(), name.into());
        OwnerReference { api_version, kind, name, uid: "o1".into(), controller: true }
    }

    fn pod(owner: OwnerReference, hash: &str) -> Metadata {
        let labels = [(TEMPLATE_HASH.to_owned(), hash.to_owned())];
        let labels = labels.into_iter().filter(|(_, hash)| !hash.is_empty()).collect();
        let mut other = owner.clone();
        (other.controller, other.name) = (false, "not this one".into());
        Metadata {
            name: "cart-1".into(),
            namespace: "shop".into(),
            labels,
            owner_references: vec![other, owner],
            creation_timestamp: "2026-11-27T08:00:05Z".into(),
            ..Metadata::default()
        }
    }

    fn names(owners: &[Owner]) -> String {
        owners.iter().map(|(kind, name)| format!("{kind}/{name}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_names_tell() {
        let owners = Owners::default();
        for (owner, hash, told, asks) in [
            (owner("apps/v1", "ReplicaSet", "cart-7d9f"), "7d9f", "ReplicaSet/cart-7d9f Deployment/cart", false),
            (owner("apps/v1", "ReplicaSet", "cart-7d9f"), "", "ReplicaSet/cart-7d9f", true),
            (owner("apps/v1", "ReplicaSet", "7d9f"), "7d9f", "ReplicaSet/7d9f", true),
            (owner("apps/v1", "StatefulSet", "db"), "", "StatefulSet/db", false),
            (owner("apps/v1", "DaemonSet", "agent"), "", "DaemonSet/agent", false),
            (owner("batch/v1", "Job", "report-29671680"), "", "Job/report-29671680", true),
            (owner("v1", "ReplicationController", "old"), "", "ReplicationController/old", false),
            (owner("argoproj.io/v1alpha1", "Workflow", "build"), "", "Workflow/build", false),
            (owner("argoproj.io/v1alpha1", "Job", "build"), "", "Job/build", false),
            (owner("v1", "Node", "node1"), "", "Pod/cart-1", false),
            (owner("apps/v1", "ReplicaSet", "../../secrets"), "", "ReplicaSet/../../secrets", false),
        ] {
            let (found, to_ask) = owners.of(&pod(owner, hash));
            assert_eq!((names(&found), to_ask.is_some()), (told.to_owned(), asks));
        }
        let nobodys = Metadata { name: "debug".into(), ..Metadata::default() };
        assert_eq!(names(&owners.of(&nobodys).0), "Pod/debug");
    }

    #[test]
    fn a_cron_job_by_the_time_in_the_name() {
        assert_eq!(unix_minutes("1970-01-01T00:01:59Z"), Some(1));
        let created = "2026-11-27T08:00:05Z";
        let due = unix_minutes(created).unwrap();
        assert_eq!(due, 29_929_440);
        assert_eq!(unix_minutes("2024-02-29T00:00:00Z").unwrap() - unix_minutes("2024-02-28T00:00:00Z").unwrap(), 1440);
        let cron_job = |name: &str| cron_job_in(&owner("batch/v1", "Job", name), created).map(str::to_owned);
        assert_eq!(cron_job(&format!("nightly-report-{due}")).as_deref(), Some("nightly-report"));
        assert_eq!(cron_job(&format!("nightly-{}", due - 3)).as_deref(), Some("nightly"), "a pod that was tried again");
        assert_eq!(cron_job(&format!("nightly-{}", due * 60)).as_deref(), Some("nightly"), "Kubernetes before 1.21");
        for other in ["migrate-20261127", "migrate-1", "migrate", &format!("-{due}"), "a-99999999"] {
            assert_eq!(cron_job(other), None, "{other}");
        }
        for bad in ["", "2026-11-27", "2026-13-27T08:00:05Z", "2026-11-27T08:00:05+01:00"] {
            assert_eq!(unix_minutes(bad), None, "{bad}");
        }
    }
}
