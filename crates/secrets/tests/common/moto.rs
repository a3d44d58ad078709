//! A moto server of the test's own, and what a person would do in AWS's console.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use everflame_secrets::{Environment, Secret, SecretError, SecretsManager};
use serde_json::{Value, json};

pub const REGION: &str = "eu-central-1";

/// It ends with this.
pub struct Moto {
    child: Child,
    pub url: String,
}

fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/.cache/moto/bin/moto_server")
}

/// Whether it is installed.
pub fn is_here() -> bool {
    program().is_file()
}

impl Moto {
    pub fn start() -> Self {
        Self::start_with("http", &[])
    }

    pub fn start_with(scheme: &str, more: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(program())
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moto = Self { child, url: format!("{scheme}://127.0.0.1:{port}") };
        let end = Instant::now() + Duration::from_secs(120);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "moto does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        moto
    }

    /// An environment in which AWS's services are here and there is nothing else.
    pub fn environment(&self, more: &[(&str, &str)]) -> Environment {
        let base = [
            ("AWS_ENDPOINT_URL", self.url.as_str()),
            ("AWS_REGION", REGION),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("HOME", "/nowhere"),
        ];
        Environment::of(base.into_iter().chain(more.iter().copied()))
    }

    pub fn manager(&self, name: &str, more: &[(&str, &str)]) -> SecretsManager {
        SecretsManager::new(format!("aws-sm://{name}").parse().unwrap(), self.environment(more))
    }

    /// With the keys of a user.
    pub fn fetch_as(&self, name: &str, (id, key): (&str, &str)) -> Result<Secret, SecretError> {
        self.manager(name, &[("AWS_ACCESS_KEY_ID", id), ("AWS_SECRET_ACCESS_KEY", key)]).fetch()
    }

    pub fn fetch(&self, name: &str) -> Result<Secret, SecretError> {
        self.fetch_as(name, ("anybody", "anything"))
    }

    /// An action of Secrets Manager.
    pub fn act(&self, action: &str, body: Value) -> Value {
        let (status, text) = self.post(
            "secretsmanager",
            &[("content-type", "application/x-amz-json-1.1"), ("x-amz-target", &format!("secretsmanager.{action}"))],
            &body.to_string(),
        );
        assert_eq!(status, 200, "{action}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Makes a secret; its ARN.
    pub fn create(&self, name: &str, value: &str) -> String {
        self.act("CreateSecret", json!({ "Name": name, "SecretString": value }))["ARN"].as_str().unwrap().to_owned()
    }

    /// Gives it another value.
    pub fn put(&self, name: &str, value: &str) {
        self.act("PutSecretValue", json!({ "SecretId": name, "SecretString": value }));
    }

    /// An action of IAM; the answer's XML.
    pub fn iam(&self, action: &str, parameters: &[(&str, &str)]) -> String {
        let mut form = format!("Action={action}&Version=2010-05-08");
        for (name, value) in parameters {
            let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
            form.push_str(&format!("&{name}={value}"));
        }
        let (status, text) = self.post("iam", &[("content-type", "application/x-www-form-urlencoded")], &form);
        assert_eq!(status, 200, "{action}: {text}");
        text
    }

    /// From now on every request must be signed well and allowed by a policy.
    pub fn enforce(&self) {
        let (status, text) = self.post_to("/moto-api/reset-auth", &[], "0");
        assert_eq!(status, 200, "{text}");
    }

    fn post(&self, service: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        let scope = format!("AWS4-HMAC-SHA256 Credential=setup/20260101/{REGION}/{service}/aws4_request");
        let authorization = format!("{scope}, SignedHeaders=host, Signature=0");
        let mut all = vec![("authorization", authorization.as_str())];
        all.extend(headers);
        self.post_to("/", &all, body)
    }

    fn post_to(&self, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().into();
        let mut request = agent.post(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut answer = request.send(body).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The text of an element of IAM's answers.
pub fn element<'a>(xml: &'a str, name: &str) -> &'a str {
    let (_, rest) = xml.split_once(&format!("<{name}>")).unwrap();
    rest.split_once("</").unwrap().0
}
