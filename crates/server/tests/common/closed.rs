//! A server with tokens: one for each kind of caller.

use std::collections::BTreeMap;

use everflame_server::{
    Config,
    access::{AccessConfig, Project, Role, Secret, TokenFile, Wanted, now},
};
use tempfile::TempDir;

use super::server::{Answer, Running, store};

/// The kinds of the table of routes.
pub const KINDS: [&str; 5] = ["nobody", "agent of shop", "reader of shop", "admin", "reader of all"];

pub struct Closed {
    pub directory: TempDir,
    pub running: Running,
    tokens: BTreeMap<&'static str, Secret>,
}

impl Closed {
    pub fn start() -> Self {
        Self::with(AccessConfig::default())
    }

    pub fn with(access: AccessConfig) -> Self {
        Self::on(|config| config.access = access)
    }

    pub fn on(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let one = |name: &str| Some(Project::One(name.into()));
        let kinds = [
            ("agent of shop", Role::Agent, one("shop")),
            ("agent of bank", Role::Agent, one("bank")),
            ("reader of shop", Role::Reader, one("shop")),
            ("reader of bank", Role::Reader, one("bank")),
            ("reader of all", Role::Reader, Some(Project::Any)),
            ("admin", Role::Admin, None),
        ];
        let file = TokenFile::new(directory.path());
        let mut tokens = BTreeMap::new();
        for (kind, role, project) in kinds {
            let wanted = Wanted { role, project, name: kind.to_owned(), expires_s: None };
            let (token, secret) = wanted.make(now()).expect("a token");
            file.change(|all| {
                all.push(token);
                Ok(())
            })
            .expect("a file");
            tokens.insert(kind, secret);
        }
        let mut config = Config::new("127.0.0.1:0".parse().expect("an address"), directory.path());
        change(&mut config);
        let running = Running::with(config, store(directory.path()));
        Self { directory, running, tokens }
    }

    /// The secret of a kind of caller; nobody has an empty one.
    pub fn token(&self, kind: &str) -> &str {
        self.tokens.get(kind).map_or("", |secret| secret.reveal())
    }

    pub fn request(&self, kind: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let bearer = format!("Bearer {}", self.token(kind));
        let mut all = headers.to_vec();
        if kind != "nobody" {
            all.push(("authorization", &bearer));
        }
        self.running.request(method, path, &all, body)
    }

    pub fn revoke(&self, kind: &str) {
        let file = TokenFile::new(self.directory.path());
        file.change(|all| {
            all.retain(|token| token.name != kind);
            Ok(())
        })
        .expect("a change");
    }
}
