//! Which node this is, and how the API server of its cluster is reached.

use everflame_agent::{
    config::host_name,
    who::kubernetes::{Access, WatchOptions},
};

use crate::{
    WrongUse,
    options::{Kubernetes, NodeOptions},
};

/// The node's name: the option, the downward API's usual variable, or the host's name.
pub fn name(options: &NodeOptions) -> String {
    let variable = || std::env::var("NODE_NAME").ok().filter(|name| !name.is_empty());
    options.node.clone().or_else(variable).unwrap_or_else(host_name)
}

/// The API server, if there is one.
pub fn access(options: &NodeOptions) -> anyhow::Result<Option<Access>> {
    let given = options.kubeconfig.as_deref().map(Access::of_kubeconfig).transpose();
    let found = || Ok(given?.or_else(Access::in_cluster));
    match options.kubernetes {
        Kubernetes::Off => Ok(None),
        Kubernetes::Auto => found(),
        Kubernetes::On => match found()? {
            None => Err(WrongUse(
                "--kubernetes on: this is no pod with a service account; give --kubeconfig, or mount the account"
                    .into(),
            )
            .into()),
            access => Ok(access),
        },
    }
}

/// What to follow of the cluster, if there is one.
pub fn watch(options: &NodeOptions, labels: Vec<String>) -> anyhow::Result<Option<WatchOptions>> {
    let labels = labels.into_iter().filter(|label| !label.is_empty()).collect();
    Ok(access(options)?.map(|access| WatchOptions { access, node: name(options), labels }))
}
