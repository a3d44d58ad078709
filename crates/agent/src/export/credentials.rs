//! What a server wants to see before it takes anything from us.

use std::{fs, io::Read, path::PathBuf, sync::Arc};

use http::{HeaderName, HeaderValue, header::AUTHORIZATION};

/// Longest secret file that is read.
const MAX_SECRET_BYTES: u64 = 16 << 10;

/// A secret, or the file that holds it.
#[derive(Clone)]
pub enum Secret {
    /// The secret itself.
    Value(String),
    /// A file; read anew for every request, so that a new secret is used at once.
    File(PathBuf),
}

/// Where an `authorization` header comes from that may change at any time.
pub trait AuthorizationSource: std::fmt::Debug + Send + Sync {
    /// The header's value as it is now, such as `ApiKey KEY`.
    fn header(&self) -> String;
    /// The server refused it.
    fn refused(&self);
}

/// The scheme of the `authorization` header.
#[derive(Debug, Clone)]
pub enum Authorization {
    /// `Bearer TOKEN`.
    Bearer(Secret),
    /// `ApiKey KEY`.
    ApiKey(Secret),
    /// Whatever a source says.
    Source(Arc<dyn AuthorizationSource>),
}

/// Headers of every request to the server, gRPC and HTTP alike.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// Who we are.
    pub authorization: Option<Authorization>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
}

/// The headers cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The secret's file.
    #[error("cannot read the secret in {0}: {1}")]
    File(PathBuf, #[source] std::io::Error),
    /// A byte that no header may have.
    #[error("the {0} is no valid header: it may hold visible ASCII only")]
    Header(String),
}

impl Secret {
    fn read(&self) -> Result<String, CredentialsError> {
        match self {
            Self::Value(value) => Ok(value.trim().to_string()),
            Self::File(path) => {
                let mut text = String::new();
                fs::File::open(path)
                    .and_then(|file| file.take(MAX_SECRET_BYTES).read_to_string(&mut text))
                    .map_err(|e| CredentialsError::File(path.clone(), e))?;
                Ok(text.trim().to_string())
            }
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value(_) => f.write_str("Value(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl Credentials {
    /// The headers as they are now.
    pub fn read(&self) -> Result<Vec<(HeaderName, HeaderValue)>, CredentialsError> {
        let mut headers = Vec::with_capacity(self.headers.len() + 1);
        for (name, value) in &self.headers {
            let bad = || CredentialsError::Header(format!("header `{name}`"));
            headers.push((name.parse().map_err(|_| bad())?, value.parse().map_err(|_| bad())?));
        }
        let text = match &self.authorization {
            None => return Ok(headers),
            Some(Authorization::Bearer(secret)) => format!("Bearer {}", secret.read()?),
            Some(Authorization::ApiKey(secret)) => format!("ApiKey {}", secret.read()?),
            Some(Authorization::Source(source)) => source.header(),
        };
        let mut value = HeaderValue::try_from(text).map_err(|_| CredentialsError::Header("secret".to_string()))?;
        value.set_sensitive(true);
        headers.push((AUTHORIZATION, value));
        Ok(headers)
    }

    /// Whether they come from a source.
    pub fn have_a_source(&self) -> bool {
        matches!(self.authorization, Some(Authorization::Source(_)))
    }

    /// The server refused them: a source may have newer ones.
    pub fn refused(&self) {
        if let Some(Authorization::Source(source)) = &self.authorization {
            source.refused();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Moving {
        refused: std::sync::atomic::AtomicU32,
    }

    impl AuthorizationSource for Moving {
        fn header(&self) -> String {
            format!("ApiKey number-{}", self.refused.load(std::sync::atomic::Ordering::Relaxed))
        }

        fn refused(&self) {
            self.refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    #[test]
    fn a_source_is_asked_each_time_and_told_of_refusals() {
        let authorization = Some(Authorization::Source(Arc::new(Moving::default())));
        let credentials = Credentials { authorization, headers: vec![] };
        assert_eq!(credentials.read().unwrap()[0].1, "ApiKey number-0");
        credentials.refused();
        let headers = credentials.read().unwrap();
        assert_eq!(headers[0].1, "ApiKey number-1");
        assert!(!format!("{credentials:?} {headers:?}").contains("number"));
    }

    #[test]
    fn a_new_secret_in_the_file_is_used_at_once_and_never_printed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, "first\n").unwrap();
        let secret = Secret::File(file.path().to_path_buf());
        let credentials = Credentials { authorization: Some(Authorization::Bearer(secret)), headers: vec![] };
        assert_eq!(credentials.read().unwrap()[0].1, "Bearer first");
        fs::write(&file, "second").unwrap();
        assert_eq!(credentials.read().unwrap()[0].1, "Bearer second");
        let key = Credentials {
            authorization: Some(Authorization::ApiKey(Secret::Value("hidden".into()))),
            headers: vec![("x-project".into(), "7".into())],
        };
        let headers = key.read().unwrap();
        assert_eq!((headers[0].1.as_bytes(), headers[1].1.as_bytes()), (&b"7"[..], &b"ApiKey hidden"[..]));
        assert!(!format!("{key:?} {headers:?}").contains("hidden"));
        drop(file);
        assert!(credentials.read().is_err());
    }
}
