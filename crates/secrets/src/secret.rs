//! What is in a secret: where to send, and what to show there.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{Hidden, SecretError};

/// The value of a secret: a JSON object with `apiKey` or `token`, and perhaps `endpoint`.
/// Other keys are left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Where to send profiles, a URL.
    pub endpoint: Option<String>,
    /// What to show there.
    pub authorization: Authorization,
}

/// What goes into the `authorization` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorization {
    /// `apiKey`: sent as `ApiKey KEY`.
    ApiKey(Hidden),
    /// `token`: sent as `Bearer TOKEN`.
    Bearer(Hidden),
}

impl Authorization {
    /// The header's value.
    pub fn header(&self) -> Hidden {
        match self {
            Self::ApiKey(key) => Hidden::new(format!("ApiKey {}", key.reveal())),
            Self::Bearer(token) => Hidden::new(format!("Bearer {}", token.reveal())),
        }
    }
}

/// A value of the object; only texts are looked at, and none of it is ever shown.
#[derive(Deserialize)]
#[serde(untagged)]
enum Field {
    Text(Hidden),
    Other(serde::de::IgnoredAny),
}

impl Secret {
    /// Reads the JSON of the secret `name`.
    pub fn parse(name: &str, json: &str) -> Result<Self, SecretError> {
        let wrong = |why: &str| SecretError::Shape { name: name.to_owned(), why: why.to_owned() };
        // The parser's own message may quote what it found.
        let mut fields: BTreeMap<String, Field> =
            serde_json::from_str(json).map_err(|_| wrong("it is no JSON object"))?;
        let mut text = |key: &str| match fields.remove(key) {
            None => Ok(None),
            Some(Field::Text(text)) if text.reveal().trim().is_empty() => {
                Err(wrong(&format!("its key `{key}` is empty")))
            }
            Some(Field::Text(text)) if !text.reveal().trim().bytes().all(|b| (0x20..0x7f).contains(&b)) => {
                Err(wrong(&format!("its key `{key}` holds more than visible ASCII, which no header may")))
            }
            Some(Field::Text(text)) => Ok(Some(Hidden::new(text.reveal().trim()))),
            Some(Field::Other(_)) => Err(wrong(&format!("its key `{key}` is not a text"))),
        };
        let endpoint = text("endpoint")?.map(|endpoint| endpoint.reveal().to_owned());
        // It is shown in logs, so nothing may be in it that is to be hidden.
        if endpoint.as_deref().is_some_and(|endpoint| !is_plain_url(endpoint)) {
            return Err(wrong("its key `endpoint` is not https://HOST:PORT (or http://), without a user and password"));
        }
        let authorization = match (text("apiKey")?, text("token")?) {
            (Some(key), None) => Authorization::ApiKey(key),
            (None, Some(token)) => Authorization::Bearer(token),
            (None, None) => return Err(wrong("the key `apiKey` (or `token`) is missing")),
            (Some(_), Some(_)) => return Err(wrong("it has both `apiKey` and `token`, and one is to be sent")),
        };
        Ok(Self { endpoint, authorization })
    }
}

/// Whether it is a URL of a host and nothing more than a path.
fn is_plain_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', ':']) && !rest.contains(['@', '?', '#', ' ']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_schemes() {
        let secret =
            Secret::parse("n", r#"{"endpoint": "https://e:443", "apiKey": " k== ", "other": {"a": 1}}"#).unwrap();
        assert_eq!(secret.endpoint.as_deref(), Some("https://e:443"));
        assert_eq!(secret.authorization.header().reveal(), "ApiKey k==");
        let secret = Secret::parse("n", r#"{"token": "t"}"#).unwrap();
        assert_eq!((secret.endpoint, secret.authorization.header().reveal()), (None, "Bearer t"));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_value() {
        for (json, said) in [
            ("hunter2", "no JSON object"),
            ("[\"hunter2\"]", "no JSON object"),
            (r#"{"apiKey": "hunter2""#, "no JSON object"),
            (r#"{"endpoint": "https://hunter2"}"#, "`apiKey`"),
            (r#"{"apiKey": ["hunter2"]}"#, "`apiKey` is not a text"),
            (r#"{"apiKey": "hunter2\n5"}"#, "visible ASCII"),
            (r#"{"apiKey": ""}"#, "`apiKey` is empty"),
            (r#"{"apiKey": "hunter2", "token": "hunter2"}"#, "both"),
            (r#"{"apiKey": "hunter2", "endpoint": 7}"#, "`endpoint` is not a text"),
            (r#"{"apiKey": "k", "endpoint": "https://me:hunter2@e"}"#, "without a user and password"),
            (r#"{"apiKey": "k", "endpoint": "hunter2"}"#, "`endpoint` is not https://"),
            (r#"{"apiKey": "k", "endpoint": "https:///hunter2"}"#, "`endpoint` is not https://"),
        ] {
            let error = Secret::parse("the/name", json).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains("the/name") && text.contains(said), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
        let secret = Secret::parse("n", r#"{"apiKey": "hunter2", "endpoint": "https://e"}"#).unwrap();
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
