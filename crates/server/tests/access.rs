//! Who may do what: every route for every kind of caller, projects that see nothing of each
//! other, tokens that come and go, and log-ins.

mod common;

use std::collections::BTreeMap;

use common::{
    batch::{Made, now, report},
    closed::{Closed, KINDS},
    raw::{self, framed},
    server::store,
};
use everflame_profile::{Completeness, report::REPORT_HEADER};
use everflame_server::{Config, Error, Server, access::AccessConfig, web};
use serde_json::{Value, json};

/// For each route, what nobody, an agent, a reader, an admin and a reader of all projects get.
const TABLE: [(&str, &str, [u16; 5]); 27] = [
    ("GET", "/api/v1/flamegraph", [401, 403, 200, 200, 200]),
    ("GET", "/api/v1/top", [401, 403, 200, 200, 200]),
    ("GET", "/api/v1/series", [401, 403, 200, 200, 200]),
    ("GET", "/api/v1/diff", [401, 403, 200, 200, 200]),
    ("GET", "/api/v1/types", [401, 403, 200, 200, 200]),
    ("GET", "/api/v1/labels", [401, 403, 200, 200, 200]),
    ("GET", "/api/v1/labels/{name}/values", [401, 403, 200, 200, 200]),
    ("GET", "/api/v1/processes", [401, 403, 200, 200, 200]),
    ("GET", "/api/v1/mesh", [401, 403, 200, 200, 200]),
    ("GET", "/api/v1/nodes", [401, 403, 200, 200, 200]),
    ("GET", "/api/v1/accounting", [401, 403, 200, 200, 200]),
    ("GET", "/api/v1/symbols", [401, 403, 200, 200, 200]),
    // An empty body is no index, and nobody has one of this id.
    ("PUT", "/api/v1/symbols/{id}", [401, 422, 403, 422, 403]),
    ("HEAD", "/api/v1/symbols/{id}", [401, 404, 403, 404, 404]),
    ("GET", "/api/v1/symbols/{id}", [401, 404, 403, 404, 404]),
    ("POST", "/v1development/profiles", [401, 200, 403, 200, 403]),
    (
        "POST",
        "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
        // No gRPC: what is let in is told so, in gRPC.
        [401, 200, 403, 200, 403],
    ),
    ("GET", "/api/v1/session", [401, 200, 200, 200, 200]),
    ("POST", "/api/v1/session", [415, 415, 415, 415, 415]),
    ("DELETE", "/api/v1/session", [200, 200, 200, 200, 200]),
    ("GET", "/api/v1/tokens", [401, 403, 403, 200, 403]),
    ("POST", "/api/v1/tokens", [401, 403, 403, 415, 403]),
    ("POST", "/api/v1/tokens/{id}/rotate", [401, 403, 403, 415, 403]),
    ("DELETE", "/api/v1/tokens/{id}", [401, 403, 403, 404, 403]),
    ("GET", "/metrics", [401, 403, 403, 200, 200]),
    ("GET", "/healthz", [200, 200, 200, 200, 200]),
    ("GET", "/readyz", [200, 200, 200, 200, 200]),
];

#[test]
fn every_route_for_every_kind_of_caller() {
    let server = Closed::start();
    let expected: BTreeMap<(&str, &str), [u16; 5]> = TABLE.iter().map(|(m, p, s)| ((*m, *p), *s)).collect();
    assert_eq!(expected.len(), TABLE.len());
    let routed = web::route_names();
    assert_eq!(routed.len(), TABLE.len(), "the table has routes that the router has not");
    for (method, path) in routed {
        let statuses = expected.get(&(method, path)).unwrap_or_else(|| panic!("{method} {path} is not in the table"));
        let real = path.replace("{name}", "process").replace("{id}", "00000000000000000000000000000000");
        for (kind, status) in KINDS.iter().zip(statuses) {
            let mut headers = vec![];
            if path == "/v1development/profiles" {
                headers.push(("content-type", "application/x-protobuf"));
            }
            let answer = server.request(kind, method, &real, &headers, b"");
            assert_eq!(answer.status, *status, "{method} {path} for {kind}: {}", answer.text());
            if *status == 401 {
                assert!(answer.headers.get("www-authenticate").is_some(), "{method} {path}");
                assert!(method == "HEAD" || answer.refuses(401, "unauthorized").contains("token"));
            }
            let secret = server.token(kind);
            assert!(secret.is_empty() || !answer.text().contains(secret), "{method} {path} tells a secret");
        }
    }
    // The page itself is for everybody: it asks for the token.
    assert_eq!(server.request("nobody", "GET", "/", &[], b"").status, 200);
    // Over gRPC the refusals are gRPC's.
    let grpc = |kind: &str| {
        let bearer = format!("Bearer {}", server.token(kind));
        let headers = if kind == "nobody" { vec![] } else { vec![("authorization", bearer.as_str())] };
        raw::grpc(server.running.address, &headers, framed(0, &[]))
    };
    let codes: Vec<String> = KINDS.iter().map(|kind| grpc(kind).0).collect();
    assert_eq!(codes, ["16", "0", "7", "0", "7"]);
}

#[test]
fn wrong_credentials_are_refused_and_not_repeated() {
    let server = Closed::start();
    let token = server.token("reader of shop").to_owned();
    let wrong = [
        "Bearer",
        "Bearer ",
        "Bearer evf_0000000000000000000000000000000000000000000000000000000000000000",
        "Basic dXNlcjpwYXNz",
        &token,
        &format!("Bearer {token}0"),
        &format!("Bearer {}", &token[..token.len() - 1]),
        &format!("Bearer {}", token.to_uppercase()),
        &format!("Bearer {}", "x".repeat(5_000)),
    ];
    for value in wrong {
        let answer = server.running.request("GET", "/api/v1/types", &[("authorization", value)], b"");
        let message = answer.refuses(401, "unauthorized");
        assert!(!message.contains("evf_") && !message.contains("xxx"), "{message}");
    }
    // The second is what agents of another deployment send.
    for scheme in ["bearer", "ApiKey"] {
        let value = format!("{scheme} {token}");
        assert_eq!(server.running.request("GET", "/api/v1/types", &[("authorization", &value)], b"").status, 200);
    }
}

fn sent(id: u8, process: &str, project_claimed: &str) -> Vec<u8> {
    let mut made = Made::of(id, process, u32::from(id)).stack(
        &["_start", &format!("{process}_main")],
        Completeness::Complete,
        now() - 5_000_000_000,
        10,
    );
    let claim = |labels: &mut everflame_profile::Labels| {
        let pairs = labels.iter().cloned().chain([("project".into(), project_claimed.into())]);
        *labels = pairs.collect();
    };
    // Where a sender can claim it: on the resource, and on each sample, which goes before.
    made.batch.resources.iter_mut().for_each(claim);
    made.batch.profiles.iter_mut().flat_map(|p| &mut p.samples).for_each(|sample| claim(&mut sample.labels));
    made.bytes()
}

#[test]
fn projects_see_nothing_of_each_other() {
    let server = Closed::start();
    let protobuf = ("content-type", "application/x-protobuf");
    // One instance claims to be the other's as well.
    for (kind, id, process) in [("agent of shop", 1, "cart"), ("agent of bank", 2, "vault")] {
        let mut said = report(u64::from(id), 10, 0);
        said.project = "shop".into();
        said.node = format!("{process}-node");
        let header = serde_json::to_string(&said).expect("JSON");
        let headers = [protobuf, (REPORT_HEADER, header.as_str())];
        let answer = server.request(kind, "POST", "/v1development/profiles", &headers, &sent(id, process, "shop"));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let json = |kind: &str, path: &str| {
        let answer = server.request(kind, "GET", path, &[], b"");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    };
    for (kind, own, other) in [("reader of shop", "cart", "vault"), ("reader of bank", "vault", "cart")] {
        let graph = json(kind, "/api/v1/flamegraph");
        assert_eq!((&graph["samples"], &graph["complete"]["samples"]), (&json!(10), &json!(10)));
        // However they ask, they see their own and nothing of the other's: not by a query that
        // names the other project, and not by what is left out.
        let all = [
            "flamegraph",
            "flamegraph?group=project,process,node",
            "flamegraph?query=%7Bproject%3D~%22.*%22%7D",
            "flamegraph?max_nodes=1",
            "top",
            "top?limit=1",
            "series?by=process",
            "series?by=project&limit=1",
            "diff?base_from=now-1h&base_until=now&base_query=%7Bproject%3D~%22.*%22%7D",
            "labels",
            "labels/process/values",
            "labels/project/values",
            "labels/pid/values",
            "processes",
            "nodes",
            "accounting",
            "symbols",
            "types",
        ];
        for path in all {
            let text = json(kind, &format!("/api/v1/{path}")).to_string();
            assert!(!text.contains(other), "{kind} {path} tells of {other}: {text}");
        }
        for path in ["flamegraph?query=%7Bproject%3D%22OTHER%22%7D", "top?query=%7Bprocess%3D%22OTHER%22%7D"] {
            let project = if other == "cart" && path.contains("project") { "shop" } else { other };
            let project = if other == "vault" && path.contains("project") { "bank" } else { project };
            let answer = json(kind, &format!("/api/v1/{}", path.replace("OTHER", project)));
            assert_eq!(answer["samples"], 0, "{kind} {path}");
        }
        assert_eq!(json(kind, "/api/v1/processes")["processes"].as_array().map(Vec::len), Some(1));
        assert_eq!(json(kind, "/api/v1/labels/process/values")["count"], 1);
        for (path, list) in [("/api/v1/nodes", "nodes"), ("/api/v1/accounting", "instances")] {
            let answer = json(kind, path);
            let rows = answer[list].as_array().expect("rows");
            assert_eq!((rows.len(), &rows[0]["node"]), (1, &json!(format!("{own}-node"))), "{path}");
        }
        let stored = json(kind, "/api/v1/accounting")["instances"][0]["stored"].clone();
        assert_eq!(stored, 10, "the account is the project's own");
    }
    // Who may see all sees all, under the names that the server gave.
    let values = json("admin", "/api/v1/labels/project/values");
    let mut names: Vec<&str> =
        values["values"].as_array().expect("values").iter().filter_map(|v| v["value"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["bank", "shop"]);
    assert_eq!(json("reader of all", "/api/v1/flamegraph")["samples"], 20);
    assert_eq!(json("admin", "/api/v1/accounting")["instances"].as_array().map(Vec::len), Some(2));
}

#[test]
fn types_units_and_symbols_are_a_projects_own() {
    let server = Closed::start();
    let protobuf = [("content-type", "application/x-protobuf")];
    // The bank has allocations, of bytes, in an executable with an index.
    let program = std::fs::read(std::env::current_exe().expect("this program")).expect("its bytes");
    let index = everflame_symbols::build_index(&program, "the-banks-program", &Default::default()).expect("an index");
    let content_id = everflame_symbols::Index::parse(index.as_slice()).expect("an index").content_id();
    let put = |kind: &str, id: &str| server.request(kind, "PUT", &format!("/api/v1/symbols/{id}"), &[], &index).status;
    assert_eq!(put("agent of bank", &content_id.to_string()), 201);
    let build_id = everflame_symbols::Index::parse(index.as_slice()).expect("an index").build_id().to_owned();
    assert!(!build_id.is_empty());
    assert_eq!(put("agent of bank", &build_id), 403, "a build id speaks for all projects");
    assert_eq!(put("admin", &build_id), 201);
    let mapping = everflame_profile::Mapping {
        name: "the-banks-program".into(),
        build_id: "".into(),
        content_id: Some(content_id),
    };
    let mut made = Made::of(3, "vault", 3);
    let frame = common::batch::in_executable(&std::sync::Arc::new(mapping), 0x1000);
    made.add(vec![frame], Completeness::Complete, std::iter::once(now() - 5_000_000_000));
    made.batch.profiles[0].sample_type = everflame_profile::SampleType { name: "alloc".into(), unit: "bytes".into() };
    let bytes = made.bytes();
    assert_eq!(server.request("agent of bank", "POST", "/v1development/profiles", &protobuf, &bytes).status, 200);
    let shop = sent(1, "cart", "");
    assert_eq!(server.request("agent of shop", "POST", "/v1development/profiles", &protobuf, &shop).status, 200);
    let json = |kind: &str, path: &str| server.request(kind, "GET", path, &[], b"").json();
    let types = |kind: &str| json(kind, "/api/v1/types")["types"].to_string();
    assert!(types("reader of bank").contains("alloc") && types("admin").contains("alloc"));
    assert!(!types("reader of shop").contains("alloc") && types("reader of shop").contains("cpu"));
    assert_eq!(json("reader of bank", "/api/v1/flamegraph?type=alloc")["unit"], "bytes");
    assert_eq!(json("reader of shop", "/api/v1/flamegraph?type=alloc")["unit"], "count", "as of any unknown type");
    assert_eq!(json("reader of shop", "/api/v1/series?type=alloc")["unit"], "count");
    let names = |kind: &str| json(kind, "/api/v1/symbols?type=alloc")["executables"].to_string();
    assert!(names("reader of bank").contains("the-banks-program"));
    assert!(!names("reader of shop").contains("the-banks-program"));
    assert!(names("admin").contains("the-banks-program"));
}

#[test]
fn tokens_come_turn_and_go_in_a_running_server() {
    let server = Closed::start();
    let kind = [("content-type", "application/json")];
    let admin = |method: &str, path: &str, body: Value| {
        server.request("admin", method, path, &kind, body.to_string().as_bytes())
    };
    let made = admin("POST", "/api/v1/tokens", json!({"role": "reader", "name": "ci", "expires_s": 3_600}));
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    let (id, secret) = (made["id"].as_str().expect("an id"), made["token"].as_str().expect("a token"));
    let with = |secret: &str| {
        let bearer = format!("Bearer {secret}");
        server.running.request("GET", "/api/v1/session", &[("authorization", &bearer)], b"")
    };
    let me = with(secret).json();
    assert_eq!((&me["role"], &me["name"], &me["id"]), (&json!("reader"), &json!("ci"), &json!(id)));
    let listed = admin("GET", "/api/v1/tokens", Value::Null);
    assert!(!listed.text().contains(secret) && !listed.text().contains("sha256"), "{}", listed.text());
    let listed = listed.json();
    let of = |id: &str| listed["tokens"].as_array().and_then(|all| all.iter().find(|t| t["id"] == id)).cloned();
    assert!(of(id).expect("the token")["last_used"].is_i64());
    // Its successor is good at once, and it goes on for the overlap.
    let turned = admin("POST", &format!("/api/v1/tokens/{id}/rotate"), json!({"overlap_s": 2})).json();
    let successor = turned["token"].as_str().expect("a token");
    assert_eq!((with(secret).status, with(successor).status), (200, 200));
    assert_eq!(turned["role"], "reader");
    std::thread::sleep(std::time::Duration::from_millis(3_100));
    assert_eq!((with(secret).status, with(successor).status), (401, 200));
    // Revoked is refused from the next request on.
    let successor_id = turned["id"].as_str().expect("an id");
    assert_eq!(admin("DELETE", &format!("/api/v1/tokens/{successor_id}"), Value::Null).status, 200);
    assert_eq!(with(successor).status, 401);
    assert_eq!(admin("DELETE", &format!("/api/v1/tokens/{successor_id}"), Value::Null).status, 404);
    for wrong in [
        json!({"role": "king"}),
        json!({"role": "reader", "expires_s": 0}),
        json!({"role": "admin", "project": "shop"}),
        json!({"role": "reader", "name": "a\nb"}),
        json!({"role": "reader", "surprise": true}),
        json!([]),
    ] {
        assert_eq!(admin("POST", "/api/v1/tokens", wrong.clone()).status, 400, "{wrong}");
    }
    // What another process does to the file counts at once as well, and nothing of a secret is in it.
    let file = server.directory.path().join("tokens.json");
    let text = std::fs::read_to_string(&file).expect("the file");
    assert!(!text.contains("evf_"), "{text}");
    let offline = everflame_server::access::TokenFile::new(server.directory.path());
    let reader = server.token("reader of shop").to_owned();
    assert_eq!(with(&reader).status, 200);
    offline
        .change(|tokens| {
            tokens.retain(|token| token.name != "reader of shop");
            Ok(())
        })
        .expect("a change");
    assert_eq!(with(&reader).status, 401);
    // A file that cannot be read changes nothing, and one that is gone opens nothing.
    std::fs::write(&file, "{").expect("a write");
    assert_eq!((with(server.token("admin")).status, with(&reader).status), (200, 401));
    std::fs::remove_file(&file).expect("a removal");
    assert_eq!(server.request("nobody", "GET", "/api/v1/types", &[], b"").status, 401);
}

#[test]
fn people_log_in_and_out() {
    let server = Closed::start();
    let kind = [("content-type", "application/json")];
    let log_in = |token: &str| {
        let body = json!({ "token": token }).to_string();
        server.running.request("POST", "/api/v1/session", &kind, body.as_bytes())
    };
    let answer = log_in(server.token("reader of shop"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let set = answer.headers.get("set-cookie").and_then(|v| v.to_str().ok()).expect("a cookie").to_owned();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict") && set.contains("Path=/"), "{set}");
    assert!(!set.contains("Secure"), "there is no TLS here");
    let cookie = set.split(';').next().expect("a pair").to_owned();
    let with = |method: &str, path: &str| server.running.request(method, path, &[("cookie", &cookie)], b"");
    assert_eq!(with("GET", "/api/v1/types").status, 200);
    assert_eq!(with("GET", "/api/v1/session").json()["session"], true);
    // It reads and no more, whatever its token may do.
    let admins = log_in(server.token("admin"));
    let admins = admins.headers.get("set-cookie").and_then(|v| v.to_str().ok()).expect("a cookie");
    let admins = admins.split(';').next().expect("a pair").to_owned();
    let changed = server.running.request("POST", "/api/v1/tokens", &[("cookie", &admins), kind[0]], b"{}");
    assert!(changed.refuses(403, "forbidden").contains("session"));
    // Not from another page.
    let foreign = [("cookie", cookie.as_str()), ("origin", "http://evil.example")];
    assert_eq!(server.running.request("GET", "/api/v1/types", &foreign, b"").status, 403);
    // The session ends with its token…
    server.revoke("admin");
    assert_eq!(server.running.request("GET", "/api/v1/types", &[("cookie", &admins)], b"").status, 401);
    // …and by hand.
    let out = with("DELETE", "/api/v1/session");
    assert!(out.headers.get("set-cookie").is_some_and(|v| v.to_str().is_ok_and(|v| v.contains("Max-Age=0"))));
    assert_eq!(with("GET", "/api/v1/types").status, 401);
    assert_eq!(log_in(server.token("agent of shop")).status, 403);
    // Failed ones are slowed down, right or wrong; other requests go on.
    let mut statuses: Vec<u16> = (0..7).map(|_| log_in("evf_wrong").status).collect();
    assert_eq!(statuses.pop(), Some(429));
    assert_eq!(statuses[0], 401);
    let slowed = log_in(server.token("reader of bank"));
    assert_eq!(slowed.status, 429);
    assert!(slowed.headers.get("retry-after").is_some());
    assert_eq!(server.request("reader of bank", "GET", "/api/v1/types", &[], b"").status, 200);
    let figures = server.request("reader of all", "GET", "/metrics", &[], b"").text();
    assert!(figures.contains("everflame_refused_rate_total{counted=\"failed_login\"} "), "{figures}");
    assert!(!figures.contains("evf_"));
}

#[test]
fn who_asks_too_often_waits() {
    let limits = AccessConfig { per_token: 1, ..AccessConfig::default() };
    let server = Closed::with(limits);
    let ask = |kind| server.request(kind, "GET", "/api/v1/types", &[], b"");
    let answers: Vec<_> = (0..14).map(|_| ask("reader of shop")).collect();
    assert_eq!(answers[0].status, 200);
    let last = answers.last().expect("an answer");
    assert!(last.refuses(429, "busy").contains("token"));
    assert!(last.headers.get("retry-after").is_some());
    assert_eq!(ask("reader of bank").status, 200, "each token for itself");
    drop(server);
    let limits = AccessConfig { per_address: 1, ..AccessConfig::default() };
    let server = Closed::with(limits);
    let statuses: Vec<u16> = (0..14).map(|_| server.request("nobody", "GET", "/healthz", &[], b"").status).collect();
    assert_eq!((statuses[0], statuses.last()), (200, Some(&429)));
}

#[test]
fn a_server_that_others_reach_wants_tokens() {
    let directory = tempfile::tempdir().expect("a directory");
    let everywhere = || Config::new("0.0.0.0:0".parse().expect("an address"), directory.path());
    let error = Server::bind(everywhere(), store(directory.path())).expect_err("a refusal");
    assert!(matches!(error, Error::Open(_)), "{error}");
    assert!(error.to_string().contains("token create") && error.to_string().contains("--insecure-no-auth"), "{error}");
    let mut said = everywhere();
    said.access.no_auth = true;
    Server::bind(said, store(directory.path())).expect("as was asked for");
    let secret = directory.path().join("secret");
    let mut given = everywhere();
    given.access.admin_token_file = Some(secret.clone());
    let error = Server::bind(given.clone(), store(directory.path())).expect_err("no file");
    assert!(error.to_string().contains("secret"), "{error}");
    std::fs::write(&secret, "short\n").expect("a write");
    let error = Server::bind(given.clone(), store(directory.path())).expect_err("no token");
    assert!(error.to_string().contains("at random") && !error.to_string().contains("short"), "{error}");
    std::fs::write(&secret, format!("{}\n", "a1".repeat(32))).expect("a write");
    Server::bind(given, store(directory.path())).expect("a token");
}

#[test]
fn an_admins_token_from_a_file_changes_with_the_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("secret");
    let (first, second) = ("1a".repeat(32), "2b".repeat(32));
    std::fs::write(&file, &first).expect("a write");
    let server = Closed::with(AccessConfig { admin_token_file: Some(file.clone()), ..AccessConfig::default() });
    let with = |secret: &str| {
        let bearer = format!("Bearer {secret}");
        server.running.request("GET", "/api/v1/tokens", &[("authorization", &bearer)], b"").status
    };
    assert_eq!((with(&first), with(&second)), (200, 401));
    std::fs::write(&file, format!("{second}\n")).expect("a write");
    assert_eq!((with(&first), with(&second)), (401, 200));
    std::fs::write(&file, "broken").expect("a write");
    assert_eq!((with(&first), with(&second)), (401, 200));
}
