//! Requests to the API server. Token and certificates are read for each, since they rotate.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, BufReader, Read},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig, TlsProvider};

use super::{
    config::{Access, ConfigError},
    object::Object,
};

/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long the first byte of an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Longest explanation of an error that is read.
const MAX_MESSAGE: u64 = 16 << 10;
/// Largest single object.
const MAX_OBJECT: u64 = 4 << 20;

/// A request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A file that is needed for it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A certificate or token is not one.
    #[error("{0}")]
    Credentials(String),
    /// The server refused.
    #[error("the API server answers {code}: {message}")]
    Status {
        /// HTTP's status.
        code: u16,
        /// What it says about it.
        message: String,
    },
    /// It could not be reached, or went away.
    #[error("the API server cannot be reached: {0}")]
    Transport(#[from] Box<ureq::Error>),
    /// It answered with something else than expected.
    #[error("the API server's answer cannot be read: {0}")]
    Answer(#[from] serde_json::Error),
}

impl ClientError {
    /// Whether what was asked for is not there any more.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Status { code: 410, .. })
    }

    /// What a person can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Status { code: 401, .. } => "give the agent a valid token: mount its service account's",
            Self::Status { code: 403, .. } => "allow the agent's service account to get, list and watch pods",
            Self::Config(_) | Self::Credentials(_) => "correct the file, or start with --kubernetes off",
            _ => "see that the API server can be reached from this node; names come once it is",
        }
    }
}

/// Talks to one API server.
#[derive(Debug)]
pub struct Client {
    access: Access,
    /// Made of certificates whose hash stands beside it.
    agent: Mutex<Option<(u64, ureq::Agent)>>,
}

impl Client {
    /// Does nothing yet.
    pub fn new(access: Access) -> Self {
        Self { access, agent: Mutex::new(None) }
    }

    /// Whom it talks to.
    pub fn server(&self) -> &str {
        &self.access.server
    }

    /// Asks for something that is read as it comes; each piece within `pause` of the one before.
    pub fn get(&self, path: &str, pause: Duration) -> Result<impl Read + use<>, ClientError> {
        let mut request =
            self.agent()?.get(format!("{}{path}", self.access.server)).header("accept", "application/json");
        if let Some(token) = &self.access.token {
            let token = token.read()?;
            let token = std::str::from_utf8(&token).map(str::trim).unwrap_or_default();
            if token.is_empty() || token.bytes().any(|b| !b.is_ascii_graphic()) {
                return Err(ClientError::Credentials("the token for the API server is empty or not one".into()));
            }
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.config().timeout_per_read(Some(pause)).build();
        let response = request.call().map_err(Box::new)?;
        let code = response.status().as_u16();
        let reader = response.into_body().into_with_config().limit(u64::MAX).reader();
        if code != 200 {
            return Err(ClientError::Status { code, message: message(reader) });
        }
        Ok(BufReader::new(reader))
    }

    /// Asks for one object.
    pub fn object(&self, path: &str) -> Result<Object, ClientError> {
        Ok(serde_json::from_reader(self.get(path, ANSWER_WITHIN)?.take(MAX_OBJECT))?)
    }

    fn agent(&self) -> Result<ureq::Agent, ClientError> {
        let authority = self.access.authority.as_ref().map(|secret| secret.read()).transpose()?;
        let identity = match &self.access.identity {
            Some((certificate, key)) => Some((certificate.read()?, key.read()?)),
            None => None,
        };
        let mut hasher = DefaultHasher::new();
        (&authority, &identity).hash(&mut hasher);
        let hash = hasher.finish();
        let mut agent = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        match &*agent {
            Some((known, agent)) if *known == hash => Ok(agent.clone()),
            _ => {
                let new = ureq_agent(self.access.insecure, authority.as_deref(), identity)?;
                *agent = Some((hash, new.clone()));
                Ok(new)
            }
        }
    }
}

fn ureq_agent(
    insecure: bool,
    authority: Option<&[u8]>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
) -> Result<ureq::Agent, ClientError> {
    let bad = |what: &str| ClientError::Credentials(format!("the {what} for the API server is not in PEM"));
    let authorities = certificates(authority.unwrap_or_default());
    if authority.is_some() && authorities.is_empty() {
        return Err(bad("certificate authority"));
    }
    let client = identity.map(|(certificate, key)| {
        let chain = certificates(&certificate);
        let key = PrivateKey::from_pem(&key).map_err(|_| bad("client key"))?;
        if chain.is_empty() { Err(bad("client certificate")) } else { Ok(ClientCert::new_with_certs(&chain, key)) }
    });
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&authorities))
        .client_cert(client.transpose()?)
        .disable_verification(insecure)
        .build();
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        // A node reaches its own API server without one.
        .proxy(None)
        .timeout_connect(Some(CONNECT_WITHIN))
        .timeout_recv_response(Some(ANSWER_WITHIN))
        .user_agent(concat!("everflame/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls)
        .build();
    Ok(config.new_agent())
}

fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    let items = ureq::tls::parse_pem(pem).filter_map(Result::ok);
    items.filter_map(|item| if let ureq::tls::PemItem::Certificate(one) = item { Some(one) } else { None }).collect()
}

/// What an error's body says.
fn message(reader: impl Read) -> String {
    #[derive(Default, Deserialize)]
    struct Status {
        #[serde(default)]
        message: String,
    }
    let mut text = Vec::new();
    // What cannot be read explains nothing.
    let _: io::Result<usize> = reader.take(MAX_MESSAGE).read_to_end(&mut text);
    let status: Status = serde_json::from_slice(&text).unwrap_or_default();
    if status.message.is_empty() { String::from_utf8_lossy(&text).trim().to_owned() } else { status.message }
}
