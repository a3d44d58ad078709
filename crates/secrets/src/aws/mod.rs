//! AWS Secrets Manager: one signed request, and what its answer means.

mod credentials;
mod fault;
mod http;
mod region;
mod sign;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::{Timestamp, ToSpan};
use serde::Deserialize;
use ureq::http::Uri;

use crate::{Environment, Hidden, Secret, SecretError, SecretUrl};
use credentials::Credentials;
use fault::Fault;
use http::Reach;

const SERVICE: &str = "secretsmanager";
const JSON: &str = "application/x-amz-json-1.1";
/// Temporary credentials are renewed so long before they end.
const RENEW_BEFORE: Duration = Duration::from_secs(300);

/// A secret of AWS Secrets Manager. Credentials are looked for where AWS's own tools look.
#[derive(Debug)]
pub struct SecretsManager {
    url: SecretUrl,
    environment: Environment,
    credentials: Mutex<Option<Credentials>>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "SecretString")]
    text: Option<Hidden>,
}

impl SecretsManager {
    /// The secret at `url`, with the credentials that `environment` leads to. Asks nobody yet.
    pub fn new(url: SecretUrl, environment: Environment) -> Self {
        Self { url, environment, credentials: Mutex::new(None) }
    }

    /// The secret as it is now. Blocks for some seconds at most for each service that is asked.
    pub fn fetch(&self) -> Result<Secret, SecretError> {
        let region = region::find(&self.url, &self.environment)?;
        let kept = self.credentials.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let fresh = kept.filter(|kept| kept.good_for(RENEW_BEFORE));
        let again = fresh.is_some();
        let who = fresh.map_or_else(|| self.renew(&region), Ok)?;
        match self.ask(&region, &who) {
            // They may have been revoked or replaced before their end.
            Err(SecretError::Rejected { .. } | SecretError::Denied { .. }) if again => {
                self.ask(&region, &self.renew(&region)?)
            }
            done => done,
        }
    }

    fn renew(&self, region: &str) -> Result<Credentials, SecretError> {
        let found = credentials::find(&self.url.name, &self.environment, region);
        let mut kept = self.credentials.lock().unwrap_or_else(PoisonError::into_inner);
        match (found, kept.as_ref().filter(|kept| kept.good_for(Duration::ZERO))) {
            // What gives them out is away: the old ones last a little longer.
            (Err(error), Some(old)) if error.is_transient() => Ok(old.clone()),
            (found, _) => {
                *kept = found.as_ref().ok().cloned();
                found
            }
        }
    }

    fn ask(&self, region: &str, who: &Credentials) -> Result<Secret, SecretError> {
        let name = &self.url.name;
        let endpoint = match &self.url.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => region::endpoint(&self.environment, SERVICE, "AWS_ENDPOINT_URL_SECRETS_MANAGER", region),
        };
        let body = serde_json::json!({ "SecretId": name }).to_string();
        let unreachable = |why| SecretError::Unreachable { name: name.clone(), endpoint: endpoint.clone(), why };
        let host = host(&endpoint).ok_or_else(|| unreachable("this is no URL of a host".to_owned()))?;
        let own = [("content-type", JSON), ("x-amz-target", "secretsmanager.GetSecretValue")];
        let request = sign::Unsigned { method: "POST", host: &host, headers: &own, body: body.as_bytes() };
        let scope = sign::Scope { region, service: SERVICE, now: Timestamp::now() };
        let added = sign::sign(&request, &scope, who);
        let mut headers = own.to_vec();
        headers.push(("host", &host));
        headers.extend(added.iter().map(|(name, value)| (*name, value.as_str())));
        let url = format!("{endpoint}/");
        let answer = http::send(&self.environment, Reach::Region, "POST", &url, &headers, body.as_bytes())
            .map_err(unreachable)?;
        if answer.status != 200 {
            return Err(self.refused(region, who, Fault::of(&answer)));
        }
        let shape = |why: &str| SecretError::Shape { name: name.clone(), why: why.to_owned() };
        let value: Answer = serde_json::from_str(&answer.body).map_err(|_| shape("the answer is none of AWS's"))?;
        let text = value.text.ok_or_else(|| shape("it holds bytes, not text"))?;
        Secret::parse(name, text.reveal())
    }

    fn refused(&self, region: &str, who: &Credentials, fault: Fault) -> SecretError {
        let (name, region, place) = (self.url.name.clone(), region.to_owned(), who.place.clone());
        let Fault { code, why, transient } = fault;
        match code.as_str() {
            "ResourceNotFoundException" => SecretError::NotFound { name, region },
            "AccessDeniedException" | "AccessDenied" | "DecryptionFailure" | "DecryptionFailureException" => {
                SecretError::Denied { name, place, why }
            }
            "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "IncompleteSignature"
            | "IncompleteSignatureException"
            | "MissingAuthenticationTokenException"
            | "RequestExpired"
            | "ExpiredToken"
            | "ExpiredTokenException" => SecretError::Rejected { name, place, why },
            _ => SecretError::Refused { name, region, why, transient },
        }
    }
}

impl Credentials {
    /// Whether they last for so long yet.
    fn good_for(&self, time: Duration) -> bool {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX / 2);
        self.expires.is_none_or(|end| Timestamp::now().checked_add(seconds.seconds()).is_ok_and(|then| then < end))
    }
}

/// What stands in the `host` header.
fn host(endpoint: &str) -> Option<String> {
    let uri: Uri = endpoint.parse().ok()?;
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    match uri.port_u16() {
        Some(port) if port != usual => Some(format!("{}:{port}", uri.host()?)),
        _ => Some(uri.host()?.to_owned()),
    }
}
