//! Credentials in the environment itself.

use super::{Credentials, Found};
use crate::{Environment, Hidden};

/// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`.
pub(super) fn find(environment: &Environment) -> Found {
    let place = "the environment (AWS_ACCESS_KEY_ID)";
    match (environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")) {
        (Some(access_key), Some(secret_key)) => Found::Here(Credentials {
            access_key,
            secret_key: Hidden::new(secret_key),
            session_token: environment.get("AWS_SESSION_TOKEN").map(Hidden::new),
            expires: None,
            place: place.to_owned(),
        }),
        (Some(_), None) => Found::broken(place, "AWS_SECRET_ACCESS_KEY is missing: set it too"),
        (None, Some(_)) => Found::broken(place, "AWS_ACCESS_KEY_ID is missing: set it too"),
        (None, None) => Found::NotSetUp("the environment (AWS_ACCESS_KEY_ID is not set)".to_owned()),
    }
}
