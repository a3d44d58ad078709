//! Temporary credentials as the services of a machine give them out, in JSON.

use serde::Deserialize;

use super::{Credentials, in_an_hour};
use crate::Hidden;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    access_key_id: String,
    secret_access_key: Hidden,
    token: Option<Hidden>,
    expiration: Option<String>,
}

/// Reads a document; its words are in no error.
pub(super) fn read(json: &str, place: &str) -> Result<Credentials, String> {
    let document: Document =
        serde_json::from_str(json).map_err(|_| "the answer holds no AccessKeyId and SecretAccessKey".to_owned())?;
    Ok(Credentials {
        access_key: document.access_key_id,
        secret_key: document.secret_access_key,
        session_token: document.token,
        // One that cannot be read is taken for an hour's, as they usually are.
        expires: document.expiration.map(|end| end.parse().unwrap_or_else(|_| in_an_hour())),
        place: place.to_owned(),
    })
}
