//! Who we are to AWS: the places where credentials may be, in the order in which they are looked at.
//! The first place that is set up decides; where it does not work, that is an error, since the next
//! place would be somebody else.

mod container;
pub(super) mod metadata;
pub(super) mod profile;
mod temporary;
mod variables;
mod web_identity;

use jiff::{Timestamp, ToSpan};

use crate::{Environment, Hidden, SecretError};

/// What a request is signed with.
#[derive(Debug, Clone)]
pub(super) struct Credentials {
    pub access_key: String,
    pub secret_key: Hidden,
    pub session_token: Option<Hidden>,
    /// When they end, where they do.
    pub expires: Option<Timestamp>,
    /// Where they came from, for people.
    pub place: String,
}

/// What was found at a place.
enum Found {
    Here(Credentials),
    /// It is not set up; why one thinks so.
    NotSetUp(String),
    Broken {
        place: String,
        why: String,
        transient: bool,
    },
}

impl Found {
    fn broken(place: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Broken { place: place.into(), why: why.into(), transient: false }
    }

    fn away(place: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Broken { place: place.into(), why: why.into(), transient: true }
    }
}

/// Looks at each place for credentials to read the secret `name` in `region`.
pub(super) fn find(name: &str, environment: &Environment, region: &str) -> Result<Credentials, SecretError> {
    let places: [&dyn Fn() -> Found; 5] = [
        &|| variables::find(environment),
        &|| web_identity::find(environment, region),
        &|| container::find(environment),
        &|| profile::find(environment, region),
        &|| metadata::find(environment),
    ];
    let mut looked = Vec::with_capacity(places.len());
    for place in places {
        match place() {
            Found::Here(credentials) => return Ok(credentials),
            Found::NotSetUp(why) => looked.push(why),
            Found::Broken { place, why, transient } => {
                return Err(SecretError::Credentials { name: name.to_owned(), place, why, transient });
            }
        }
    }
    Err(SecretError::NoCredentials { name: name.to_owned(), looked: looked.join("; ") })
}

/// When temporary credentials end whose end cannot be read; an hour is what they usually last.
fn in_an_hour() -> Timestamp {
    Timestamp::now().saturating_add(1.hour()).unwrap_or(Timestamp::MAX)
}
