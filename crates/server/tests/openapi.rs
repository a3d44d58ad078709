//! The checked-in OpenAPI document is the router: every route is in it and the other
//! way round, and what a real server answers has the shape that it says.

mod common;

use std::collections::BTreeSet;

use common::{
    batch::{Made, labels, now, report},
    closed::Closed,
};
use everflame_profile::{Completeness, ExecutableOpinion, SecondOpinion, report::REPORT_HEADER};
use everflame_server::web;
use serde_json::Value;

fn document() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("docs/openapi.json")).expect("JSON")
}

#[test]
fn routes_and_document_are_the_same() {
    let document = document();
    let written: BTreeSet<(String, String)> = (document["paths"].as_object().expect("paths").iter())
        .flat_map(|(path, methods)| {
            methods.as_object().expect("methods").keys().map(|m| (m.to_uppercase(), path.clone())).collect::<Vec<_>>()
        })
        .collect();
    let routed: BTreeSet<(String, String)> =
        web::route_names().into_iter().map(|(method, path)| (method.to_owned(), path.to_owned())).collect();
    assert_eq!(written, routed);
}

/// Follows a reference within the document.
fn follow<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).expect("what is referred to"),
        None => schema,
    }
}

/// Checks a value against a schema: types, required keys, no key that is not said,
/// items, enumerations, bounds.
fn conforms(document: &Value, schema: &Value, value: &Value, at: &str) {
    let schema = follow(document, schema);
    if let Some(parts) = schema["allOf"].as_array() {
        let known: BTreeSet<&str> = (parts.iter())
            .flat_map(|part| follow(document, part)["properties"].as_object().expect("properties").keys())
            .map(String::as_str)
            .collect();
        for part in parts {
            let mut only = value.clone();
            let properties = follow(document, part)["properties"].as_object().expect("properties");
            only.as_object_mut()
                .expect("an object")
                .retain(|key, _| properties.contains_key(key) || !known.contains(key.as_str()));
            conforms(document, part, &only, at);
        }
        return;
    }
    let kind = match schema["type"].as_array() {
        Some(kinds) if value.is_null() => return assert!(kinds.contains(&"null".into()), "{at} is null"),
        Some(kinds) => &kinds[0],
        None => &schema["type"],
    };
    match kind.as_str().expect("a type") {
        "object" => {
            let object = value.as_object().unwrap_or_else(|| panic!("{at} is no object: {value}"));
            for key in schema["required"].as_array().into_iter().flatten() {
                assert!(object.contains_key(key.as_str().expect("a key")), "{at} has no {key}: {value}");
            }
            for (key, item) in object {
                let at = format!("{at}.{key}");
                match (schema["properties"].get(key), schema.get("additionalProperties")) {
                    (Some(schema), _) | (None, Some(schema)) => conforms(document, schema, item, &at),
                    (None, None) => assert!(schema.get("properties").is_none(), "{at} is not in the document"),
                }
            }
        }
        "array" => {
            let items = value.as_array().unwrap_or_else(|| panic!("{at} is no array: {value}"));
            let bound = |key: &str| schema[key].as_u64();
            assert!(bound("minItems").is_none_or(|n| items.len() as u64 >= n), "{at}");
            assert!(bound("maxItems").is_none_or(|n| items.len() as u64 <= n), "{at}");
            items.iter().for_each(|item| conforms(document, &schema["items"], item, &format!("{at}[]")));
        }
        "string" => {
            let text = value.as_str().unwrap_or_else(|| panic!("{at} is no string: {value}"));
            let allowed = schema["enum"].as_array();
            assert!(allowed.is_none_or(|all| all.iter().any(|a| a == text)), "{at}: {text}");
        }
        "integer" => {
            let number = value.as_i64().unwrap_or_else(|| panic!("{at} is no integer: {value}"));
            assert!(schema["minimum"].as_i64().is_none_or(|least| number >= least), "{at}: {number}");
        }
        "number" => assert!(value.is_number(), "{at} is no number: {value}"),
        "boolean" => assert!(value.is_boolean(), "{at} is no boolean: {value}"),
        other => panic!("{at}: type {other} is not checked"),
    }
}

#[test]
fn answers_have_the_shape_that_the_document_says() {
    let server = Closed::start();
    let protobuf = ("content-type", "application/x-protobuf");
    let json = |path: &str| {
        let answer = server.request("admin", "GET", path, &[], &[]);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    };
    let made = Made::of(1, "cart", 10)
        .stack(&["_start", "main", "serve"], Completeness::Complete, now() - 9_000_000_000, 5)
        .stack(&["walk"], Completeness::NoUnwindInfo, now() - 8_000_000_000, 2);
    let mut sent = report(1, 9, 1);
    sent.in_flight.insert("spool".into(), 1);
    let executable = ExecutableOpinion { name: "envoy".into(), agree: 7, ..ExecutableOpinion::default() };
    sent.second_opinion =
        Some(SecondOpinion { every: 1000, agree: 7, executables: vec![executable], ..Default::default() });
    let header = serde_json::to_string(&sent).expect("JSON");
    let headers = [protobuf, (REPORT_HEADER, header.as_str())];
    assert_eq!(server.request("admin", "POST", "/v1development/profiles", &headers, &made.bytes()).status, 200);
    // A proxy in a pod, for what it costs.
    let mut proxy =
        Made::of(2, "envoy", 11).stack(&["_start", "main"], Completeness::Complete, now() - 7_000_000_000, 3);
    let said = [("k8s.namespace.name", "shop"), ("k8s.pod.name", "cart-1"), ("k8s.container.name", "istio-proxy")];
    proxy.batch.resources.iter_mut().for_each(|resource| *resource = labels(&said));
    let headers = [protobuf];
    assert_eq!(server.request("admin", "POST", "/v1development/profiles", &headers, &proxy.bytes()).status, 200);
    let program = std::fs::read(std::env::current_exe().expect("this program")).expect("its bytes");
    let index = everflame_symbols::build_index(&program, "this-test", &Default::default()).expect("an index");
    let id = everflame_symbols::Index::parse(index.as_slice()).expect("an index").content_id().to_string();
    assert_eq!(server.request("admin", "PUT", &format!("/api/v1/symbols/{id}"), &[], &index).status, 201);

    let document = document();
    let mut checked = 0;
    for (method, path) in web::route_names() {
        let operation = &document["paths"][path][method.to_lowercase()];
        let schema = operation.pointer("/responses/200/content/application~1json/schema");
        let Some(schema) = schema.filter(|_| method == "GET") else { continue };
        let real = path.replace("{name}", "process").replace("{id}", &id);
        for query in if path == "/api/v1/flamegraph" { &["", "?ids=true&granularity=address"][..] } else { &[""][..] } {
            let answer = json(&format!("{real}{query}"));
            conforms(&document, schema, &answer, path);
            let empty =
                answer.as_object().expect("an object").values().any(|v| v.as_array().is_some_and(Vec::is_empty));
            assert!(!empty, "{path} answers an empty list, which shows nothing: {answer}");
        }
        checked += 1;
    }
    assert_eq!(checked, 15);
    // Parameters that the document names are understood: a wrong value of each is refused.
    for (path, operation) in document["paths"].as_object().expect("paths") {
        for parameter in operation["get"]["parameters"].as_array().into_iter().flatten() {
            let parameter = follow(&document, parameter);
            let name = parameter["name"].as_str().expect("a name");
            let free = ["type", "group", "focus", "by"].contains(&name) && parameter["schema"].get("enum").is_none();
            if parameter["in"] != "query" || free {
                continue;
            }
            let path = path.replace("{name}", "process");
            server.request("admin", "GET", &format!("{path}?{name}=%7B%7B"), &[], &[]).refuses(400, "bad_request");
        }
    }
}
