//! Certificates, keys and the tokens of the cluster's own parts, made anew for each run.

use std::path::{Path, PathBuf};
use std::process::Command;

use everflame_tests::machine;

use super::api_url;
use crate::rooms::{API, NODE};

/// Makes `ca.crt`, `api.crt`, `api.key`, `accounts.key`, `tokens.csv` and `kubeconfig`.
pub fn make(folder: &Path) {
    let openssl = |arguments: &str| {
        machine::output(Command::new("openssl").args(arguments.split(' ')).current_dir(folder));
    };
    openssl("ecparam -name prime256v1 -genkey -noout -out ca.key");
    openssl("req -x509 -new -key ca.key -subj /CN=everflame-test -days 2 -out ca.crt");
    openssl("ecparam -name prime256v1 -genkey -noout -out api.key");
    openssl("req -new -key api.key -subj /CN=kube-apiserver -out api.csr");
    let names = format!("subjectAltName=IP:{API},IP:{NODE},IP:127.0.0.1,DNS:kubernetes.default.svc\n");
    std::fs::write(folder.join("names"), names).unwrap();
    openssl("x509 -req -in api.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out api.crt");
    openssl("genrsa -out accounts.key 2048");
    let token = machine::output(Command::new("openssl").args(["rand", "-hex", "16"]));
    let token = token.trim();
    std::fs::write(folder.join("tokens.csv"), format!("{token},admin,admin,system:masters\n")).unwrap();
    let config = format!(
        "apiVersion: v1
kind: Config
clusters: [{{name: test, cluster: {{server: '{}', certificate-authority: '{}'}}}}]
users: [{{name: admin, user: {{token: '{token}'}}}}]
contexts: [{{name: test, context: {{cluster: test, user: admin}}}}]
current-context: test
",
        api_url(),
        folder.join("ca.crt").display()
    );
    std::fs::write(kubeconfig(folder), config).unwrap();
}

/// An administrator's configuration.
pub fn kubeconfig(folder: &Path) -> PathBuf {
    folder.join("kubeconfig")
}
