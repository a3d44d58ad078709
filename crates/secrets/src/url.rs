//! The name of a secret as people give it: `aws-sm://NAME`, or a full ARN, with what differs from
//! the usual behind a question mark.

use std::str::FromStr;

use percent_encoding::percent_decode_str;

const SCHEME: &str = "aws-sm://";
/// Longest name or ARN that AWS takes.
const MAX_NAME: usize = 2048;

/// Which secret, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretUrl {
    /// Its name or ARN.
    pub name: String,
    /// Its region, where it is said; an ARN says it too.
    pub region: Option<String>,
    /// A URL of Secrets Manager other than the region's own, such as a VPC endpoint.
    pub endpoint: Option<String>,
}

/// It is no name of a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}`: {why}; give aws-sm://NAME or aws-sm://ARN, perhaps with ?region=REGION&endpoint=URL")]
pub struct UrlError {
    given: String,
    why: String,
}

impl FromStr for SecretUrl {
    type Err = UrlError;

    fn from_str(given: &str) -> Result<Self, UrlError> {
        let wrong = |why: &str| UrlError { given: given.chars().take(200).collect(), why: why.to_owned() };
        let rest = given.strip_prefix(SCHEME).ok_or_else(|| wrong("only AWS Secrets Manager (aws-sm://) is known"))?;
        let (name, query) = rest.split_once('?').unwrap_or((rest, ""));
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().map(|text| text.into_owned());
        let name = decoded(name).map_err(|_| wrong("the name is no text"))?;
        if name.is_empty() {
            return Err(wrong("the name is missing"));
        }
        if name.len() > MAX_NAME || !name.chars().all(|c| c.is_ascii_alphanumeric() || "/_+=.@-:!".contains(c)) {
            return Err(wrong("a name is of letters, digits and /_+=.@- only"));
        }
        let mut url = Self { region: region_of_arn(&name).map_err(wrong)?, name, endpoint: None };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value).map_err(|_| wrong("a value is no text"))?;
            match key {
                "region" if is_region(&value) => url.region = Some(value),
                "region" => return Err(wrong("the region is none")),
                "endpoint" if value.starts_with("https://") || value.starts_with("http://") => {
                    url.endpoint = Some(value.trim_end_matches('/').to_owned());
                }
                "endpoint" => return Err(wrong("the endpoint must begin with https:// or http://")),
                _ => return Err(wrong("only `region` and `endpoint` may follow the question mark")),
            }
        }
        Ok(url)
    }
}

/// Whether a text can be a region; it becomes part of a host's name.
pub(crate) fn is_region(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// `arn:PARTITION:secretsmanager:REGION:ACCOUNT:secret:NAME`
fn region_of_arn(name: &str) -> Result<Option<String>, &'static str> {
    if !name.starts_with("arn:") {
        return if name.contains(':') { Err("a name holds no colon") } else { Ok(None) };
    }
    let parts: Vec<&str> = name.splitn(7, ':').collect();
    match parts.as_slice() {
        ["arn", _, "secretsmanager", region, _, "secret", name] if is_region(region) && !name.is_empty() => {
            Ok(Some((*region).to_owned()))
        }
        _ => Err("an ARN of a secret is arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_arns_and_options() {
        let url: SecretUrl = "aws-sm://istio/otel-collector/elastic".parse().unwrap();
        assert_eq!(url, SecretUrl { name: "istio/otel-collector/elastic".into(), region: None, endpoint: None });
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:istio/elastic-AbCdEf";
        let url: SecretUrl = format!("aws-sm://{arn}").parse().unwrap();
        assert_eq!((url.name.as_str(), url.region.as_deref()), (arn, Some("eu-west-1")));
        let url: SecretUrl = "aws-sm://a?region=us-east-2&endpoint=https%3A%2F%2Fvpce.example:8443/".parse().unwrap();
        assert_eq!(
            (url.region.as_deref(), url.endpoint.as_deref()),
            (Some("us-east-2"), Some("https://vpce.example:8443"))
        );
        for bad in [
            "",
            "vault://a",
            "aws-sm://",
            "aws-sm://a b",
            "aws-sm://a?regoin=x",
            "aws-sm://a?region=x/y",
            "aws-sm://a?endpoint=file:///etc",
            "aws-sm://arn:aws:s3:::bucket",
            "aws-sm://a:b",
        ] {
            let error = bad.parse::<SecretUrl>().unwrap_err().to_string();
            assert!(error.contains("aws-sm://NAME"), "{error}");
        }
    }
}
