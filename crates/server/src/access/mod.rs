//! Who may do what: tokens, sessions of browsers, and how often anybody may ask.
//!
//! [`Access::identify`] is the one place where a request becomes a [`Caller`]: a further way
//! in (an identity provider's token, say) is one more arm there. What a caller may do is
//! said once for each route ([`Needs`], in the table of routes), and what it sees of the
//! store goes through [`Scoped`].

mod buckets;
mod caller;
mod check;
mod file;
mod given;
mod scoped;
mod secret;
mod sessions;
mod token;
mod tokens;

use std::{net::IpAddr, path::PathBuf, time::Duration};

use axum::http::{HeaderMap, Method, header};

pub use self::{
    buckets::{Buckets, MAX_BUCKETS, Rate},
    caller::{ANY_PROJECT, Caller, Needs, Project, Role},
    check::check,
    file::{Stamp, TokenFile},
    given::MIN_GIVEN,
    scoped::Scoped,
    secret::{Digest, PREFIX, Secret},
    sessions::{COOKIE, MAX_SESSIONS, SESSION_SECONDS, Sessions},
    token::{MAX_TOKENS, OVERLAP_SECONDS, Token, TokenError, Wanted},
    tokens::Tokens,
};
use self::{given::Given, secret::MAX_SECRET};
use crate::{query::time, web::error::ApiError};

/// What such a token and the agent's inside `up` are called.
const GIVEN: &str = "admin-token-file";
const OWN_AGENT: &str = "own-agent";
/// Failed log-ins of one address at once, and one more every five seconds.
const LOGIN_FAILURES: Rate = Rate { burst: 5.0, per_second: 0.2 };

/// How access is set up.
#[derive(Debug, Clone, Default)]
pub struct AccessConfig {
    /// File with an admin's token, re-read when it changes.
    pub admin_token_file: Option<PathBuf>,
    /// Digest of the token of the agent in the same program.
    pub own_agent: Option<Digest>,
    /// Whether a listener that others reach may go without tokens.
    pub no_auth: bool,
    /// Requests a second of one address; 0 for no limit.
    pub per_address: u32,
    /// Requests a second of one token; 0 for no limit.
    pub per_token: u32,
}

/// What a server knows of those who call.
#[derive(Debug)]
pub struct Access {
    /// The tokens.
    pub tokens: Tokens,
    /// The sessions.
    pub sessions: Sessions,
    /// By address, whoever it is.
    pub addresses: Buckets<IpAddr>,
    /// By token.
    pub callers: Buckets<String>,
    /// Failed log-ins.
    pub failures: Buckets<IpAddr>,
    given: Option<Given>,
    own_agent: Option<Digest>,
}

impl Access {
    /// What is configured for a server with this directory.
    pub fn open(directory: &std::path::Path, config: &AccessConfig) -> Result<Self, TokenError> {
        let given = config.admin_token_file.clone().map(Given::open).transpose()?;
        let rate = |per_second: u32| Rate { burst: f64::from(per_second) * 5.0, per_second: f64::from(per_second) };
        Ok(Self {
            tokens: Tokens::open(TokenFile::new(directory))?,
            sessions: Sessions::default(),
            addresses: Buckets::new(rate(config.per_address)),
            callers: Buckets::new(rate(config.per_token)),
            failures: Buckets::new(LOGIN_FAILURES),
            given,
            own_agent: config.own_agent,
        })
    }

    /// Whether callers have to show a token.
    pub fn is_closed(&self) -> bool {
        self.given.is_some() || self.tokens.are_wanted()
    }

    /// Who makes a request. Everybody is an admin where there are no tokens.
    pub fn identify(&self, method: &Method, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if !self.is_closed() {
            return Ok(Caller::everybody());
        }
        let now = now();
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            let secret = value.to_str().ok().and_then(bearer);
            let secret = secret.ok_or_else(|| {
                ApiError::unauthorized("the header Authorization is not understood: send \"Bearer TOKEN\"")
            })?;
            return self.by_digest(Digest::of(secret), now).ok_or_else(|| {
                ApiError::unauthorized(
                    "this token is not known, has expired or was revoked: make a new one with `everflame token create`",
                )
            });
        }
        let session = cookie(headers).map(Digest::of);
        if let Some(session) = session {
            let token = self.sessions.token(session, now).and_then(|token| self.by_digest(token, now));
            let caller = token.ok_or_else(|| ApiError::unauthorized("the session is over: log in again"))?;
            // A cookie comes by itself, whoever made the browser send the request: it is good
            // for looking only.
            if !matches!(*method, Method::GET | Method::HEAD) {
                return Err(ApiError::forbidden("a session only reads: send a token to change something"));
            }
            return Ok(Caller { session: Some(session), ..caller });
        }
        Err(ApiError::unauthorized(
            "this server wants a token: send it as \"Authorization: Bearer TOKEN\" (--token-file in the commands), or log in on the page",
        ))
    }

    /// Opens a session for a token; the cookie's value.
    pub fn log_in(&self, address: Option<IpAddr>, secret: &str) -> Result<(Caller, Secret), ApiError> {
        let slow = |wait: Duration| ApiError::busy("too many failed log-ins from this address").retry_after(wait);
        if let Some(address) = address {
            self.failures.peek(address).map_err(slow)?;
        }
        let digest = Digest::of(secret.trim());
        let now = now();
        let Some(caller) = self.by_digest(digest, now).filter(|_| secret.len() <= MAX_SECRET) else {
            // The next one is told to wait, not this one.
            let _ = address.map(|address| self.failures.take(address));
            return Err(ApiError::unauthorized("this token is not known, has expired or was revoked"));
        };
        if caller.role == Role::Agent {
            return Err(ApiError::forbidden("an agent's token reads nothing: log in with one of role reader or admin"));
        }
        let cookie = self.sessions.open(digest, now).map_err(|e| ApiError::internal(e.to_string()))?;
        Ok((caller, cookie))
    }

    /// Ends the session of a request, if it has one.
    pub fn log_out(&self, headers: &HeaderMap) {
        if let Some(value) = cookie(headers) {
            self.sessions.close(Digest::of(value));
        }
    }

    fn by_digest(&self, digest: Digest, now: i64) -> Option<Caller> {
        let named = |id: &str, role| Caller { id: id.to_owned(), name: id.to_owned(), role, ..Caller::everybody() };
        if self.own_agent == Some(digest) {
            return Some(named(OWN_AGENT, Role::Agent));
        }
        if self.given.as_ref().is_some_and(|given| given.digest() == Some(digest)) {
            return Some(named(GIVEN, Role::Admin));
        }
        self.tokens.find(digest, now).map(|token| token.caller())
    }
}

/// Unix seconds now.
pub fn now() -> i64 {
    time::now() / time::SECOND
}

/// The token of `Bearer TOKEN`, or of `ApiKey TOKEN`, which agents send that were set up for
/// another server.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, secret) = value.split_once(' ')?;
    let secret = secret.trim();
    let known = ["bearer", "apikey"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    (known && !secret.is_empty() && secret.len() <= MAX_SECRET).then_some(secret)
}

/// The session's cookie.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}
