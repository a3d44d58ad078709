//! EKS Pod Identity and ECS: an agent beside the container gives out temporary credentials.

use std::net::IpAddr;

use ureq::http::Uri;

use super::{
    super::{
        fault::Fault,
        http::{self, Reach},
    },
    Found, temporary,
};
use crate::{Environment, Hidden};

const ECS: &str = "http://169.254.170.2";
/// Hosts that may be asked without TLS: nobody else is to see the token.
const PLAIN: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

/// `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` or `…_FULL_URI`, with the token of
/// `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE` or `…_TOKEN`.
pub(super) fn find(environment: &Environment) -> Found {
    let relative = environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    let full = environment.get("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    let Some(url) = relative.map(|path| format!("{ECS}{path}")).or(full) else {
        return Found::NotSetUp("Pod Identity (AWS_CONTAINER_CREDENTIALS_FULL_URI is not set)".to_owned());
    };
    let place = format!("the container ({url})");
    if !may_be_asked(&url) {
        return Found::broken(place, "AWS_CONTAINER_CREDENTIALS_FULL_URI is neither https nor on this machine");
    }
    let token = match environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        Some(file) => match http::read_file(&file) {
            Ok(token) => Some(Hidden::new(token.trim())),
            Err(e) => {
                let why = format!("cannot read AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE={file}: {e}");
                return Found::broken(place, why);
            }
        },
        None => environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(Hidden::new),
    };
    let headers: Vec<_> = token.iter().map(|token| ("authorization", token.reveal())).collect();
    match http::send(environment, Reach::Machine, "GET", &url, &headers, b"") {
        Err(why) => Found::away(place, format!("no answer: {why}; is the Pod Identity agent running on this node?")),
        Ok(answer) if answer.status != 200 => {
            let fault = Fault::of(&answer);
            let why = format!("it says: {}; associate a role with this service account", fault.why);
            Found::Broken { place, why, transient: fault.transient }
        }
        Ok(answer) => temporary::read(&answer.body, &place).map_or_else(|why| Found::broken(place, why), Found::Here),
    }
}

fn may_be_asked(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let Some(host) = uri.host() else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => true,
        Some("http") => here || PLAIN.contains(&host),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_to_nobody_in_the_clear() {
        for good in
            ["http://169.254.170.23/v1/credentials", "http://[fd00:ec2::23]/v1", "https://a.b/c", "http://127.0.0.1:1/"]
        {
            assert!(may_be_asked(good), "{good}");
        }
        for bad in ["http://a.b/c", "http://169.254.169.254/", "ftp://127.0.0.1", "/v2", "http://169.254.170.23.a.b/"] {
            assert!(!may_be_asked(bad), "{bad}");
        }
    }
}
