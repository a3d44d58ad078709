//! Every object against the types of Kubernetes 1.33: a field that is misspelt, misplaced or
//! of the wrong type is lost or refused on the way through them.

use everflame_kubernetes::objects;
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::Value;

/// The object as the types see it.
fn through_types(object: &Value) -> Result<Value, String> {
    fn through<T: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) -> Result<Value, String> {
        let typed: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
        serde_json::to_value(typed).map_err(|error| error.to_string())
    }
    match object["kind"].as_str().unwrap_or_default() {
        "ClusterRole" => through::<ClusterRole>(object),
        "ClusterRoleBinding" => through::<ClusterRoleBinding>(object),
        "ConfigMap" => through::<ConfigMap>(object),
        "DaemonSet" => through::<DaemonSet>(object),
        "Namespace" => through::<Namespace>(object),
        "NetworkPolicy" => through::<NetworkPolicy>(object),
        "PodDisruptionBudget" => through::<PodDisruptionBudget>(object),
        "PriorityClass" => through::<PriorityClass>(object),
        "Service" => through::<Service>(object),
        "ServiceAccount" => through::<ServiceAccount>(object),
        "StatefulSet" => through::<StatefulSet>(object),
        "ValidatingAdmissionPolicy" => through::<ValidatingAdmissionPolicy>(object),
        "ValidatingAdmissionPolicyBinding" => through::<ValidatingAdmissionPolicyBinding>(object),
        other => Err(format!("{other} is not known to this test")),
    }
}

/// What of `ours` is missing or different in `theirs`.
fn lost(ours: &Value, theirs: &Value, path: &str, found: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(_)) => {
            for (name, value) in ours {
                lost(value, &theirs[name.as_str()], &format!("{path}.{name}"), found);
            }
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            for (at, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                lost(ours, theirs, &format!("{path}[{at}]"), found);
            }
        }
        // Empty lists say nothing.
        (Value::Array(ours), Value::Null) if ours.is_empty() => {}
        _ if ours == theirs => {}
        _ => found.push(format!("{path}: {ours} became {theirs}")),
    }
}

fn faults(object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    match through_types(object) {
        Ok(theirs) => lost(object, &theirs, &objects::id(object), &mut found),
        Err(error) => found.push(format!("{}: {error}", objects::id(object))),
    }
    found
}

#[test]
fn every_field_is_one_of_kubernetes() {
    let all = objects::of_folder("kubernetes");
    assert!(all.len() >= 16, "{}", all.len());
    let found: Vec<String> = all.iter().flat_map(faults).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn what_is_misspelt_is_found() {
    let all = objects::of_folder("kubernetes");
    let mut agent = objects::find(&all, "DaemonSet", "everflame-agent").clone();
    agent["spec"]["template"]["spec"]["hostPid"] = true.into();
    agent["spec"]["template"]["spec"]["containers"][0]["securityContext"]["appArmorProfile"] = "Unconfined".into();
    let found = faults(&agent);
    assert_eq!(found.len(), 1, "{found:#?}");
    agent["spec"]["template"]["spec"]["containers"][0]["securityContext"]["appArmorProfile"] = Value::Null;
    let found = faults(&agent);
    assert!(found.iter().any(|fault| fault.contains("hostPid")), "{found:#?}");
}
