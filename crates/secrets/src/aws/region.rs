//! Which region, and which host of it.

use crate::{Environment, SecretError, SecretUrl, url::is_region};

use super::credentials::{metadata, profile};

/// The region: the secret's own, the environment's, the profile's, the machine's.
pub(super) fn find(url: &SecretUrl, environment: &Environment) -> Result<String, SecretError> {
    let said = url.region.clone().or_else(|| environment.first(&["AWS_REGION", "AWS_DEFAULT_REGION"]));
    if let Some(region) = said.or_else(|| profile::region(environment)).filter(|region| is_region(region)) {
        return Ok(region);
    }
    let region = metadata::region(environment).and_then(|region| match is_region(&region) {
        true => Ok(region),
        false => Err("the machine's metadata service, which names none".to_owned()),
    });
    region.map_err(|metadata| SecretError::NoRegion { name: url.name.clone(), metadata })
}

/// The URL of a service, which the environment may override.
pub(super) fn endpoint(environment: &Environment, service: &str, variable: &str, region: &str) -> String {
    let given = environment.first(&[variable, "AWS_ENDPOINT_URL"]);
    given.map_or_else(
        || format!("https://{service}.{region}.{}", domain(region)),
        |url| url.trim_end_matches('/').to_owned(),
    )
}

/// The domain of a region's partition.
fn domain(region: &str) -> &'static str {
    match region.split('-').next() {
        Some("cn") => "amazonaws.com.cn",
        Some("eusc") => "amazonaws.eu",
        _ if region.starts_with("us-iso-") => "c2s.ic.gov",
        _ if region.starts_with("us-isob-") => "sc2s.sgov.gov",
        _ => "amazonaws.com",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::of(variables.iter().copied())
    }

    #[test]
    fn the_nearest_word_counts() {
        let both = environment(&[("AWS_REGION", "eu-west-1"), ("AWS_DEFAULT_REGION", "eu-west-2")]);
        let region = |url: &str, of: &Environment| find(&url.parse().unwrap(), of).unwrap();
        assert_eq!(region("aws-sm://a?region=us-east-1", &both), "us-east-1");
        assert_eq!(region("aws-sm://a", &both), "eu-west-1");
        assert_eq!(region("aws-sm://a", &environment(&[("AWS_DEFAULT_REGION", "eu-west-2")])), "eu-west-2");
        assert_eq!(region("aws-sm://arn:aws:secretsmanager:ap-south-1:1:secret:a-123456", &both), "ap-south-1");
        let nothing = environment(&[("AWS_EC2_METADATA_DISABLED", "true"), ("HOME", "/nowhere")]);
        let error = find(&"aws-sm://a".parse().unwrap(), &nothing).unwrap_err().to_string();
        assert!(error.contains("`a`") && error.contains("AWS_REGION") && error.contains("?region="), "{error}");
    }

    #[test]
    fn hosts() {
        let host = |region| endpoint(&environment(&[]), "sts", "AWS_ENDPOINT_URL_STS", region);
        assert_eq!(host("eu-west-1"), "https://sts.eu-west-1.amazonaws.com");
        assert_eq!(host("cn-north-1"), "https://sts.cn-north-1.amazonaws.com.cn");
        let given = environment(&[("AWS_ENDPOINT_URL", "http://a:1/"), ("AWS_ENDPOINT_URL_STS", "http://b:2")]);
        assert_eq!(endpoint(&given, "sts", "AWS_ENDPOINT_URL_STS", "x"), "http://b:2");
        assert_eq!(endpoint(&given, "secretsmanager", "AWS_ENDPOINT_URL_SECRETS_MANAGER", "x"), "http://a:1");
    }
}
