//! What is read of the API's objects: the few fields that become attributes. Everything else is
//! passed over as it is parsed, so that a large object costs no memory.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// A pod, a bookmark, or an error in a stream of events.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Object {
    pub metadata: Metadata,
    pub spec: Spec,
    pub status: StatusOrWord,
    /// Of an error.
    pub code: u16,
    pub message: String,
}

/// A list's own data.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub resource_version: String,
    /// RFC 3339, to the second, UTC.
    #[serde(deserialize_with = "or_default")]
    pub creation_timestamp: String,
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub owner_references: Vec<OwnerReference>,
}

/// Who made an object.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    #[serde(deserialize_with = "or_default")]
    pub controller: bool,
}

impl Metadata {
    /// The one owner that controls it.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|owner| owner.controller)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    #[serde(deserialize_with = "or_default")]
    pub containers: Vec<ContainerSpec>,
    #[serde(deserialize_with = "or_default")]
    pub init_containers: Vec<ContainerSpec>,
    #[serde(deserialize_with = "or_default")]
    pub ephemeral_containers: Vec<ContainerSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    pub name: String,
    #[serde(deserialize_with = "or_default")]
    pub image: String,
}

/// A pod's state, or the one word that stands there in an error.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum StatusOrWord {
    Status(Status),
    Word(#[allow(dead_code, reason = "only that it is no status counts")] String),
}

impl Default for StatusOrWord {
    fn default() -> Self {
        Self::Status(Status::default())
    }
}

impl StatusOrWord {
    pub fn containers(self) -> impl Iterator<Item = ContainerStatus> {
        let status = match self {
            Self::Status(status) => status,
            Self::Word(_) => Status::default(),
        };
        [status.init_container_statuses, status.container_statuses, status.ephemeral_container_statuses]
            .into_iter()
            .flatten()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    #[serde(deserialize_with = "or_default")]
    pub container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "or_default")]
    pub init_container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "or_default")]
    pub ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    pub name: String,
    #[serde(deserialize_with = "or_default")]
    pub image: String,
    #[serde(rename = "containerID", deserialize_with = "or_default")]
    pub container_id: String,
    #[serde(deserialize_with = "or_default")]
    pub state: ContainerState,
    #[serde(deserialize_with = "or_default")]
    pub last_state: ContainerState,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    #[serde(deserialize_with = "or_default")]
    pub terminated: Terminated,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Terminated {
    #[serde(rename = "containerID", deserialize_with = "or_default")]
    pub container_id: String,
}

impl ContainerStatus {
    /// The ids that the container has had of late, without the runtime's name before them.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        let ids = [&self.container_id, &self.state.terminated.container_id, &self.last_state.terminated.container_id];
        ids.into_iter().filter_map(|id| id.split_once("://")).map(|(_, id)| id).filter(|id| !id.is_empty())
    }
}

/// One of a stream of events.
#[derive(Debug, Deserialize)]
pub struct Event {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub object: Object,
}

/// The API writes `null` where there is nothing.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
#[path = "object_tests.rs"]
mod of_kubernetes;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bookmarks_and_errors_are_events_too() {
        let text = r#"{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"12","creationTimestamp":null},"spec":{"containers":null},"status":{}}}
            {"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old","reason":"Expired","code":410}}"#;
        let events: Vec<Event> = serde_json::Deserializer::from_str(text).into_iter().map(Result::unwrap).collect();
        assert_eq!((events[0].kind.as_str(), events[0].object.metadata.resource_version.as_str()), ("BOOKMARK", "12"));
        assert_eq!((events[1].object.code, events[1].object.message.as_str()), (410, "too old"));
    }

    #[test]
    fn ids_of_now_and_before() {
        let text = r#"{"name":"app","containerID":"containerd://aa","state":{"running":{}},"lastState":{"terminated":{"containerID":"containerd://bb","exitCode":1}}}"#;
        let status: ContainerStatus = serde_json::from_str(text).unwrap();
        assert_eq!(status.ids().collect::<Vec<_>>(), ["aa", "bb"]);
        let waiting: ContainerStatus =
            serde_json::from_str(r#"{"name":"app","containerID":"","state":{"waiting":{}}}"#).unwrap();
        assert_eq!(waiting.ids().count(), 0);
    }
}
