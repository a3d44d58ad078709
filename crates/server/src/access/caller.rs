//! Who calls, and what each kind of caller may do.

use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts};
use everflame_profile::Str;
use serde::{Deserialize, Serialize};

use super::secret::Digest;
use crate::web::error::ApiError;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Writes profiles and symbol indexes; reads nothing.
    Agent,
    /// Reads what its project holds; writes nothing.
    Reader,
    /// Everything, and the tokens themselves.
    Admin,
}

impl Role {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Reader => "reader",
            Self::Admin => "admin",
        }
    }
}

/// Whose profiles. Written `*` for all; the empty name is a project as well: that of all
/// profiles without one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Project {
    /// All of them; what writes says which.
    Any,
    /// This one and no other.
    One(Str),
}

/// How [`Project::Any`] is written.
pub const ANY_PROJECT: &str = "*";

impl Project {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Any => ANY_PROJECT,
            Self::One(name) => name,
        }
    }
}

impl From<String> for Project {
    fn from(text: String) -> Self {
        if text == ANY_PROJECT { Self::Any } else { Self::One(Arc::from(text)) }
    }
}

impl From<Project> for String {
    fn from(project: Project) -> Self {
        project.as_str().to_owned()
    }
}

/// Who makes a request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Id of the token; empty where nobody has to show one.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Whose profiles it is about.
    pub project: Project,
    /// When it ends, Unix seconds.
    pub expires: Option<i64>,
    /// The browser's session, where it came by one.
    pub session: Option<Digest>,
}

impl Caller {
    /// Everybody, where no token has to be shown.
    pub fn everybody() -> Self {
        Self {
            id: String::new(),
            name: String::new(),
            role: Role::Admin,
            project: Project::Any,
            expires: None,
            session: None,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| ApiError::internal("nobody has asked who calls: see the server's log"))
    }
}

/// What a route wants of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: it tells nothing about anybody.
    Nothing,
    /// Anybody with a token.
    Token,
    /// One that writes profiles and indexes.
    Writer,
    /// One that asks for an index by its id, before it sends one.
    Index,
    /// One that reads a project's profiles.
    Reader,
    /// One that reads the figures of all projects together.
    Figures,
    /// One that may do everything.
    Admin,
}

impl Needs {
    /// Whether a caller has it.
    pub fn check(self, caller: &Caller) -> Result<(), ApiError> {
        let whole = caller.project == Project::Any;
        let fits = match (self, caller.role) {
            (Self::Nothing | Self::Token, _) | (_, Role::Admin) => true,
            (Self::Writer | Self::Index, Role::Agent) => true,
            (Self::Reader, Role::Reader) => true,
            (Self::Index | Self::Figures, Role::Reader) => whole,
            _ => false,
        };
        if !fits {
            return Err(ApiError::forbidden(format!(
                "a token of role {} and project \"{}\" may not do this: {}",
                caller.role.as_str(),
                caller.project.as_str(),
                self.remedy()
            )));
        }
        Ok(())
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Nothing | Self::Token => "use one that is valid",
            Self::Writer => "use one of role agent",
            Self::Index | Self::Figures => "use one of role reader for all projects (--project '*'), or of role admin",
            Self::Reader => "use one of role reader",
            Self::Admin => "use one of role admin",
        }
    }
}
