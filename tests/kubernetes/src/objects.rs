//! Kubernetes objects as values: read from YAML, found by kind and name.

use std::path::Path;

use everflame_tests::machine;
use serde_json::Value;

/// All objects of a text of YAML documents, lists taken apart.
pub fn parse(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
    documents.into_iter().filter(Value::is_object).flat_map(items).collect()
}

/// All objects of a file of `deploy/`.
pub fn of_file(path: &str) -> Vec<Value> {
    let path = machine::repository().join("deploy").join(path);
    parse(&std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// All objects of the YAML files directly in a folder of `deploy/`, but for kustomizations.
pub fn of_folder(folder: &str) -> Vec<Value> {
    let path = machine::repository().join("deploy").join(folder);
    let is_manifest = |path: &Path| {
        path.extension().is_some_and(|e| e == "yaml") && path.file_name().is_some_and(|n| n != "kustomization.yaml")
    };
    let mut files: Vec<_> = std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
        .iter()
        .filter(|file| is_manifest(file))
        .flat_map(|file| parse(&std::fs::read_to_string(file).unwrap()))
        .collect()
}

/// The object of a kind and name.
pub fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|o| o["kind"] == kind && o["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name} among {:?}", objects.iter().map(id).collect::<Vec<_>>()))
}

/// `KIND NAMESPACE/NAME`.
pub fn id(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!(
        "{} {}/{}",
        text(&object["kind"]),
        text(&object["metadata"]["namespace"]),
        text(&object["metadata"]["name"])
    )
}

fn items(document: Value) -> Vec<Value> {
    match document["items"].as_array() {
        Some(items) if document["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => items.clone(),
        _ => vec![document],
    }
}
