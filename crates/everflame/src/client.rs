//! Asking a server's API from the terminal.

use std::{fs, time::Duration};

use anyhow::{Context, bail};
use everflame_agent::tls::{Roots, remedy};
use ureq::Agent;

use crate::{WrongUse, options::CredentialOptions};

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer read.
const ANSWER_LIMIT: u64 = 1 << 30;

/// Whether text is `http://` or `https://` with a host.
pub fn is_http_url(text: &str) -> bool {
    text.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|authority| !authority.host().is_empty())
    })
}

/// A server and how to get in.
pub struct Client {
    base: String,
    token: Option<String>,
    agent: Agent,
}

impl Client {
    /// A client of the server at `base`.
    pub fn new(base: &str, credentials: &CredentialOptions) -> anyhow::Result<Self> {
        let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
        if !is_http_url(&base) {
            return Err(WrongUse(format!("--server {base}: give http://HOST:PORT or https://HOST:PORT")).into());
        }
        let token = match &credentials.token_file {
            Some(path) => Some(
                fs::read_to_string(path)
                    .with_context(|| format!("cannot read the token file {}", path.display()))?
                    .trim()
                    .to_owned(),
            ),
            None => None,
        };
        let config = Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false);
        let config = match base.starts_with("https://") {
            true => config.tls_config(Roots { ca_file: credentials.ca_file.clone() }.http1()?),
            false => config,
        };
        let agent = config.allow_non_standard_methods(true).build().into();
        Ok(Self { base: base.trim_end_matches('/').to_owned(), token, agent })
    }

    /// The answer to a GET; an error answer becomes an error with the server's words.
    pub fn get(&self, path: &str, parameters: &[(&str, &str)]) -> anyhow::Result<serde_json::Value> {
        let mut request = self.agent.get(format!("{}{path}", self.base)).query_pairs(parameters.iter().copied());
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.read(request.call())
    }

    /// The answer to a request with JSON in it, or with nothing.
    pub fn send(&self, method: &str, path: &str, body: &serde_json::Value) -> anyhow::Result<serde_json::Value> {
        let mut request = http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.header("content-type", "application/json").body(body.to_string());
        // What is wrong with a header may be a secret.
        let request =
            request.map_err(|_| anyhow::anyhow!("the request cannot be made: check --server and the token"))?;
        self.read(self.agent.run(request))
    }

    fn read(&self, answer: Result<http::Response<ureq::Body>, ureq::Error>) -> anyhow::Result<serde_json::Value> {
        let mut response = answer.map_err(|e| self.unreachable(e))?;
        let body =
            response.body_mut().with_config().limit(ANSWER_LIMIT).read_to_string().context("the answer broke off")?;
        let status = response.status();
        let value: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        if !status.is_success() {
            let said = value["error"]["message"].as_str().unwrap_or(&body);
            // What the server finds wrong in a request was written on our command line.
            if status.as_u16() == 400 {
                return Err(WrongUse(said.to_owned()).into());
            }
            match (status.as_u16(), &self.token) {
                (401, None) => bail!("the server wants a token: give --token-file"),
                (401, Some(_)) => bail!("the server does not accept the token of --token-file: {said}"),
                _ => bail!("the server answers {status}: {said}"),
            }
        }
        Ok(value)
    }

    /// PUTs bytes; returns the status and the server's words.
    pub fn put(&self, path: &str, body: &[u8]) -> anyhow::Result<(u16, String)> {
        let mut request = self.agent.put(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut response = request.send(body).map_err(|e| self.unreachable(e))?;
        let text = response.body_mut().read_to_string().unwrap_or_default();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let message = value["error"]["message"].as_str().unwrap_or(&text).to_owned();
        Ok((response.status().as_u16(), message))
    }

    fn unreachable(&self, error: ureq::Error) -> anyhow::Error {
        let what = match remedy(&error) {
            Some(remedy) => format!("no answer from {}: {remedy}", self.base),
            None => format!("no answer from {}: is the server running there?", self.base),
        };
        anyhow::Error::from(error).context(what)
    }
}
