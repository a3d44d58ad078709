//! What cannot be: each error names the secret, says what to do, and tells nothing of its value.

use std::{fs, process::Command};

use everflame_secrets::{Environment, SecretError, SecretsManager};
use serde_json::json;

use super::credentials::policy;
use crate::common::moto::{Moto, REGION, element};

const NAME: &str = "istio/otel-collector/elastic";
const VALUE: &str = r#"{"endpoint": "https://elastic.example:443", "apiKey": "hunter2"}"#;

fn said(error: &SecretError, words: &[&str]) {
    let text = format!("{error}");
    assert!(text.contains(&format!("secret `{NAME}`")), "{text}");
    words.iter().for_each(|word| assert!(text.contains(word), "`{word}` is not in: {text}"));
    assert!(!text.contains("hunter2") && !format!("{error:?}").contains("hunter2"), "{text}");
}

pub fn no_credentials_anywhere() {
    let moto = Moto::start();
    let error = moto.manager(NAME, &[]).fetch().unwrap_err();
    said(
        &error,
        &[
            "AWS_ACCESS_KEY_ID",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "/nowhere/.aws/credentials",
            "metadata service",
            "docs/secrets.md",
        ],
    );
    assert!(matches!(error, SecretError::NoCredentials { .. }));
    // A place that is half set up is not passed over for the next one, which is somebody else.
    let error = moto.manager(NAME, &[("AWS_ACCESS_KEY_ID", "a")]).fetch().unwrap_err();
    said(&error, &["AWS_SECRET_ACCESS_KEY is missing"]);
}

/// moto calculates the signature by AWS's own Python library, and looks at the policies.
pub fn signatures_and_policies_are_checked() {
    let moto = Moto::start();
    let arn = moto.create(NAME, VALUE);
    let keys = |user: &str| {
        moto.iam("CreateUser", &[("UserName", user)]);
        let answer = moto.iam("CreateAccessKey", &[("UserName", user)]);
        (element(&answer, "AccessKeyId").to_owned(), element(&answer, "SecretAccessKey").to_owned())
    };
    let (reader, stranger) = (keys("reader"), keys("stranger"));
    let parameters = [("UserName", "reader"), ("PolicyName", "read"), ("PolicyDocument", &policy())];
    moto.iam("PutUserPolicy", &parameters);
    moto.enforce();
    let fetch = |name: &str, (id, key): &(String, String)| moto.fetch_as(name, (id, key));
    assert_eq!(fetch(NAME, &reader).unwrap().authorization.header().reveal(), "ApiKey hunter2");
    assert!(fetch(&arn, &reader).is_ok());
    let denied = fetch(NAME, &stranger).unwrap_err();
    assert!(matches!(denied, SecretError::Denied { .. }), "{denied:?}");
    said(&denied, &["secretsmanager:GetSecretValue", "AWS_ACCESS_KEY_ID"]);
    let forged = fetch(NAME, &(reader.0.clone(), "another key".into())).unwrap_err();
    assert!(matches!(forged, SecretError::Rejected { .. }), "{forged:?}");
    said(&forged, &["SignatureDoesNotMatch", "clock"]);
    let unknown = fetch(NAME, &("AKIAUNKNOWN".into(), reader.1.clone())).unwrap_err();
    assert!(matches!(unknown, SecretError::Rejected { .. }), "{unknown:?}");
}

pub fn missing_deleted_and_of_another_shape() {
    let moto = Moto::start();
    let missing = moto.fetch(NAME).unwrap_err();
    assert!(matches!(missing, SecretError::NotFound { .. }), "{missing:?}");
    said(&missing, &[REGION, "create it"]);
    moto.create(NAME, "hunter2");
    said(&moto.fetch(NAME).unwrap_err(), &["no JSON object", "\"apiKey\""]);
    moto.put(NAME, r#"{"endpoint": "https://hunter2", "api_key": "hunter2"}"#);
    said(&moto.fetch(NAME).unwrap_err(), &["the key `apiKey`", "missing"]);
    moto.act("PutSecretValue", json!({ "SecretId": NAME, "SecretBinary": "aHVudGVyMg==" }));
    said(&moto.fetch(NAME).unwrap_err(), &["bytes, not text"]);
    moto.act("DeleteSecret", json!({ "SecretId": NAME, "RecoveryWindowInDays": 7 }));
    let deleted = moto.fetch(NAME).unwrap_err();
    said(&deleted, &["delet"]);
    assert!(!deleted.is_transient());
}

pub fn nobody_answers() {
    let keys = [
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
        ("AWS_REGION", REGION),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    let url = format!("aws-sm://{NAME}?endpoint=http://127.0.0.1:1");
    let error = SecretsManager::new(url.parse().unwrap(), Environment::of(keys)).fetch().unwrap_err();
    said(&error, &["http://127.0.0.1:1", "network policy"]);
    assert!(error.is_transient());
    // Somebody who is not AWS, and one who answers without end.
    let page = crate::common::loopback::serve(|_| (200, "<html>log in first</html>".to_owned()));
    let flood = crate::common::loopback::serve(|_| (200, "x".repeat(1 << 20)));
    for (other, word) in [(page, "none of AWS's"), (flood, "no answer")] {
        let url = format!("aws-sm://{NAME}?endpoint={other}");
        let error = SecretsManager::new(url.parse().unwrap(), Environment::of(keys)).fetch().unwrap_err();
        said(&error, &[word]);
    }
}

pub fn over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (key, certificate) = (folder.path().join("key.pem"), folder.path().join("certificate.pem"));
    let (key, certificate) = (key.to_str().unwrap(), certificate.to_str().unwrap());
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", certificate])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let moto = Moto::start_with("https", &["-c", certificate, "-k", key]);
    let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
    let trusting = [keys[0], keys[1], ("AWS_CA_BUNDLE", certificate)];
    // It answers, and says that there is no such secret.
    let missing = moto.manager(NAME, &trusting).fetch().unwrap_err();
    assert!(matches!(missing, SecretError::NotFound { .. }), "{missing:?}");
    let stranger = moto.manager(NAME, &keys).fetch().unwrap_err();
    said(&stranger, &["no answer", "ertificate"]);
    fs::write(certificate, "").unwrap();
    said(&moto.manager(NAME, &trusting).fetch().unwrap_err(), &["AWS_CA_BUNDLE"]);
}
