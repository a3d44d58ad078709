//! How the API server is reached: from inside of a pod by what the kubelet puts there, from
//! outside by a kubeconfig file.

use std::{
    env, fs,
    io::Read,
    path::{Path, PathBuf},
};

/// Where the kubelet puts a pod's account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Largest file that is read: certificates come in bundles.
const MAX_FILE: u64 = 1 << 20;

/// The API server cannot be named.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {0}: {1}")]
    File(PathBuf, #[source] std::io::Error),
    /// A kubeconfig file is not what it should be.
    #[error("{0}: {1}")]
    Kubeconfig(PathBuf, String),
}

/// A secret or certificate, or the file that holds it and is read anew for each use.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Secret {
    /// Itself.
    Value(Vec<u8>),
    /// Where it stands.
    File(PathBuf),
}

impl Secret {
    /// What it is now.
    pub fn read(&self) -> Result<Vec<u8>, ConfigError> {
        match self {
            Self::Value(value) => Ok(value.clone()),
            Self::File(path) => read_file(path),
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value(_) => f.write_str("Value(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// How the API server is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// `https://HOST:PORT`, without a slash at the end.
    pub server: String,
    /// Certificates that it is checked by, PEM.
    pub authority: Option<Secret>,
    /// A bearer token.
    pub token: Option<Secret>,
    /// Our certificate and its key, PEM.
    pub identity: Option<(Secret, Secret)>,
    /// Whether its certificate is not checked at all.
    pub insecure: bool,
}

impl Access {
    /// What the kubelet gave us, if we are in a pod with an account.
    pub fn in_cluster() -> Option<Self> {
        let (host, port) = (env::var("KUBERNETES_SERVICE_HOST").ok()?, env::var("KUBERNETES_SERVICE_PORT").ok()?);
        let account = Path::new(ACCOUNT);
        // A pod may be told not to have one.
        let token = account.join("token");
        fs::metadata(&token).ok()?;
        Some(Self {
            server: https(&host, &port),
            authority: Some(Secret::File(account.join("ca.crt"))),
            token: Some(Secret::File(token)),
            ..Self::default()
        })
    }

    /// What a kubeconfig file says of its current context.
    pub fn of_kubeconfig(path: &Path) -> Result<Self, ConfigError> {
        let text = String::from_utf8_lossy(&read_file(path)?).into_owned();
        let folder = path.parent().unwrap_or(Path::new(""));
        super::kubeconfig::parse(&text, folder).map_err(|why| ConfigError::Kubeconfig(path.to_owned(), why))
    }
}

fn https(host: &str, port: &str) -> String {
    // An address of version 6 comes bare.
    if host.contains(':') { format!("https://[{host}]:{port}") } else { format!("https://{host}:{port}") }
}

fn read_file(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes));
    read.map_err(|e| ConfigError::File(path.to_owned(), e))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_versions() {
        assert_eq!(https("10.96.0.1", "443"), "https://10.96.0.1:443");
        assert_eq!(https("fd00::1", "443"), "https://[fd00::1]:443");
    }

    #[test]
    fn secrets_are_not_printed() {
        let access = Access { token: Some(Secret::Value(b"hidden".to_vec())), ..Access::default() };
        assert!(!format!("{access:?}").contains("hidden") && !format!("{access:?}").contains("104"));
    }
}
