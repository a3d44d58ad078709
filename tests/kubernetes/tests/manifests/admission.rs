//! The admission policy, evaluated: the pods of the manifests are let in, and each way to make
//! more of them is refused in our words.

use std::collections::HashMap;

use cel::parser::Parser;
use cel::{Context, Value as Cel};
use everflame_kubernetes::objects;
use serde_json::{Value, json};

/// The messages of the validations that refuse a pod, or what went wrong with one: that refuses
/// too (`failurePolicy: Fail`).
fn refusals(pod: &Value, before: &Value) -> Vec<String> {
    let policy = objects::of_file("kubernetes/admission-policy.yaml");
    let spec = &objects::find(&policy, "ValidatingAdmissionPolicy", "everflame-pods")["spec"];
    let mut variables: HashMap<String, Cel> = HashMap::new();
    let evaluate = |expression: &Value, variables: &HashMap<String, Cel>| -> Result<Cel, String> {
        let expression = expression.as_str().unwrap();
        let parser = Parser::default().enable_optional_syntax(true);
        let parsed = parser.parse(expression).map_err(|e| format!("{expression}: {e}"))?;
        let mut context = Context::default();
        context.add_variable("object", pod).unwrap();
        context.add_variable("oldObject", before).unwrap();
        context.add_variable_from_value("variables", variables.clone());
        context.resolve(&parsed).map_err(|e| format!("{expression}: {e}"))
    };
    for variable in spec["variables"].as_array().unwrap() {
        let value = evaluate(&variable["expression"], &variables).unwrap();
        variables.insert(variable["name"].as_str().unwrap().into(), value);
    }
    let judged = spec["validations"].as_array().unwrap().iter().filter_map(|validation| {
        match evaluate(&validation["expression"], &variables) {
            Ok(Cel::Bool(true)) => None,
            Ok(Cel::Bool(false)) => Some(validation["message"].as_str().unwrap().to_owned()),
            other => Some(format!("{other:?}")),
        }
    });
    judged.collect()
}

/// A pod of ours as it comes to be admitted, with what the API server has added to it by then.
fn pod(kind: &str, name: &str) -> Value {
    let all = objects::of_folder("kubernetes");
    let template = &objects::find(&all, kind, name)["spec"]["template"];
    let mut pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"]});
    let token =
        json!({"name": "kube-api-access-x", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}});
    let spec = pod["spec"].as_object_mut().unwrap();
    spec.entry("volumes").or_insert_with(|| json!([])).as_array_mut().unwrap().push(token);
    spec.insert("schedulerName".into(), json!("default-scheduler"));
    spec.insert("hostNetwork".into(), json!(false));
    pod
}

fn agent() -> Value {
    pod("DaemonSet", "everflame-agent")
}

fn server() -> Value {
    pod("StatefulSet", "everflame-server")
}

/// Changes what a pointer points to, adds it, or removes it where there is no value.
fn set(pod: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match pod.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}")) {
        Value::Array(list) => list.push(value),
        Value::Object(fields) if value.is_null() => _ = fields.remove(name).unwrap(),
        other => other[name] = value,
    }
}

#[test]
fn the_pods_of_the_manifests_are_let_in() {
    for pod in [agent(), server()] {
        assert_eq!(refusals(&pod, &Value::Null), Vec::<String>::new());
        assert_eq!(refusals(&pod, &pod), Vec::<String>::new());
    }
}

#[test]
fn whatever_is_more_is_refused_in_our_words() {
    let container = "/spec/containers/0";
    let security = "/spec/containers/0/securityContext";
    let volume = |path: &str| json!({"name": "more", "hostPath": {"path": path}});
    let more = |name: &str| {
        let mut container = agent()["spec"]["containers"][0].clone();
        container["name"] = name.into();
        container
    };
    let (only_agent, network, directory, privileged, six, masked, joins, one, image) = (
        "only the agent sees",
        "node's network or IPC",
        "no directory of the node",
        "no container is privileged",
        "only the agent adds its six",
        "seccomp profile and a masked /proc",
        "no container joins",
        "one container",
        "change it there too",
    );
    let cases: Vec<(Value, String, Value, &str)> = vec![
        (agent(), format!("{security}/privileged"), json!(true), privileged),
        (agent(), format!("{security}/allowPrivilegeEscalation"), json!(true), privileged),
        (agent(), format!("{security}/allowPrivilegeEscalation"), Value::Null, privileged),
        (agent(), format!("{security}/capabilities/add/-"), json!("SYS_ADMIN"), six),
        (agent(), format!("{security}/capabilities/add/-"), json!("CAP_BPF"), six),
        (agent(), format!("{security}/capabilities/drop"), json!([]), six),
        (agent(), format!("{security}/readOnlyRootFilesystem"), json!(false), one),
        (agent(), format!("{security}/procMount"), json!("Unmasked"), masked),
        (agent(), format!("{security}/seccompProfile"), json!({"type": "Unconfined"}), masked),
        (agent(), "/spec/securityContext/seccompProfile".into(), json!({"type": "Unconfined"}), masked),
        (agent(), "/spec/securityContext".into(), json!({}), masked),
        (agent(), "/spec/volumes/-".into(), volume("/"), directory),
        (agent(), "/spec/volumes/-".into(), volume("/sys/fs/bpf/../.."), directory),
        (agent(), "/spec/hostNetwork".into(), json!(true), network),
        (agent(), "/spec/hostIPC".into(), json!(true), network),
        (agent(), format!("{container}/image"), json!("registry.example/everflame:0.1.0"), image),
        (agent(), format!("{container}/args"), json!(["server"]), one),
        (agent(), format!("{container}/args"), Value::Null, one),
        (agent(), format!("{container}/command"), json!(["/bin/sh"]), one),
        (agent(), "/spec/containers/-".into(), more("second"), one),
        (agent(), "/spec/initContainers".into(), json!([more("before")]), one),
        (agent(), "/spec/ephemeralContainers".into(), json!([more("debugger")]), joins),
        (server(), "/spec/hostPID".into(), json!(true), only_agent),
        (server(), "/spec/hostNetwork".into(), json!(true), network),
        (server(), "/spec/volumes/-".into(), volume("/sys/fs/bpf"), directory),
        (server(), format!("{security}/privileged"), json!(true), privileged),
        (server(), format!("{security}/capabilities/add"), json!(["BPF"]), six),
        (server(), "/spec/initContainers".into(), json!([{"name": "before", "image": "x"}]), privileged),
        (server(), "/spec/ephemeralContainers".into(), json!([more("debugger")]), joins),
        (server(), "/spec/serviceAccountName".into(), json!("everflame-agent"), one),
    ];
    for (mut pod, pointer, value, words) in cases {
        // A pointer that is misspelt would change nothing that counts.
        set(&mut pod, &pointer, value.clone());
        let refused = refusals(&pod, &Value::Null);
        assert!(refused.iter().any(|message| message.contains(words)), "{pointer} = {value}: {refused:?}");
        assert!(refused.iter().all(|message| !message.contains("Err(")), "{pointer} = {value}: {refused:?}");
    }
}

/// A pod that runs keeps its image while the policy names the next one; it may not take a third.
#[test]
fn an_upgrade_leaves_running_pods_alone() {
    let of = |image: &str| {
        let mut pod = agent();
        pod["spec"]["containers"][0]["image"] = image.into();
        pod
    };
    assert_eq!(refusals(&of("everflame:0.0.9"), &of("everflame:0.0.9")), Vec::<String>::new());
    let refused = refusals(&of("other:1"), &of("everflame:0.0.9"));
    assert!(refused.len() == 1 && refused[0].contains("change it there too"), "{refused:?}");
}

/// It is asked about every pod of the namespace and everything that can change one.
#[test]
fn every_pod_is_judged() {
    let policy = objects::of_file("kubernetes/admission-policy.yaml");
    let spec = &objects::find(&policy, "ValidatingAdmissionPolicy", "everflame-pods")["spec"];
    assert_eq!(spec["failurePolicy"], "Fail");
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
        "resources": ["pods", "pods/ephemeralcontainers"]}]);
    assert_eq!(spec["matchConstraints"]["resourceRules"], rules);
    let binding = &objects::find(&policy, "ValidatingAdmissionPolicyBinding", "everflame-pods")["spec"];
    assert_eq!((&binding["policyName"], &binding["validationActions"]), (&json!("everflame-pods"), &json!(["Deny"])));
    let all = objects::of_folder("kubernetes");
    let image =
        objects::find(&all, "DaemonSet", "everflame-agent")["spec"]["template"]["spec"]["containers"][0]["image"]
            .clone();
    let variables = spec["variables"].as_array().unwrap();
    let named = variables.iter().find(|variable| variable["name"] == "image").unwrap();
    assert_eq!(named["expression"], format!("'{}'", image.as_str().unwrap()));
}
