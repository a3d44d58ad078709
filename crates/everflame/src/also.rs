//! `--also`: where profiles go as well, each destination a URL that says what it needs.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use everflame_agent::{
    export::{Authorization, Credentials, Destination, MAX_EXPORTERS, MAX_NAME, Secret},
    tls::Roots,
};
use everflame_secrets::{SecretUrl, UrlError};

use crate::{WrongUse, client::is_http_url, secret::SecretOptions};

/// Options of what sends to several places.
#[derive(Debug, Args, Clone, Default)]
pub struct AlsoOptions {
    /// Where to send as well: http(s)://HOST:PORT of an OTLP server, or aws-sm://NAME, perhaps with
    /// ?token-file=FILE, api-key-file=FILE, ca-file=FILE, name=NAME (several with &); may be given several times
    #[arg(long, value_name = "URL", env = "EVERFLAME_ALSO", value_delimiter = ',')]
    pub also: Vec<String>,
}

/// One of them, as it is written.
#[derive(Debug, Default, PartialEq, Eq)]
struct Also {
    /// Where to; empty where a secret says it.
    endpoint: String,
    secret: Option<SecretUrl>,
    name: Option<String>,
    token_file: Option<PathBuf>,
    api_key_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

impl AlsoOptions {
    /// The destinations beside the `main` one, that of a `secret` among them; secrets are fetched.
    pub fn destinations(
        &self,
        main: &Destination,
        secret: Option<&SecretUrl>,
        secrets: &SecretOptions,
    ) -> anyhow::Result<Vec<Destination>> {
        let mut wanted = Vec::new();
        if let Some(url) = secret {
            wanted.push((url.name.as_str(), Also { secret: Some(url.clone()), ..Also::default() }));
        }
        for text in self.also.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
            let also = Also::parse(text).map_err(|why| WrongUse(format!("--also {text}: {why}")))?;
            wanted.push((text, also));
        }
        if wanted.len() >= MAX_EXPORTERS {
            let said =
                format!("--also: {} destinations beside the first: give {} at most", wanted.len(), MAX_EXPORTERS - 1);
            return Err(WrongUse(said).into());
        }
        let mut all: Vec<Destination> = Vec::new();
        for (text, also) in wanted {
            let to = also.destination(secrets)?;
            if let Some(other) = std::iter::once(main).chain(&all).find(|other| other.endpoint == to.endpoint) {
                let said = format!("--also {text}: profiles go to {} already: give each destination once", other.name);
                return Err(WrongUse(said).into());
            }
            if all.iter().any(|other| other.name == to.name) {
                let said = format!("--also {text}: another is called {} too: give one a name=NAME", to.name);
                return Err(WrongUse(said).into());
            }
            all.push(to);
        }
        Ok(all)
    }
}

impl Also {
    fn parse(text: &str) -> Result<Self, String> {
        let (url, query) = text.split_once('?').unwrap_or((text, ""));
        let mut also = Self::default();
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let file = match key {
                "name" => {
                    also.name = Some(value.to_owned());
                    continue;
                }
                "token-file" => &mut also.token_file,
                "api-key-file" => &mut also.api_key_file,
                "ca-file" => &mut also.ca_file,
                _ => {
                    rest.push(pair);
                    continue;
                }
            };
            if value.is_empty() {
                return Err(format!("{key} names no file"));
            }
            *file = Some(value.into());
        }
        if url.starts_with("aws-sm:") {
            if also.token_file.is_some() || also.api_key_file.is_some() {
                return Err("the secret has the key: give no file beside it".to_owned());
            }
            let url = if rest.is_empty() { url.to_owned() } else { format!("{url}?{}", rest.join("&")) };
            also.secret = Some(url.parse().map_err(|e: UrlError| e.to_string())?);
            return Ok(also);
        }
        also.endpoint = url.to_owned();
        if let Some(unknown) = rest.first() {
            let key = unknown.split('=').next().unwrap_or(unknown);
            return Err(format!(
                "`{key}` is not known: after the question mark come token-file, api-key-file, ca-file, name"
            ));
        }
        if also.token_file.is_some() && also.api_key_file.is_some() {
            return Err("give token-file or api-key-file, not both: one of them is sent".to_owned());
        }
        Ok(also)
    }

    fn destination(self, secrets: &SecretOptions) -> anyhow::Result<Destination> {
        let roots = Roots { ca_file: self.ca_file.clone() };
        let (endpoint, authorization, usual) = if let Some(url) = self.secret {
            let secret = secrets.watch_url(&url)?;
            let name = secret.name.clone();
            let Some(endpoint) = secret.endpoint.clone() else {
                bail!("secret `{name}`: the key `endpoint` is missing: add it");
            };
            (with_scheme("--also", &endpoint)?, Some(Authorization::Source(secret)), name)
        } else {
            let token = self.token_file.map(|path| Authorization::Bearer(Secret::File(path)));
            let key = self.api_key_file.map(|path| Authorization::ApiKey(Secret::File(path)));
            let endpoint = with_scheme("--also", &self.endpoint)?;
            let name = Destination::host_and_port(&endpoint).to_owned();
            (endpoint, token.or(key), name)
        };
        let name = self.name.unwrap_or(usual);
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(
                WrongUse(format!("--also: a name has 1 to {MAX_NAME} characters: give another name=NAME")).into()
            );
        }
        Ok(Destination { name, endpoint, credentials: Credentials { authorization, headers: Vec::new() }, roots })
    }
}

/// An endpoint as it is used: with a scheme, and without a slash at its end.
pub fn with_scheme(option: &str, endpoint: &str) -> anyhow::Result<String> {
    let endpoint = if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
    match is_http_url(&endpoint) {
        true => Ok(endpoint.trim_end_matches('/').to_owned()),
        false => Err(WrongUse(format!(
            "{option} {endpoint}: give http://HOST:PORT or https://HOST:PORT, and further ones with --also each"
        ))
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Also {
        Also::parse(text).unwrap()
    }

    #[test]
    fn what_follows_the_question_mark() {
        let also = parsed("https://c.example:443?api-key-file=/etc/key&name=elastic&ca-file=/etc/ca.pem");
        assert_eq!(also.endpoint, "https://c.example:443");
        assert_eq!(also.api_key_file, Some("/etc/key".into()));
        assert_eq!((also.name.as_deref(), also.ca_file), (Some("elastic"), Some("/etc/ca.pem".into())));
        // What is the secret's own stays with it.
        let also = parsed("aws-sm://a/b?region=eu-west-1&name=x&endpoint=http://127.0.0.1:1");
        let secret = also.secret.unwrap();
        assert_eq!((secret.name.as_str(), secret.region.as_deref()), ("a/b", Some("eu-west-1")));
        assert_eq!((secret.endpoint.as_deref(), also.name.as_deref()), (Some("http://127.0.0.1:1"), Some("x")));
        for (bad, why) in [
            ("http://a:1?tokenfile=x", "tokenfile"),
            ("http://a:1?token-file=", "token-file"),
            ("http://a:1?token-file=a&api-key-file=b", "not both"),
            ("aws-sm://a?token-file=b", "the secret has the key"),
        ] {
            assert!(Also::parse(bad).unwrap_err().contains(why), "{bad}");
        }
    }

    #[test]
    fn destinations_are_told_apart() {
        let secrets = SecretOptions { url: None, refresh: 300 };
        let main = Destination { name: "m:1".into(), endpoint: "http://m:1".into(), ..Destination::default() };
        let all = |also: &[&str]| {
            let also = AlsoOptions { also: also.iter().map(|text| (*text).to_owned()).collect() };
            also.destinations(&main, None, &secrets).map_err(|e| e.to_string())
        };
        let two = all(&["a:1", "", "https://b.example/?name=b"]).unwrap();
        let said: Vec<_> = two.iter().map(|to| (to.name.as_str(), to.endpoint.as_str())).collect();
        assert_eq!(said, [("a:1", "http://a:1"), ("b", "https://b.example")]);
        assert!(all(&["m:1"]).unwrap_err().contains("already"));
        assert!(all(&["a:1", "http://a:1/"]).unwrap_err().contains("already"));
        assert!(all(&["a:1", "b:1?name=a:1"]).unwrap_err().contains("name=NAME"));
        assert!(all(&["a:1", "b:1", "c:1", "d:1"]).unwrap_err().contains("3 at most"));
        assert!(all(&["ftp://a"]).is_err() && all(&["a b"]).is_err());
    }
}
