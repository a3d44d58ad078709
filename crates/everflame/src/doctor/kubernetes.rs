//! Checks of the cluster: whether the API server is reached, what our account may there, and
//! whether this node is one of its.

use everflame_agent::who::kubernetes::{Client, ClientError, NodePods, node_pods};

use super::Check;
use crate::{
    node,
    options::{Kubernetes, NodeOptions},
};

/// One line each; one alone where there is no cluster.
pub fn checks(options: &NodeOptions) -> Vec<Check> {
    let access = match node::access(options) {
        Ok(Some(access)) => access,
        Ok(None) if options.kubernetes == Kubernetes::Off => return vec![Check::ok("kubernetes", "not to be asked")],
        Ok(None) => return vec![Check::ok("kubernetes", "this is no pod with an account, and no --kubeconfig")],
        Err(e) => return vec![Check::fail("kubernetes", format!("{e:#}"), "correct or leave out the option")],
    };
    let node = node::name(options);
    let client = Client::new(access);
    let server = client.server().to_owned();
    match node_pods(&client, &node) {
        Ok(found) => {
            let mut checks = vec![Check::ok("kubernetes", format!("{server} answers")), rights(&client, &found)];
            checks.push(on_node(&node, &found));
            checks
        }
        Err(e @ ClientError::Status { code: 403, .. }) => vec![
            Check::ok("kubernetes", format!("{server} answers")),
            Check::fail("kubernetes-rights", e.to_string(), e.remedy()),
        ],
        Err(e) => vec![Check::fail("kubernetes", format!("{server}: {e}"), e.remedy())],
    }
}

fn rights(client: &Client, found: &NodePods) -> Check {
    let refused: Vec<&str> = [("replicasets", "apps"), ("jobs", "batch")]
        .into_iter()
        .filter(|(kind, group)| {
            let path = format!("/apis/{group}/v1/namespaces/default/{kind}/none-of-this-name");
            matches!(client.object(&path), Err(ClientError::Status { code: 403, .. }))
        })
        .map(|(kind, _)| kind)
        .collect();
    let may = match found.may_watch {
        true => "may list and watch pods",
        false => {
            let remedy = "allow the agent's service account to watch pods";
            return Check::fail("kubernetes-rights", "may list pods, but not watch them", remedy);
        }
    };
    if refused.is_empty() {
        return Check::ok("kubernetes-rights", format!("{may}, and get their owners"));
    }
    let found = format!("{may}, but not get {}", refused.join(" and "));
    Check::warn("kubernetes-rights", found, "allow get on them: without it some pods' workloads are not known")
}

fn on_node(node: &str, found: &NodePods) -> Check {
    match found.pods {
        0 => Check::warn(
            "kubernetes-node",
            format!("no pod is on node {node}"),
            "if that is not its name, give it by --node",
        ),
        pods => Check::ok("kubernetes-node", format!("{pods} pods on node {node}")),
    }
}
