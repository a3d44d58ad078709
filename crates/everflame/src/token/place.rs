//! Where tokens are: in the data directory of a server on this machine, or behind a server's
//! API. Both answer in the API's form.

use anyhow::Context;
use everflame_server::access::{self, TokenFile, Wanted, now};
use serde_json::{Value, json};

use super::options::Place;
use crate::{WrongUse, client::Client, privileges};

/// Tokens, wherever they are.
pub enum Tokens {
    Here(access::Tokens),
    There(Client),
}

impl Tokens {
    /// Those that the command line names. As root, the files are those of `nobody`, as whom
    /// this program then starts over.
    pub fn at(place: &Place) -> anyhow::Result<Self> {
        if let Some(server) = &place.server {
            return Ok(Self::There(Client::new(server, &place.credentials)?));
        }
        let data = place.data.as_ref().context("say --data DIR or --server URL")?;
        let (room, _) = privileges::enter(data)?;
        Ok(Self::Here(access::Tokens::open(TokenFile::new(&room))?))
    }

    /// Makes one.
    pub fn create(&self, wanted: Value) -> anyhow::Result<Value> {
        match self {
            Self::Here(tokens) => {
                let wanted: Wanted = serde_json::from_value(wanted)?;
                let (token, secret) = tokens.create(wanted, now()).map_err(wrong_use)?;
                Ok(token.with_secret(&secret))
            }
            Self::There(client) => client.send("POST", "/api/v1/tokens", &wanted),
        }
    }

    /// Makes a successor.
    pub fn rotate(&self, id: &str, overlap_s: i64) -> anyhow::Result<Value> {
        match self {
            Self::Here(tokens) => {
                let (token, secret) = tokens.rotate(id, overlap_s, now()).map_err(wrong_use)?;
                Ok(token.with_secret(&secret))
            }
            Self::There(client) => client.send(
                "POST",
                &format!("/api/v1/tokens/{}/rotate", plain(id)?),
                &json!({ "overlap_s": overlap_s }),
            ),
        }
    }

    /// Takes one away.
    pub fn revoke(&self, id: &str) -> anyhow::Result<()> {
        match self {
            Self::Here(tokens) => Ok(tokens.revoke(id).map_err(wrong_use)?),
            Self::There(client) => {
                client.send("DELETE", &format!("/api/v1/tokens/{}", plain(id)?), &Value::Null).map(|_| ())
            }
        }
    }

    /// All of them.
    pub fn list(&self) -> anyhow::Result<Value> {
        match self {
            Self::Here(tokens) => {
                let shown: Vec<Value> = tokens.list().iter().map(access::Token::shown).collect();
                Ok(json!({ "tokens": shown }))
            }
            Self::There(client) => client.get("/api/v1/tokens", &[]),
        }
    }
}

/// What was asked for makes no sense: that is of the command line.
fn wrong_use(error: access::TokenError) -> anyhow::Error {
    match error {
        access::TokenError::Wrong(what) => WrongUse(what).into(),
        other => other.into(),
    }
}

/// An id, or what was given in its place (the token itself, most likely), which is not repeated.
fn plain(id: &str) -> anyhow::Result<&str> {
    if id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(id);
    }
    Err(WrongUse("an id has 12 hexadecimal digits: `everflame token list` shows those that there are".into()).into())
}
