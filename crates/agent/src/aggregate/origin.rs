//! What a process's samples are sent under: the node and the project that they come from, who the
//! process is, and where it runs.

use everflame_profile::{Labels, Str};

use crate::{identity::ProcessIdentity, who::Location};

/// Where all samples of an agent come from.
#[derive(Debug, Clone)]
pub struct Origin {
    node: Str,
    /// Empty for none.
    project: Str,
}

impl Origin {
    /// A node, and the project that its samples belong to.
    pub fn new(node: &str, project: Option<&str>) -> Self {
        Self { node: node.into(), project: project.unwrap_or_default().into() }
    }

    /// The attributes of a process's samples, as far as they are known.
    pub fn labels(&self, process: &ProcessIdentity, location: &Location) -> Labels {
        let names = [&process.service, &location.service, &process.name];
        let service = names.into_iter().find(|name| !name.is_empty()).cloned().unwrap_or_default();
        let pairs = [
            ("host.name", self.node.clone()),
            ("process.pid", Str::from(process.pid.to_string())),
            ("process.executable.name", process.name.clone()),
            ("process.executable.path", process.path.clone()),
            ("service.name", service),
            ("project", self.project.clone()),
        ];
        let pairs = pairs.into_iter().map(|(name, value)| (Str::from(name), value));
        pairs.chain(location.attributes.iter().cloned()).collect()
    }
}
