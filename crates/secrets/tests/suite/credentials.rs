//! Each way to credentials leads to the secret.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use everflame_secrets::{Environment, SecretsManager, Watch, WatchOptions};
use serde_json::json;

use crate::common::{
    loopback::serve,
    moto::{Moto, REGION, element},
};

const NAME: &str = "istio/otel-collector/elastic";

fn value(key: &str) -> String {
    json!({ "endpoint": "https://elastic.example:443", "apiKey": key }).to_string()
}

/// A secret whose only reader is a role; the role's ARN.
fn for_a_role(moto: &Moto, key: &str) -> String {
    moto.create(NAME, &value(key));
    let trust = json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", "Principal": { "AWS": "*" },
        "Action": "sts:AssumeRoleWithWebIdentity" }] });
    let role = moto.iam("CreateRole", &[("RoleName", "profiler"), ("AssumeRolePolicyDocument", &trust.to_string())]);
    let policy = policy();
    let parameters = [("RoleName", "profiler"), ("PolicyName", "read"), ("PolicyDocument", &policy)];
    moto.iam("PutRolePolicy", &parameters);
    element(&role, "Arn").to_owned()
}

/// What docs/secrets.md tells people to allow. moto judges the action and does not look at ARNs.
pub fn policy() -> String {
    json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow",
        "Action": "secretsmanager:GetSecretValue", "Resource": "*" }] })
    .to_string()
}

pub fn environment_and_rotation() {
    let moto = Moto::start();
    let arn = moto.create(NAME, &value("first"));
    let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_SESSION_TOKEN", "c")];
    let secret = moto.manager(NAME, &keys).fetch().unwrap();
    assert_eq!(secret.endpoint.as_deref(), Some("https://elastic.example:443"));
    assert_eq!(secret.authorization.header().reveal(), "ApiKey first");
    // By its full ARN, in another region than the environment's, and by ?endpoint=.
    let elsewhere = [("AWS_REGION", "us-east-1"), keys[0], keys[1]];
    assert_eq!(moto.manager(&arn, &elsewhere).fetch().unwrap(), secret);
    let url = format!("aws-sm://{NAME}?region={REGION}&endpoint={}", moto.url);
    let manager = SecretsManager::new(url.parse().unwrap(), Environment::of([keys[0], keys[1]]));
    assert_eq!(manager.fetch().unwrap(), secret);

    let manager = moto.manager(NAME, &keys);
    let options = WatchOptions { every: Duration::from_millis(100), ..WatchOptions::default() };
    let watch = Watch::start(move || manager.fetch(), options).unwrap();
    assert_eq!(*watch.current(), secret);
    moto.put(NAME, &value("second"));
    let end = Instant::now() + Duration::from_secs(30);
    while watch.current().authorization.header().reveal() != "ApiKey second" {
        assert!(Instant::now() < end, "the new value does not come: {watch:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Secrets Manager goes away: the value stays.
    drop(moto);
    while watch.counts().failed == 0 {
        assert!(Instant::now() < end, "{watch:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(watch.current().authorization.header().reveal(), "ApiKey second");
}

pub fn web_identity() {
    let moto = Moto::start();
    let role = for_a_role(&moto, "by-irsa");
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzIn0.\n").unwrap();
    let variables = [("AWS_ROLE_ARN", role.as_str()), ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap())];
    let manager = moto.manager(NAME, &variables);
    assert_eq!(manager.fetch().unwrap().authorization.header().reveal(), "ApiKey by-irsa");
    // The credentials are good for an hour: the token is not read for the next fetch. And they are the
    // role's own: moto checks the signature, the session's token and the role's policy from here on
    // (not before, since it would want a signature from STS's one action that has none).
    fs::remove_file(&token).unwrap();
    moto.enforce();
    assert_eq!(manager.fetch().unwrap().authorization.header().reveal(), "ApiKey by-irsa");
    let error = moto.manager(NAME, &variables).fetch().unwrap_err();
    let text = error.to_string();
    assert!(text.contains(NAME) && text.contains("AWS_WEB_IDENTITY_TOKEN_FILE"), "{text}");
    assert!(!error.is_transient());
}

pub fn pod_identity() {
    let moto = Moto::start();
    moto.create(NAME, &value("by-pod-identity"));
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let agent = serve(move |request| {
        assert_eq!(request.line, "GET /v1/credentials");
        count.fetch_add(1, Relaxed);
        let (status, life) = match request.header("authorization") {
            "short" => (200, 60),
            "long" => (200, 3600),
            _ => (401, 0),
        };
        let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(life);
        let document = json!({ "AccessKeyId": "ASIAX", "SecretAccessKey": "s", "Token": "t", "Expiration": end.to_string(),
            "AccountId": "123456789012" });
        (status, document.to_string())
    });
    let url = format!("{agent}/v1/credentials");
    let variables = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.to_str().unwrap()),
    ];
    fs::write(&token, "wrong").unwrap();
    let text = moto.manager(NAME, &variables).fetch().unwrap_err().to_string();
    assert!(text.contains("status 401") && text.contains("associate a role"), "{text}");
    // The token is read each time; credentials that are about to end are asked for again.
    let before = asked.load(Relaxed);
    fs::write(&token, "short").unwrap();
    let manager = moto.manager(NAME, &variables);
    for _ in 0..2 {
        assert_eq!(manager.fetch().unwrap().authorization.header().reveal(), "ApiKey by-pod-identity");
    }
    assert_eq!(asked.load(Relaxed) - before, 2);
    // The agent is away, and the short ones are good for a little while yet.
    fs::write(&token, "long").unwrap();
    for _ in 0..3 {
        manager.fetch().unwrap();
    }
    assert_eq!(asked.load(Relaxed) - before, 3, "good for an hour: asked for once");
}

pub fn profile() {
    let moto = Moto::start();
    moto.create(NAME, &value("by-profile"));
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join(".aws")).unwrap();
    fs::write(home.path().join(".aws/config"), format!("[profile dev]\nregion = {REGION}\n")).unwrap();
    fs::write(home.path().join(".aws/credentials"), "[dev]\naws_access_key_id = a\naws_secret_access_key = b\n")
        .unwrap();
    let variables = [("HOME", home.path().to_str().unwrap()), ("AWS_PROFILE", "dev"), ("AWS_REGION", "")];
    assert_eq!(moto.manager(NAME, &variables).fetch().unwrap().authorization.header().reveal(), "ApiKey by-profile");
}

pub fn metadata_of_the_machine() {
    let moto = Moto::start();
    moto.create(NAME, &value("by-machine"));
    let service = serve(|request| {
        let allowed = request.header("x-aws-ec2-metadata-token") == "session";
        match request.line.as_str() {
            "PUT /latest/api/token" => (200, "session".to_owned()),
            _ if !allowed => (401, String::new()),
            "GET /latest/meta-data/placement/region" => (200, REGION.to_owned()),
            "GET /latest/meta-data/iam/security-credentials/" => (200, "node-role".to_owned()),
            "GET /latest/meta-data/iam/security-credentials/node-role" => (
                200,
                json!({ "Code": "Success", "AccessKeyId": "ASIAX", "SecretAccessKey": "s", "Token": "t",
                    "Expiration": "2099-01-01T00:00:00Z" })
                .to_string(),
            ),
            _ => (404, String::new()),
        }
    });
    let variables = [
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.as_str()),
        ("AWS_EC2_METADATA_DISABLED", "false"),
        ("AWS_REGION", ""),
    ];
    assert_eq!(moto.manager(NAME, &variables).fetch().unwrap().authorization.header().reveal(), "ApiKey by-machine");
}
