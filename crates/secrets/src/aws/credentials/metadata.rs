//! The metadata service of an EC2 machine (IMDS, version 2 only): the machine's own role, and its
//! region. Last, since a pod is not its machine.

use super::{
    super::http::{self, Answer, Reach},
    Found, temporary,
};
use crate::Environment;

const ADDRESS: &str = "http://169.254.169.254";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
const TRIES: usize = 2;

/// The role of the machine.
pub(super) fn find(environment: &Environment) -> Found {
    let listing = match get(environment, ROLES) {
        Ok(listing) => listing,
        Err(why) => return Found::NotSetUp(why),
    };
    let role = listing.body.lines().next().unwrap_or_default().trim();
    if listing.status != 200 || role.is_empty() {
        return Found::NotSetUp("the machine's metadata service (the machine has no role)".to_owned());
    }
    let place = format!("the machine ({role})");
    match get(environment, &format!("{ROLES}{role}")) {
        Err(why) => Found::away(place, why),
        Ok(answer) if answer.status != 200 => {
            Found::away(place, format!("the metadata service answers {}", answer.status))
        }
        Ok(answer) => temporary::read(&answer.body, &place).map_or_else(|why| Found::broken(place, why), Found::Here),
    }
}

/// The region of the machine, or why it is not known.
pub(in super::super) fn region(environment: &Environment) -> Result<String, String> {
    let answer = get(environment, "/latest/meta-data/placement/region")?;
    match answer.status {
        200 => Ok(answer.body.trim().to_owned()),
        status => Err(format!("the machine's metadata service, which answers {status}")),
    }
}

fn get(environment: &Environment, path: &str) -> Result<Answer, String> {
    if environment.get("AWS_EC2_METADATA_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
        return Err("the machine's metadata service (AWS_EC2_METADATA_DISABLED)".to_owned());
    }
    let base = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    let base = base.as_deref().unwrap_or(ADDRESS).trim_end_matches('/');
    let send = |method: &str, path: &str, headers: &[(&str, &str)]| {
        let url = format!("{base}{path}");
        let mut last = String::new();
        for _ in 0..TRIES {
            match http::send(environment, Reach::Machine, method, &url, headers, b"") {
                Ok(answer) => return Ok(answer),
                Err(why) => last = why,
            }
        }
        Err(format!("the machine's metadata service ({base}: {last}; none here, or its hop limit keeps pods away)"))
    };
    let token = send("PUT", "/latest/api/token", &[("x-aws-ec2-metadata-token-ttl-seconds", "60")])?;
    if token.status != 200 {
        return Err(format!("the machine's metadata service ({base} answers {})", token.status));
    }
    send("GET", path, &[("x-aws-ec2-metadata-token", token.body.trim())])
}
