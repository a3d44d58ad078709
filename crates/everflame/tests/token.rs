//! Tokens and TLS through the real program: made beside a server or through it, used by the
//! other commands, and never told to anyone who should not know them.

mod common;

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Output, Stdio},
};

use common::everflame;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

fn run(arguments: &[&str]) -> Output {
    everflame(arguments).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// What a command that must succeed prints.
fn done(arguments: &[&str]) -> String {
    let out = run(arguments);
    assert!(out.status.success(), "{arguments:?}: {}", text(&out.stderr));
    text(&out.stdout)
}

/// The one line that a command that must fail prints.
fn fails(code: i32, arguments: &[&str]) -> String {
    let out = run(arguments);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{arguments:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
    said
}

struct Scene {
    directory: tempfile::TempDir,
    child: Option<Child>,
    url: String,
}

impl Scene {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory"), child: None, url: String::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("text").to_owned()
    }

    /// A file with a token in it.
    fn file(&self, name: &str, secret: &str) -> String {
        fs::write(self.path(name), format!("{secret}\n")).expect("a write");
        self.text(name)
    }

    fn serve(&mut self, more: &[&str]) {
        let data = self.text("data");
        let mut command = everflame(&["server", "--listen", "127.0.0.1:0", "--data", &data, "--log", "trace"]);
        let log = File::create(self.path("log")).expect("a file");
        let mut child = command.args(more).stdout(Stdio::piped()).stderr(log).spawn().expect("the program runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let ready = line.trim().strip_prefix("everflame is ready: ");
        let log = || fs::read_to_string(self.path("log")).unwrap_or_default();
        self.url = ready.unwrap_or_else(|| panic!("{line}: {}", log())).to_owned();
        self.child = Some(child);
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).expect("the log")
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn create(more: &[&str]) -> String {
    let mut arguments = vec!["token", "create"];
    arguments.extend(more);
    let printed = done(&arguments);
    assert_eq!(printed.lines().count(), 1, "the token alone: {printed}");
    let secret = printed.trim().to_owned();
    assert!(secret.starts_with("evf_") && secret.len() == 68, "{secret}");
    secret
}

#[test]
fn tokens_are_made_listed_rotated_and_revoked_beside_a_server_and_through_it() {
    let mut scene = Scene::new();
    let data = scene.text("data");
    scene.serve(&[]);
    let url = scene.url.clone();
    let top = |more: &[&str]| {
        let mut arguments = vec!["top", "--server", &url];
        arguments.extend(more);
        run(&arguments)
    };
    assert!(top(&[]).status.success(), "open as long as there are no tokens");
    let admin = create(&["--role", "admin", "--data", &data, "--name", "first"]);
    let said = fails(1, &["top", "--server", &url]);
    assert!(said.contains("--token-file"), "{said}");
    let admin_file = scene.file("admin", &admin);
    let there = ["--server", &url, "--token-file", &admin_file];
    assert!(top(&there[2..]).status.success());
    let reader = create(&[&there[..], &["--role", "reader", "--project", "shop", "--expires", "30d"]].concat());
    let reader_file = scene.file("reader", &reader);
    assert!(top(&["--token-file", &reader_file]).status.success());
    let said = fails(1, &["token", "list", "--server", &url, "--token-file", &reader_file]);
    assert!(said.contains("403") && said.contains("role admin"), "{said}");

    let listed = done(&["token", "list", "--data", &data, "--output", "json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let of_reader = listed["tokens"].as_array().and_then(|all| all.iter().find(|t| t["role"] == "reader"));
    let id = of_reader.expect("the reader's")["id"].as_str().expect("an id").to_owned();
    let table = done(&[&["token", "list"], &there[..]].concat());
    assert!(table.contains(&id) && table.contains("first") && table.contains("shop"), "{table}");
    assert!(!table.contains("evf_"), "{table}");

    let next = done(&["token", "rotate", &id, "--data", &data, "--overlap", "1h"]);
    let next_file = scene.file("next", next.trim());
    for file in [&reader_file, &next_file] {
        assert!(top(&["--token-file", file]).status.success());
    }
    done(&[&["token", "revoke", &id], &there[..]].concat());
    assert_eq!(top(&["--token-file", &reader_file]).status.code(), Some(1));
    assert!(top(&["--token-file", &next_file]).status.success());
    let said = fails(1, &["top", "--server", &url, "--token-file", &reader_file]);
    assert!(said.contains("does not accept"), "{said}");

    // Doctor says what a token is good for.
    let checked = run(&["doctor", "--server", &url, "--token-file", &next_file, "--output", "json"]);
    let checks: serde_json::Value = serde_json::from_slice(&checked.stdout).expect("JSON");
    let token = checks.as_array().and_then(|all| all.iter().find(|c| c["check"] == "token")).expect("the check");
    assert!(token["status"] == "ok" && token["found"].as_str().is_some_and(|f| f.contains("reader")), "{token}");
    let checked = run(&["doctor", "--server", &url, "--token-file", &reader_file, "--output", "json"]);
    let checks: serde_json::Value = serde_json::from_slice(&checked.stdout).expect("JSON");
    let token = checks.as_array().and_then(|all| all.iter().find(|c| c["check"] == "token")).expect("the check");
    assert!(token["status"] == "fail" && token["remedy"].as_str().is_some_and(|r| r.contains("create")), "{token}");

    // No secret is in the log, even at its most talkative, nor in the data.
    let log = scene.log();
    assert!(log.contains("a token was made") && log.contains("a token was revoked"), "{log}");
    let kept = fs::read_to_string(scene.path("data/server/tokens.json")).expect("the tokens");
    for secret in [admin.as_str(), &reader, next.trim()] {
        let core = &secret[4..];
        assert!(!log.contains(core) && !kept.contains(core), "a secret was told");
        let digest = everflame_server::access::Digest::of(secret).to_hexadecimal();
        assert!(kept.contains(&digest) || secret == reader, "digests are kept");
    }
}

#[test]
fn wrong_use_of_tokens_is_said_and_no_secret_is_repeated() {
    let scene = Scene::new();
    let data = scene.text("data");
    let beyond = ["server", "--listen", "0.0.0.0:0", "--data", &data, "--log", "error"];
    let said = fails(2, &beyond);
    assert!(said.contains("token create") && said.contains("--insecure-no-auth"), "{said}");
    fails(2, &["token", "create"]);
    fails(2, &["token", "create", "--data", &data, "--role", "king"]);
    fails(2, &["token", "create", "--data", &data, "--expires", "soon"]);
    let said = fails(2, &["token", "create", "--data", &data, "--role", "admin", "--project", "shop"]);
    assert!(said.contains("all projects"), "{said}");
    let said = fails(1, &["token", "revoke", "000000000000", "--data", &data]);
    assert!(said.contains("token list"), "{said}");
    // Who gives the token where its id belongs does not find it in the message.
    let said = fails(2, &["token", "revoke", "evf_secret", "--server", "http://127.0.0.1:9"]);
    assert!(!said.contains("evf_secret"), "{said}");
    let said = fails(1, &["top", "--server", "http://127.0.0.1:9", "--token-file", "/nowhere/token"]);
    assert!(said.contains("/nowhere/token"), "{said}");
    let broken = scene.file("broken", "evf_\u{1}secret");
    let said = fails(1, &["top", "--server", "http://127.0.0.1:9", "--token-file", &broken]);
    assert!(!said.contains("secret"), "{said}");
    fails(2, &["server", "--data", &data, "--tls-cert-file", "/nowhere/cert.pem"]);
    let said = fails(
        1,
        &["server", "--data", &data, "--tls-cert-file", "/nowhere/cert.pem", "--tls-key-file", "/x", "--log", "error"],
    );
    assert!(said.contains("/nowhere/cert.pem"), "{said}");
    let headers = everflame(&["agent", "--endpoint", "http://127.0.0.1:9"])
        .env("OTEL_EXPORTER_OTLP_HEADERS", "Bearer-evf_secret")
        .output()
        .expect("the program runs");
    assert!(!text(&headers.stderr).contains("evf_secret"), "{}", text(&headers.stderr));
}

/// Certificate, key and authority for names, in files.
fn identity(names: &[&str], directory: &Path) -> [String; 3] {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate");
    let params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).expect("names");
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, &authority).expect("a certificate");
    [("cert.pem", certificate.pem()), ("key.pem", key.serialize_pem()), ("ca.pem", authority.pem())].map(
        |(name, content)| {
            let path = directory.join(name);
            fs::write(&path, content).expect("a write");
            path.to_str().expect("text").to_owned()
        },
    )
}

#[test]
fn commands_speak_tls_and_say_what_is_wrong_with_a_certificate() {
    let mut scene = Scene::new();
    // The server reads them as nobody.
    let open = scene.path("tls");
    fs::create_dir(&open).expect("a directory");
    let allow = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a change");
    };
    allow(scene.directory.path());
    allow(&open);
    let [certificate, key, authority] = identity(&["localhost"], &open);
    scene.serve(&["--tls-cert-file", &certificate, "--tls-key-file", &key]);
    assert!(scene.url.starts_with("https://127.0.0.1:"), "{}", scene.url);
    let by_name = scene.url.replace("127.0.0.1", "localhost");
    done(&["top", "--server", &by_name, "--ca-file", &authority]);
    let said = fails(1, &["top", "--server", &by_name]);
    assert!(said.contains("--ca-file"), "{said}");
    let said = fails(1, &["top", "--server", &scene.url, "--ca-file", &authority]);
    assert!(said.contains("other names"), "{said}");
    let said = fails(1, &["top", "--server", &by_name, "--ca-file", "/nowhere/ca.pem"]);
    assert!(said.contains("/nowhere/ca.pem"), "{said}");
    let mut plain = Scene::new();
    plain.serve(&[]);
    let said = fails(1, &["top", "--server", &plain.url.replace("http://", "https://"), "--ca-file", &authority]);
    assert!(said.contains("does not speak TLS"), "{said}");
}
