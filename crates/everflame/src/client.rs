//! Asking a server's API from the terminal.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, bail};
use ureq::Agent;

use crate::WrongUse;

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer read.
const ANSWER_LIMIT: u64 = 1 << 30;

/// Whether text is `http://` with a host.
pub fn is_http_url(text: &str) -> bool {
    text.parse::<http::Uri>().is_ok_and(|uri| {
        uri.scheme_str() == Some("http") && uri.authority().is_some_and(|authority| !authority.host().is_empty())
    })
}

/// A server and how to get in.
#[derive(Debug)]
pub struct Client {
    base: String,
    token: Option<String>,
    agent: Agent,
}

impl Client {
    /// A client of the server at `base`.
    pub fn new(base: &str, token_file: Option<&Path>) -> anyhow::Result<Self> {
        let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
        if base.starts_with("https://") {
            let message = format!("--server {base}: TLS is not in this version; use http:// over a network you trust");
            return Err(WrongUse(message).into());
        }
        if !is_http_url(&base) {
            return Err(WrongUse(format!("--server {base}: give http://HOST:PORT")).into());
        }
        let token = match token_file {
            Some(path) => Some(
                fs::read_to_string(path)
                    .with_context(|| format!("cannot read the token file {}", path.display()))?
                    .trim()
                    .to_owned(),
            ),
            None => None,
        };
        let agent = Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build().into();
        Ok(Self { base: base.trim_end_matches('/').to_owned(), token, agent })
    }

    /// The answer to a GET; an error answer becomes an error with the server's words.
    pub fn get(&self, path: &str, parameters: &[(&str, &str)]) -> anyhow::Result<serde_json::Value> {
        let mut request = self.agent.get(format!("{}{path}", self.base)).query_pairs(parameters.iter().copied());
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut response =
            request.call().with_context(|| format!("no answer from {}: is the server running there?", self.base))?;
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
            bail!("the server answers {status}: {said}");
        }
        Ok(value)
    }

    /// PUTs bytes; returns the status and the server's words.
    pub fn put(&self, path: &str, body: &[u8]) -> anyhow::Result<(u16, String)> {
        let mut request = self.agent.put(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut response = request
            .send(body)
            .with_context(|| format!("no answer from {}: is the server running there?", self.base))?;
        let text = response.body_mut().read_to_string().unwrap_or_default();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let message = value["error"]["message"].as_str().unwrap_or(&text).to_owned();
        Ok((response.status().as_u16(), message))
    }
}
