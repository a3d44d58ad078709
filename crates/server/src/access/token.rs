//! What is kept of a token, and what can be wrong with one that is asked for.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    caller::{Caller, Project, Role},
    secret::{Digest, Secret},
};

/// Tokens at most.
pub const MAX_TOKENS: usize = 10_000;
/// Characters of a name or project.
pub const MAX_NAME: usize = 200;
/// Seconds that a rotated token goes on beside its successor, unless said.
pub const OVERLAP_SECONDS: i64 = 86_400;

/// A token as it is kept: all but the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The first 12 digits of the digest.
    pub id: String,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Whose profiles it writes or reads.
    pub project: Project,
    /// When it was made, Unix seconds.
    pub created: i64,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
    /// When it was used, give or take a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<i64>,
    /// Digest of the secret, hexadecimal.
    pub sha256: String,
}

impl Token {
    /// Whether its time is over.
    pub fn has_expired(&self, now: i64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// As it is shown.
    pub fn shown(&self) -> Value {
        json!({
            "id": self.id,
            "name": self.name,
            "role": self.role.as_str(),
            "project": self.project.as_str(),
            "created": self.created,
            "expires": self.expires,
            "last_used": self.last_used,
        })
    }

    /// The same with the secret, once.
    pub fn with_secret(&self, secret: &Secret) -> Value {
        let mut shown = self.shown();
        shown["token"] = secret.reveal().into();
        shown
    }

    /// Who shows it.
    pub fn caller(&self) -> Caller {
        Caller {
            id: self.id.clone(),
            name: self.name.clone(),
            role: self.role,
            project: self.project.clone(),
            expires: self.expires,
            session: None,
        }
    }
}

/// A token that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// What for.
    pub role: Role,
    /// Whose profiles; for an admin always all.
    #[serde(default)]
    pub project: Option<Project>,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// Seconds that it is good for; for ever if not said.
    #[serde(default)]
    pub expires_s: Option<i64>,
}

impl Wanted {
    /// Makes it.
    pub fn make(self, now: i64) -> Result<(Token, Secret), TokenError> {
        let wrong = |what: &str| Err(TokenError::Wrong(what.to_owned()));
        let project = match (self.role, self.project) {
            (Role::Admin, None | Some(Project::Any)) => Project::Any,
            (Role::Admin, Some(Project::One(_))) => {
                return wrong("an admin's token is for all projects: leave the project out, or use role reader");
            }
            (_, project) => project.unwrap_or_else(|| Project::One("".into())),
        };
        for text in [self.name.as_str(), project.as_str()] {
            if text.chars().count() > MAX_NAME || text.chars().any(char::is_control) {
                return wrong("name and project are of at most 200 characters, without control characters");
            }
        }
        if self.expires_s.is_some_and(|seconds| seconds < 1) {
            return wrong("a token that has expired already is of no use: give a longer time");
        }
        let secret = Secret::random(super::secret::PREFIX).map_err(TokenError::Random)?;
        let expires = self.expires_s.map(|seconds| now.saturating_add(seconds));
        let digest = secret.digest();
        let token = Token {
            id: digest.id(),
            name: self.name,
            role: self.role,
            project,
            created: now,
            expires,
            last_used: None,
            sha256: digest.to_hexadecimal(),
        };
        Ok((token, secret))
    }
}

/// Why a token could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It was asked for in a way that makes no sense.
    #[error("{0}")]
    Wrong(String),
    /// There is none of this id.
    #[error("there is no token {0}: `everflame token list` shows those that there are")]
    Unknown(String),
    /// There are too many.
    #[error("there are {MAX_TOKENS} tokens, and that is the limit: revoke some")]
    Full,
    /// The file that holds them.
    #[error("cannot {what} the tokens in {path}: {source}", path = .path.display())]
    File {
        /// `read` or `write`.
        what: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// What the system says, or what is wrong with its content.
        source: std::io::Error,
    },
    /// No random numbers.
    #[error("{0}")]
    Random(std::io::Error),
}

/// Adds a token; ended ones make room for it.
pub(super) fn add(tokens: &mut Vec<Token>, token: Token, now: i64) -> Result<(), TokenError> {
    if tokens.len() >= MAX_TOKENS {
        tokens.retain(|token| !token.has_expired(now));
    }
    if tokens.len() >= MAX_TOKENS {
        return Err(TokenError::Full);
    }
    tokens.push(token);
    Ok(())
}

/// Makes a successor with the same rights and the same length of life; the old one goes on
/// for the overlap.
pub(super) fn rotate(
    tokens: &mut Vec<Token>,
    id: &str,
    overlap_s: i64,
    now: i64,
) -> Result<(Token, Secret), TokenError> {
    let old = tokens.iter_mut().find(|token| token.id == id).ok_or_else(|| TokenError::Unknown(id.to_owned()))?;
    if old.has_expired(now) {
        return Err(TokenError::Wrong(format!("token {id} has expired: create a new one")));
    }
    let wanted = Wanted {
        role: old.role,
        project: Some(old.project.clone()),
        name: old.name.clone(),
        expires_s: old.expires.map(|expires| expires.saturating_sub(old.created)),
    };
    let (token, secret) = wanted.make(now)?;
    let last = now.saturating_add(overlap_s.max(0));
    old.expires = Some(old.expires.map_or(last, |expires| expires.min(last)));
    add(tokens, token.clone(), now)?;
    Ok((token, secret))
}

/// Takes a token away.
pub(super) fn revoke(tokens: &mut Vec<Token>, id: &str) -> Result<(), TokenError> {
    let before = tokens.len();
    tokens.retain(|token| token.id != id);
    if tokens.len() == before { Err(TokenError::Unknown(id.to_owned())) } else { Ok(()) }
}

/// Finds a token by its digest. The id, a part of the digest, leads to it; that all of it
/// is right is found out in the same time for every digest.
pub(super) fn find(tokens: &[Token], digest: Digest) -> Option<&Token> {
    let id = digest.id();
    tokens.iter().find(|token| token.id == id && Digest::parse(&token.sha256) == Some(digest))
}
