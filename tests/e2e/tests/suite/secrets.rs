//! An agent whose destination and key are in AWS Secrets Manager: the key is sent, a new one is used
//! without a restart, and a secret that cannot be had is an error that names it. AWS is moto, a real
//! implementation of its API in a process of its own.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use everflame_tests::api::residual;
use everflame_tests::everflame::command;
use everflame_tests::machine::{self, cache, finish, free_port, need_root, wait_for};
use everflame_tests::{Api, Outcome, Skip};
use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesServiceRequest, ExportProfilesServiceResponse,
    profiles_service_server::{ProfilesService, ProfilesServiceServer},
};
use serde_json::json;
use tonic::{Request, Response, Status};

const NAME: &str = "istio/otel-collector/elastic";
const REGION: &str = "eu-central-1";

pub fn a_key_that_is_replaced() -> Outcome {
    need_root()?;
    let aws = Aws::start()?;
    let receiver = Receiver::start("ApiKey first-key-of-all");
    aws.act("CreateSecret", &json!({ "Name": NAME, "SecretString": value(receiver.address, "first-key-of-all") }));
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut agent = aws.agent(folder.path());
    let child = agent.stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    let mut agent = Ends(child);
    wait_for("the first request", Duration::from_secs(60), || {
        (receiver.count("ApiKey first-key-of-all") > 0).then_some(())
    });
    // It is replaced in Secrets Manager, and the destination takes the new one only. The agent's own
    // time of fetching is five minutes away.
    aws.act(
        "PutSecretValue",
        &json!({ "SecretId": NAME, "SecretString": value(receiver.address, "second-key-of-all") }),
    );
    receiver.accept("ApiKey second-key-of-all");
    wait_for("the new key", Duration::from_secs(60), || (receiver.count("ApiKey second-key-of-all") > 2).then_some(()));
    machine::signal(agent.0.id(), "TERM");
    assert!(agent.0.wait().unwrap().success());
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("the secret has a new value"), "{text}");
    assert!(!text.contains("key-of-all"), "a secret is in the log");
    let refused = receiver.refused();
    println!("{refused} requests were refused before the new key came");
    assert!(refused < 50, "it goes on with a refused key: {refused} requests");
    Ok(())
}

/// `up` keeps what it sees, and sends it to where the secret says as well.
pub fn up_sends_as_well() -> Outcome {
    need_root()?;
    let aws = Aws::start()?;
    let receiver = Receiver::start("ApiKey the-key-of-all");
    aws.act("CreateSecret", &json!({ "Name": NAME, "SecretString": value(receiver.address, "the-key-of-all") }));
    let folder = tempfile::tempdir().unwrap();
    let listen = format!("127.0.0.1:{}", free_port());
    let data = folder.path().join("data");
    let up = aws.command(folder.path(), &["up", "--listen", &listen, "--data", data.to_str().unwrap()]);
    let up = Ends({ up }.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    wait_for("the first request", Duration::from_secs(60), || {
        (receiver.count("ApiKey the-key-of-all") > 2).then_some(())
    });
    let api = Api::new(&format!("http://{listen}"));
    wait_for("samples of its own", Duration::from_secs(60), || (api.samples("") > 10).then_some(()));
    let accounts = api.accounting();
    assert_eq!((accounts.len(), residual(&accounts[0])), (1, 0), "{accounts:?}");
    drop(up);
    Ok(())
}

pub fn a_secret_that_is_not_to_be_had() -> Outcome {
    need_root()?;
    let aws = Aws::start()?;
    let folder = tempfile::tempdir().unwrap();
    let ends = |what: &str, words: &[&str]| {
        let output = finish(&mut aws.agent(folder.path()));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{what}: {text}");
        let last = text.lines().last().unwrap_or_default();
        assert!(last.starts_with(&format!("everflame: secret `{NAME}`")), "{what}: {text}");
        words.iter().for_each(|word| assert!(last.contains(word), "{what}: {text}"));
        assert!(!text.contains("hunter2"), "{what}: a secret is in the log");
    };
    ends("missing", &["is not in AWS Secrets Manager", REGION]);
    aws.act("CreateSecret", &json!({ "Name": NAME, "SecretString": r#"{"endpoint": "http://hunter2"}"# }));
    ends("no key in it", &["`apiKey`", "missing"]);
    aws.act("PutSecretValue", &json!({ "SecretId": NAME, "SecretString": r#"{"apiKey": "hunter2"}"# }));
    ends("no endpoint in it", &["`endpoint`", "--endpoint"]);
    let wrong = finish(&mut command(&["agent", "--secret", "vault://x"]));
    assert_eq!(wrong.status.code(), Some(2));
    let text = String::from_utf8_lossy(&wrong.stderr);
    assert!(text.contains("aws-sm://NAME"), "{text}");
    Ok(())
}

fn value(address: SocketAddr, key: &str) -> String {
    json!({ "endpoint": format!("http://{address}"), "apiKey": key }).to_string()
}

/// A process that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Aws {
    url: String,
    _process: Ends,
}

impl Aws {
    fn start() -> Result<Self, Skip> {
        let program = cache().join("moto/bin/moto_server");
        if !program.is_file() {
            return Err(Skip("moto is not here: run scripts/setup.sh test".to_owned()));
        }
        let port = free_port();
        let mut process = Command::new(program);
        process.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let aws = Self { _process: Ends(process.spawn().unwrap()), url: format!("http://127.0.0.1:{port}") };
        wait_for("moto", Duration::from_secs(120), || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Ok(aws)
    }

    fn act(&self, action: &str, body: &serde_json::Value) {
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=x/20260101/{REGION}/secretsmanager/aws4_request, SignedHeaders=host, Signature=0"
        );
        let request = ureq::post(&self.url).header("authorization", authorization);
        let request = request.header("x-amz-target", format!("secretsmanager.{action}"));
        request.content_type("application/x-amz-json-1.1").send(body.to_string()).unwrap();
    }

    /// An agent with keys in its environment.
    fn agent(&self, folder: &std::path::Path) -> Command {
        let listen = format!("127.0.0.1:{}", free_port());
        let spool = folder.join("spool");
        self.command(folder, &["agent", "--listen", &listen, "--spool", spool.to_str().unwrap()])
    }

    /// A command with the secret and keys in its environment.
    fn command(&self, folder: &std::path::Path, arguments: &[&str]) -> Command {
        let url = format!("aws-sm://{NAME}?region={REGION}&endpoint={}", self.url);
        let mut agent = command(arguments);
        agent.args(["--secret", &url]);
        // What AWS finds in the test's own environment, or asks this machine for, is not the test's.
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")).for_each(|(name, _)| {
            agent.env_remove(name);
        });
        agent.env("AWS_EC2_METADATA_DISABLED", "true").env("HOME", folder);
        agent.env("AWS_ACCESS_KEY_ID", "x").env("AWS_SECRET_ACCESS_KEY", "y").stdin(Stdio::null());
        agent
    }
}

/// A destination over OTLP that accepts one value of the header, and remembers all.
#[derive(Clone)]
struct Receiver {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    accepted: String,
    seen: Vec<String>,
    refused: usize,
}

impl Receiver {
    fn start(accepted: &str) -> Self {
        let state = Arc::new(Mutex::new(State { accepted: accepted.to_owned(), ..State::default() }));
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let receiver = Self { address, state };
        let service = ProfilesServiceServer::new(receiver.clone())
            .accept_compressed(tonic::codec::CompressionEncoding::Zstd)
            .max_decoding_message_size(64 << 20);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(tonic::transport::Server::builder().add_service(service).serve(address)).unwrap();
        });
        receiver
    }

    fn accept(&self, accepted: &str) {
        self.state.lock().unwrap().accepted = accepted.to_owned();
    }

    fn count(&self, header: &str) -> usize {
        self.state.lock().unwrap().seen.iter().filter(|seen| *seen == header).count()
    }

    fn refused(&self) -> usize {
        self.state.lock().unwrap().refused
    }
}

#[tonic::async_trait]
impl ProfilesService for Receiver {
    async fn export(
        &self,
        request: Request<ExportProfilesServiceRequest>,
    ) -> Result<Response<ExportProfilesServiceResponse>, Status> {
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut state = self.state.lock().unwrap();
        if header != state.accepted {
            state.refused += 1;
            return Err(Status::unauthenticated("another key, please"));
        }
        state.seen.push(header.to_owned());
        Ok(Response::new(ExportProfilesServiceResponse::default()))
    }
}
