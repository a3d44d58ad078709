//! Pods of several kinds in two namespaces, and what is known of their samples.

use std::time::Duration;

use everflame_kubernetes::Plane;
use everflame_kubernetes::plane::NODE_NAME;
use everflame_tests::Outcome;
use everflame_tests::machine::wait_for;
use everflame_tests::target::envoy_configuration;
use serde_json::{Value, json};

use crate::deployment::{api, installed, patiently};

const ENVOY_PORT: u16 = 15001;

/// Workloads with truth in them, and a proxy beside one of them.
pub fn who_it_was() -> Outcome {
    let stage = installed()?;
    let kubectl = stage.kubectl();
    let (api, proxy) = (api(&stage), everflame_tests::machine::cache().join("envoy").is_file());
    let mut cart = vec![burner("cart")];
    if proxy {
        let request = format!("while :; do /bin/busybox wget -q -O /dev/null http://127.0.0.1:{ENVOY_PORT}/; done");
        cart.push(json!({
            "name": "istio-proxy", "image": "proxy:1", "imagePullPolicy": "Never",
            "args": ["--config-yaml", envoy_configuration(ENVOY_PORT), "--concurrency", "1", "--disable-hot-restart"],
        }));
        cart.push(json!({
            "name": "visitor", "image": "tools:1", "imagePullPolicy": "Never", "command": ["/bin/busybox", "sh", "-c", request],
        }));
    }
    let labels = |app: &str| json!({"app": app});
    let template = |app: &str, spec: Value| json!({"metadata": {"labels": labels(app)}, "spec": spec});
    namespaces(&stage, &["shop", "pay"]);
    kubectl.apply(&[
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {"selector": {"matchLabels": labels("cart")}, "template": template("cart", json!({"containers": cart}))},
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "ledger", "namespace": "pay"},
            "spec": {
                "serviceName": "ledger", "selector": {"matchLabels": labels("ledger")},
                "template": template("ledger", json!({"containers": [burner("ledger")]})),
            },
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "meter", "namespace": "shop"},
            "spec": {
                "selector": {"matchLabels": labels("meter")},
                "template": template("meter", json!({"containers": [burner("meter")]})),
            },
        }),
        json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "settle", "namespace": "pay"},
            "spec": {"template": template("settle", json!({
                "restartPolicy": "Never", "initContainers": [brief("prepare")], "containers": [burner("settle")],
            }))},
        }),
    ]);
    let mut expected = vec![
        ("shop", "cart", "cart"),
        ("shop", "meter", "meter"),
        ("pay", "settle", "prepare"),
        ("pay", "settle", "settle"),
        ("pay", "ledger", "ledger"),
    ];
    if proxy {
        expected.push(("shop", "cart", "istio-proxy"));
    } else {
        println!("without the proxy: there is no Envoy here (scripts/setup.sh test)");
    }
    for (namespace, workload, container) in expected {
        let id = container_id(&stage, namespace, workload, container);
        let query = format!("{{\"container.id\"=\"{id}\"}}");
        let samples = patiently(&stage, &format!("samples of {namespace}/{workload}/{container}"), || {
            Some(api.samples(&query)).filter(|samples| *samples >= 20)
        });
        println!("{namespace}/{workload}/{container} {id:.12}: {samples} samples");
        if container != "istio-proxy" && container != "prepare" {
            wait_for("whole stacks with names", Duration::from_secs(60), || {
                (api.graph(&query).count(|path| path.has_chain(&["main", "descend"]) && !path.marked()) > 0)
                    .then_some(())
            });
        }
        named(&stage, &query, namespace, workload, container);
    }
    Ok(())
}

/// Makes namespaces in which pods can be made.
pub fn namespaces(plane: &Plane, names: &[&str]) {
    let kubectl = plane.kubectl();
    let namespace = |name: &&str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    kubectl.apply(&names.iter().map(namespace).collect::<Vec<_>>());
    wait_for("accounts of the namespaces", Duration::from_secs(60), || {
        names.iter().all(|name| kubectl.get(&["serviceaccount", "default", "-n", name]).is_some()).then_some(())
    });
}

/// A pod that is gone before anybody looks.
pub fn two_seconds() -> Outcome {
    let stage = installed()?;
    let api = api(&stage);
    stage.kubectl().apply(&[json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "brief", "namespace": "default"},
        "spec": {"restartPolicy": "Never", "containers": [brief("brief")]},
    })]);
    let id = container_id(&stage, "default", "brief", "brief");
    wait_for("the pod's end", Duration::from_secs(60), || {
        let pod = stage.kubectl().get(&["pod", "brief", "-n", "default"])?;
        (pod["status"]["phase"] == "Succeeded").then_some(())
    });
    stage.kubectl().run(&["delete", "pod", "brief", "-n", "default", "--now"]);
    let query = format!("{{\"container.id\"=\"{id}\"}}");
    let samples = api.wait_for_samples(&query, 15);
    println!("a pod of two seconds: {samples} samples");
    named(&stage, &query, "default", "brief", "brief");
    Ok(())
}

/// Every sample of a container says whose it is; a pod that nobody owns is its own workload.
pub fn named(plane: &Plane, query: &str, namespace: &str, workload: &str, container: &str) {
    let api = api(plane);
    let selector = query.trim_end_matches('}');
    let all = api.samples(query);
    // Those that say something else, or nothing.
    let others = [
        format!("namespace!=\"{namespace}\""),
        format!("workload!=\"{workload}\""),
        format!("container!=\"{container}\""),
        format!("pod!~\"{workload}.*\""),
        format!("node!=\"{NODE_NAME}\""),
    ];
    let wrong: Vec<u64> = others.iter().map(|other| api.samples(&format!("{selector},{other}}}"))).collect();
    println!(
        "{namespace}/{workload}/{container}: {all} samples; with another namespace, workload, container, pod, node: {wrong:?}"
    );
    assert!(
        wrong.iter().sum::<u64>() * 1000 <= all,
        "{wrong:?} of {all} samples of {namespace}/{workload}/{container} are another's"
    );
}

/// A container that burns in a known way.
pub fn burner(name: &str) -> Value {
    json!({"name": name, "image": "truth:1", "imagePullPolicy": "Never", "args": ["600"]})
}

/// One that ends after two seconds of it.
fn brief(name: &str) -> Value {
    json!({"name": name, "image": "truth:1", "imagePullPolicy": "Never", "args": ["2"]})
}

/// The id of a started container of the first pod of a workload.
pub fn container_id(plane: &Plane, namespace: &str, workload: &str, container: &str) -> String {
    patiently(plane, &format!("container {namespace}/{workload}/{container}"), || {
        let pods = plane.kubectl().get(&["pods", "-n", namespace])?;
        let pods = pods["items"].as_array()?.iter();
        let is_ours = |pod: &&Value| pod["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(workload));
        let statuses = pods
            .filter(is_ours)
            .flat_map(|pod| ["initContainerStatuses", "containerStatuses"].map(|kind| pod["status"][kind].as_array()));
        let status = statuses.flatten().flatten().find(|status| status["name"] == container)?;
        let id = status["containerID"].as_str()?.trim_start_matches("containerd://");
        (!id.is_empty()).then(|| id.to_owned())
    })
}
