//! A server that wants tokens and speaks TLS, and an agent that is let in, locked out and let
//! in again: nothing is lost, and nobody is restarted.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use everflame_tests::api::{number, residual, sum};
use everflame_tests::everflame::command;
use everflame_tests::machine::{finish, free_port, need_root, wait_for};
use everflame_tests::target::built;
use everflame_tests::{Api, Everflame, Outcome, Target};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;

const SAMPLES: &str = "{process=\"truth_cpp\"}";
const PATIENCE: Duration = Duration::from_secs(90);

pub fn tokens_and_certificates_turn_and_nothing_is_lost() -> Outcome {
    need_root()?;
    let truth = built("truth_cpp")?;
    let scene = Scene::new();
    let server = scene.server();
    let (id, token) = scene.token(&["--role", "agent", "--project", "shop"]);
    fs::write(scene.path("token"), &token).unwrap();
    let agent = scene.agent();
    let load = Target::start(&truth, &["60"]);
    server.api().wait_for_samples(SAMPLES, 100);

    // A new certificate and a new token, each in its file.
    scene.identity();
    let next = scene.run(&["token", "rotate", &id, "--overlap", "1h"]).trim().to_owned();
    fs::write(scene.path("token"), &next).unwrap();
    scene.run(&["token", "revoke", &id]);
    let stored = server.api().samples(SAMPLES);
    server.api().wait_for_samples(SAMPLES, stored + 100);
    whole(server.api());
    // Open connections stay as they are; who connects anew meets the new certificate.
    let figures = Api::closed(server.api().url(), &scene.authority.pem(), &scene.admin).get("/metrics", &[]).1;
    assert!(figures.contains("everflame_tls_reloads_total 1"), "{figures}");

    // Locked out: the agent says so, keeps what it has, and goes on.
    let id = scene.id_of(&next);
    scene.run(&["token", "revoke", &id]);
    wait_for("the agent's words about its token", PATIENCE, || {
        let log = agent.log();
        (log.contains("does not accept our token") && log.contains("--token-file")).then_some(())
    });
    let spooled = format!("everflame_agent_spool_batches{{exporter=\"localhost:{}\"}}", scene.port);
    wait_for("batches in the spool", PATIENCE, || (agent.api().figure(&spooled) >= 2.0).then_some(()));
    let locked_out = server.api().samples(SAMPLES);
    let (_, last) = scene.token(&["--role", "agent", "--project", "shop"]);
    fs::write(scene.path("token"), &last).unwrap();
    server.api().wait_for_samples(SAMPLES, locked_out + 100);
    drop(load);
    let log = agent.stop();

    let account = whole(server.api());
    println!("after two new tokens, a new certificate and a time locked out: {account}");
    assert_eq!((sum(&account["in_flight"]), sum(&account["dropped"])), (0, 0), "{account}");
    assert_eq!(number(&account["stored"]), server.api().samples("") as i64, "what is stored can be queried");
    assert_eq!(
        server.api().samples("{project=\"shop\"}"),
        server.api().samples(""),
        "all of it in the token's project"
    );
    let log = log + &server.stop();
    for secret in [&token, &next, &last, &scene.admin] {
        assert!(!log.contains(&secret[4..]), "a token is in a log");
    }
    Ok(())
}

/// The program with a server of its own inside is let in by it, whatever tokens there are.
pub fn up_lets_its_own_agent_in() -> Outcome {
    need_root()?;
    let scene = Scene::new();
    let data = scene.text("data");
    let up = Everflame::start(&["up", "--listen", "127.0.0.1:0", "--rate", "97", "--data", &data], scene.scratch());
    assert_eq!(up.api().get("/api/v1/types", &[]).0, 401, "tokens were made for this directory");
    let api = Api::closed(up.api().url(), &scene.authority.pem(), &scene.admin);
    wait_for("samples", PATIENCE, || (api.samples("") > 10).then_some(()));
    up.stop();
    Ok(())
}

/// Certificates, tokens and data of a server, in files.
struct Scene {
    folder: tempfile::TempDir,
    port: u16,
    authority: CertifiedIssuer<'static, KeyPair>,
    admin: String,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The server reads certificate and key as nobody.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let mut scene = Self { folder, port: free_port(), authority, admin: String::new() };
        scene.admin = scene.token(&["--role", "admin"]).1;
        scene.identity();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn scratch(&self) -> tempfile::TempDir {
        tempfile::tempdir_in(self.folder.path()).unwrap()
    }

    /// A new certificate with a new key.
    fn identity(&self) {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.authority).unwrap();
        replace(&self.path("cert.pem"), &certificate.pem());
        replace(&self.path("key.pem"), &key.serialize_pem());
    }

    /// What a command about the server's tokens prints.
    fn run(&self, words: &[&str]) -> String {
        let data = self.text("data");
        let ended = finish(command(words).args(["--data", &data]));
        assert!(ended.status.success(), "{words:?}: {}", String::from_utf8_lossy(&ended.stderr));
        String::from_utf8(ended.stdout).unwrap()
    }

    /// Id and secret of a new token.
    fn token(&self, words: &[&str]) -> (String, String) {
        let secret = self.run(&[&["token", "create"], words].concat()).trim().to_owned();
        (self.id_of(&secret), secret)
    }

    /// The newest token's id; `secret` only says whose.
    fn id_of(&self, secret: &str) -> String {
        assert!(secret.starts_with("evf_"));
        let listed: Value = serde_json::from_str(&self.run(&["token", "list", "--output", "json"])).unwrap();
        listed["tokens"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned()
    }

    fn server(&self) -> Everflame {
        let (certificate, key) = (self.text("cert.pem"), self.text("key.pem"));
        let tls = ["--tls-cert-file", certificate.as_str(), "--tls-key-file", key.as_str()];
        let api = |url: &str| Api::closed(url, &self.authority.pem(), &self.admin);
        Everflame::server_behind(self.port, &self.path("data"), &tls, api)
    }

    fn agent(&self) -> Everflame {
        let (authority, token) = (self.text("ca.pem"), self.text("token"));
        let more = ["--ca-file", authority.as_str(), "--token-file", token.as_str()];
        let endpoint = format!("https://localhost:{}", self.port);
        Everflame::agent_to(&endpoint, None, 97, &self.path("spool"), &more)
    }
}

/// As secrets are replaced: whole, by a new file.
fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(&new, path).unwrap();
}

/// The one agent's account, with nothing unaccounted for.
fn whole(api: &Api) -> Value {
    let accounts = api.accounting();
    assert_eq!(accounts.len(), 1, "{accounts:?}");
    assert_eq!(residual(&accounts[0]), 0, "{}", accounts[0]);
    accounts[0].clone()
}
