//! What filters say of a process: it is to be profiled, it is not, or more must be known first.

use everflame_profile::{
    Labels, MatcherOp, Selector,
    label::{candidates, means},
};

use super::attribute::{Facts, Source, is_plain_pod_label, pod_label};

/// What is to become of a process's samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They go on.
    Allowed,
    /// They are dropped.
    Denied,
    /// What decides is not known.
    Unknown,
}

/// Selectors, any of which may hold.
#[derive(Debug, Clone, Default)]
pub struct Rules(Vec<Rule>);

/// One selector: conditions, all of which must hold.
#[derive(Debug, Clone)]
struct Rule(Vec<Condition>);

#[derive(Debug, Clone)]
struct Condition {
    /// Attributes, of which the first that is there counts.
    attributes: Vec<(String, Source)>,
    op: MatcherOp,
}

impl Rules {
    /// Reads selectors with commas between them: `{namespace="shop"}, {process=~"vault.*"}`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let selectors = Selector::parse_list(text)?;
        Ok(Self(selectors.into_iter().map(Rule::new).collect::<Result<_, _>>()?))
    }

    /// All of several.
    pub fn all(several: impl IntoIterator<Item = Self>) -> Self {
        Self(several.into_iter().flat_map(|rules| rules.0).collect())
    }

    /// Labels of pods that must be known.
    pub fn pod_labels(&self) -> impl Iterator<Item = &str> {
        let conditions = self.0.iter().flat_map(|rule| &rule.0);
        conditions.flat_map(|condition| &condition.attributes).filter_map(|(name, _)| pod_label(name))
    }

    /// Whether one holds; `None` where that hangs on what is not known.
    fn hold(&self, labels: &Labels, facts: Facts<'_>) -> Option<bool> {
        any(self.0.iter().map(|rule| rule.holds(labels, facts)))
    }
}

impl Rule {
    fn new(selector: Selector) -> Result<Self, String> {
        if selector.matchers.is_empty() {
            return Err("a selector without conditions names every process: leave it out".into());
        }
        let conditions = selector.matchers.into_iter().map(|matcher| {
            let attributes = candidates(&matcher.name).into_iter().map(|name| match Source::of(name) {
                Some(source) => Ok((name.to_owned(), source)),
                None if is_plain_pod_label(name) => {
                    Err(format!("`{name}`: write labels of pods as they are, in quotes: \"k8s.pod.label.NAME\""))
                }
                None => Err(format!("`{name}` is no attribute of processes: docs/identity.md lists them")),
            });
            Ok(Condition { attributes: attributes.collect::<Result<_, String>>()?, op: matcher.op })
        });
        Ok(Self(conditions.collect::<Result<_, String>>()?))
    }

    fn holds(&self, labels: &Labels, facts: Facts<'_>) -> Option<bool> {
        let fails = self.0.iter().map(|condition| condition.holds(labels, facts).map(|holds| !holds));
        any(fails).map(|fails| !fails)
    }
}

impl Condition {
    fn holds(&self, labels: &Labels, facts: Facts<'_>) -> Option<bool> {
        for (name, source) in &self.attributes {
            let value =
                labels.get(name).or_else(|| labels.iter().find(|(n, _)| means(name, n)).map(|(_, value)| value));
            match value {
                Some(value) => return source.is_final(facts).then(|| self.op.accepts(value)),
                None if !source.is_told(facts) => return None,
                None => {}
            }
        }
        Some(self.op.accepts(""))
    }
}

/// Whether one of them is; `None` where that hangs on one that nobody knows.
fn any(mut all: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let first = all.find(|one| *one != Some(false));
    match first {
        None => Some(false),
        Some(Some(true)) => Some(true),
        _ => all.any(|one| one == Some(true)).then_some(true),
    }
}

/// What `--allow` and `--deny` say together.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Nobody else, where there are any.
    pub allow: Rules,
    /// Not these, whatever allows them.
    pub deny: Rules,
}

impl Filter {
    /// Whether everything is profiled.
    pub fn is_empty(&self) -> bool {
        self.allow.0.is_empty() && self.deny.0.is_empty()
    }

    /// Labels of pods that must be known.
    pub fn pod_labels(&self) -> impl Iterator<Item = &str> {
        self.allow.pod_labels().chain(self.deny.pod_labels())
    }

    /// What is to become of the samples of a process that is known so well.
    pub(super) fn verdict(&self, labels: &Labels, facts: Facts<'_>) -> Verdict {
        let denied = self.deny.hold(labels, facts);
        let allowed = if self.allow.0.is_empty() { Some(true) } else { self.allow.hold(labels, facts) };
        match (denied, allowed) {
            (Some(true), _) | (_, Some(false)) => Verdict::Denied,
            (Some(false), Some(true)) => Verdict::Allowed,
            _ => Verdict::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{aggregate::Origin, identity::ProcessIdentity, who::Location};

    fn rules(text: &str) -> Rules {
        Rules::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn process() -> ProcessIdentity {
        ProcessIdentity {
            pid: 7,
            generation: 1,
            name: "cart".into(),
            path: "/app/cart".into(),
            cgroup: std::sync::Arc::default(),
            service: "".into(),
            named: true,
            located: true,
        }
    }

    fn pod(namespace: &str) -> Location {
        let attributes = [
            ("k8s.namespace.name", namespace),
            ("k8s.pod.name", "cart-1"),
            ("k8s.pod.label.tier/zone", "gold"),
            ("k8s.deployment.name", "cart"),
            ("k8s.replicaset.name", "cart-7d9f"),
        ];
        let attributes = attributes.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Location { attributes, service: "carts".into(), ..Location::default() }
    }

    fn verdict(allow: &str, deny: &str, process: &ProcessIdentity, location: &Location) -> Verdict {
        let labels = Origin::new("n1", None).labels(process, location);
        Filter { allow: rules(allow), deny: rules(deny) }.verdict(&labels, Facts { process, location })
    }

    #[test]
    fn deny_wins_and_no_allow_means_all() {
        let (process, shop, host) = (process(), pod("shop"), Location::default());
        for (allow, deny, of_shop, of_host) in [
            ("", "", Verdict::Allowed, Verdict::Allowed),
            (r#"{namespace="shop"}"#, "", Verdict::Allowed, Verdict::Denied),
            ("", r#"{namespace="shop"}"#, Verdict::Denied, Verdict::Allowed),
            (r#"{namespace="shop"}"#, r#"{pod=~"cart-.*"}"#, Verdict::Denied, Verdict::Denied),
            (r#"{namespace="bank"},{process="cart"}"#, "", Verdict::Allowed, Verdict::Allowed),
            (r#"{namespace="shop",process="other"}"#, "", Verdict::Denied, Verdict::Denied),
            (r#"{namespace=""}"#, "", Verdict::Denied, Verdict::Allowed),
            ("", r#"{workload="cart"}"#, Verdict::Denied, Verdict::Allowed),
            ("", r#"{workload="cart-7d9f"}"#, Verdict::Allowed, Verdict::Allowed),
            ("", r#"{"k8s.pod.label.tier/zone"="gold"}"#, Verdict::Denied, Verdict::Allowed),
            ("", r#"{process_executable_path=~"/app/.*"}"#, Verdict::Denied, Verdict::Denied),
            ("", r#"{service="carts"}"#, Verdict::Denied, Verdict::Allowed),
            ("", r#"{node="n1", pid="8"}"#, Verdict::Allowed, Verdict::Allowed),
        ] {
            let verdicts = [&shop, &host].map(|location| verdict(allow, deny, &process, location));
            assert_eq!(verdicts, [of_shop, of_host], "allow {allow}, deny {deny}");
        }
    }

    #[test]
    fn what_is_not_known_decides_nothing() {
        let known = process();
        let unnamed = ProcessIdentity { named: false, ..process() };
        let unlocated = ProcessIdentity { located: false, ..process() };
        let untold = Location { untold: true, owners_untold: true, ..Location::default() };
        let by_runtime = Location { untold: true, owners_untold: true, ..pod("shop") };
        let orphan = Location { owners_untold: true, ..pod("shop") };
        let unknown = Verdict::Unknown;
        for (allow, deny, process, location, expected) in [
            ("", r#"{process="x"}"#, &unnamed, pod("shop"), unknown),
            ("", r#"{namespace="x"}"#, &unnamed, pod("shop"), Verdict::Allowed),
            ("", r#"{namespace="x"}"#, &unlocated, pod("shop"), unknown),
            ("", r#"{namespace="shop"}"#, &unlocated, pod("shop"), unknown),
            ("", r#"{process="cart"}"#, &unlocated, Location::default(), Verdict::Denied),
            ("", r#"{namespace="x"}"#, &known, untold.clone(), unknown),
            ("", r#"{namespace="x",process="other"}"#, &known, untold.clone(), Verdict::Allowed),
            ("", r#"{namespace="x"},{process="cart"}"#, &known, untold.clone(), Verdict::Denied),
            (r#"{namespace="x"}"#, r#"{process="cart"}"#, &known, untold.clone(), Verdict::Denied),
            (r#"{process="other"}"#, r#"{namespace="x"}"#, &known, untold.clone(), Verdict::Denied),
            (r#"{namespace="x"},{process="cart"}"#, "", &known, untold.clone(), Verdict::Allowed),
            (r#"{namespace="x"}"#, "", &known, untold.clone(), unknown),
            // The runtime names the namespace, and neither labels nor owners.
            (r#"{namespace="shop"}"#, "", &known, by_runtime.clone(), Verdict::Allowed),
            ("", r#"{"k8s.pod.label.version"="2"}"#, &known, by_runtime.clone(), unknown),
            ("", r#"{service="carts"}"#, &known, by_runtime.clone(), unknown),
            // A Deployment may still come, which would be the workload.
            ("", r#"{k8s_cronjob_name="x"}"#, &known, orphan.clone(), unknown),
            ("", r#"{k8s_replicaset_name="cart-7d9f"}"#, &known, orphan.clone(), Verdict::Denied),
            ("", r#"{service="x"}"#, &known, orphan.clone(), unknown),
        ] {
            assert_eq!(verdict(allow, deny, process, &location), expected, "allow {allow}, deny {deny}");
        }
        let job = Location { owners_untold: true, attributes: vec![("k8s.job.name".into(), "j".into())], ..orphan };
        assert_eq!(verdict("", r#"{workload="j"}"#, &known, &job), unknown);
        let named = ProcessIdentity { service: "own".into(), ..process() };
        assert_eq!(verdict("", r#"{service="own"}"#, &named, &untold), Verdict::Denied, "it says so itself");
    }

    #[test]
    fn a_filter_that_would_filter_nothing_is_refused() {
        for (text, expected) in [
            (r#"{namspace="x"}"#, "`namspace` is no attribute"),
            (r#"{thread="x"}"#, "`thread.name` is no attribute"),
            (r#"{"namespace"="x"}"#, "`namespace` is no attribute"),
            (r#"{k8s_pod_label_app="x"}"#, "write labels of pods as they are"),
            (r#"{"k8s.pod.label."="x"}"#, "is no attribute"),
            ("{}", "without conditions"),
            (r#"{namespace="x""#, "expected `,` or `}`"),
        ] {
            let error = Rules::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(Filter::default().is_empty() && rules("").0.is_empty());
        let filter = Filter { allow: rules(r#"{"k8s.pod.label.a/b"="1"}"#), deny: rules(r#"{"k8s.pod.label.c"!=""}"#) };
        assert_eq!(filter.pod_labels().collect::<Vec<_>>(), ["a/b", "c"]);
    }
}
