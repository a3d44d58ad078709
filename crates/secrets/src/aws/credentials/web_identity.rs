//! IAM roles for service accounts (IRSA): a token that the cluster signed is exchanged for temporary
//! credentials of a role. The request needs no signature.

use super::{
    super::{
        fault::{Fault, element},
        http::{self, Reach},
        region,
    },
    Credentials, Found, in_an_hour,
};
use crate::{Environment, Hidden};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// `AWS_ROLE_ARN` and `AWS_WEB_IDENTITY_TOKEN_FILE`, which EKS puts into pods.
pub(super) fn find(environment: &Environment, region: &str) -> Found {
    match (environment.get("AWS_ROLE_ARN"), environment.get("AWS_WEB_IDENTITY_TOKEN_FILE")) {
        (Some(role), Some(file)) => assume(environment, region, &role, &file),
        (None, Some(_)) => Found::broken("the web identity", "AWS_ROLE_ARN is missing: set it too"),
        (_, None) => {
            Found::NotSetUp("the service account's role (AWS_ROLE_ARN, AWS_WEB_IDENTITY_TOKEN_FILE are not set)".into())
        }
    }
}

/// Exchanges the token in `file` for credentials of `role`.
pub(super) fn assume(environment: &Environment, region: &str, role: &str, file: &str) -> Found {
    let place = format!("the web identity ({role})");
    let token = match http::read_file(file) {
        Ok(token) => Hidden::new(token.trim()),
        Err(e) => return Found::broken(place, format!("cannot read AWS_WEB_IDENTITY_TOKEN_FILE={file}: {e}")),
    };
    let session = environment.get("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "everflame".to_owned());
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let form = zeroize::Zeroizing::new(format!(
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn={}&RoleSessionName={}&WebIdentityToken={}",
        encoded(role),
        encoded(&session),
        encoded(token.reveal())
    ));
    let endpoint = region::endpoint(environment, "sts", "AWS_ENDPOINT_URL_STS", region);
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let answer =
        match http::send(environment, Reach::Region, "POST", &format!("{endpoint}/"), &headers, form.as_bytes()) {
            Ok(answer) => answer,
            Err(why) => return Found::away(place, format!("no answer from {endpoint}: {why}; allow this connection")),
        };
    if answer.status != 200 {
        let fault = Fault::of(&answer);
        let why = format!(
            "STS says: {}; let the role trust this service account (action sts:AssumeRoleWithWebIdentity)",
            fault.why
        );
        return Found::Broken { place, why, transient: fault.transient };
    }
    let part = |name: &str| element(&answer.body, name);
    let expires = part("Expiration").and_then(|end| end.parse().ok()).unwrap_or_else(in_an_hour);
    match (part("AccessKeyId"), part("SecretAccessKey"), part("SessionToken")) {
        (Some(access_key), Some(secret_key), Some(token)) => Found::Here(Credentials {
            access_key,
            secret_key: Hidden::new(secret_key),
            session_token: Some(Hidden::new(token)),
            expires: Some(expires),
            place,
        }),
        _ => Found::broken(place, format!("the answer of {endpoint} holds no credentials: is it STS?")),
    }
}
