//! What the overlays `collector` and `elastic` send to, without a cluster: OpenTelemetry's own collector
//! between the agent and a server of ours, and an endpoint that lets in who shows an API key.
//!
//! The collector is what `scripts/kubernetes.sh tools` leaves; without it its test is skipped, aloud.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use everflame_kubernetes::endpoint::Endpoint;
use everflame_kubernetes::tools;
use everflame_tests::everflame::command;
use everflame_tests::machine::{free_port, need_root, wait_for};
use everflame_tests::target::built;
use everflame_tests::{Api, Everflame, Outcome, Skip, Target, runner};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(90);
const SAMPLES: &str = "{process=\"truth_cpp\"}";

fn main() -> ExitCode {
    runner::run(&[
        ("destinations::through_opentelemetrys_collector", through_the_collector),
        ("destinations::an_api_key_that_changes", an_api_key_that_changes),
    ])
}

/// All that the collector has acknowledged comes out behind it, once, and with what we say beside the
/// standard's own: whether each stack is whole.
fn through_the_collector() -> Outcome {
    need_root()?;
    let collector = tools::folder()?.join("otelcol");
    if !collector.is_file() {
        return Err(Skip("needs OpenTelemetry's collector: run scripts/kubernetes.sh tools".into()));
    }
    let truth = built("truth_cpp")?;
    let folder = tempfile::tempdir().unwrap();
    let (port, behind) = (free_port(), free_port());
    let server = Everflame::server(behind, &folder.path().join("data"));
    let configuration = json!({
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": format!("127.0.0.1:{port}"), "max_recv_msg_size_mib": 64}}}},
        "exporters": {"otlp": {"endpoint": format!("127.0.0.1:{behind}"), "tls": {"insecure": true}}},
        "service": {
            "pipelines": {"profiles": {"receivers": ["otlp"], "exporters": ["otlp"]}},
            "telemetry": {"metrics": {"level": "none"}},
        },
    });
    let mut between = Command::new(collector);
    between.args(["--feature-gates=service.profilesSupport", "--config", &format!("yaml:{configuration}")]);
    let between = Running::start(&mut between, &folder.path().join("collector.log"));
    let agent = Everflame::agent(port, 97, &folder.path().join("spool"));
    let load = Target::start(&truth, &["30"]);
    let api = server.api();
    wait_for("samples behind the collector", PATIENCE, || {
        assert!(between.alive(), "the collector ended:\n{}", between.log());
        (api.samples(SAMPLES) >= 300).then_some(())
    });
    drop(load);
    let (acknowledged, refused) = (
        figure(agent.api(), "everflame_agent_samples_acknowledged_total"),
        figure(agent.api(), "everflame_agent_requests_refused_total"),
    );
    wait_for("all that was acknowledged", PATIENCE, || (api.samples("") >= acknowledged).then_some(()));
    let taken = figure(agent.api(), "everflame_agent_samples_taken_total");
    agent.stop();
    let stored = api.settle("", Duration::from_secs(5));
    println!(
        "through the collector: {acknowledged} samples acknowledged while it ran, {stored} stored behind it after its end"
    );
    assert_eq!(refused, 0);
    assert!(stored >= acknowledged && stored <= taken + 97 * 2 * 60, "{acknowledged} {stored} {taken}");
    let graph = api.graph(SAMPLES);
    assert_eq!(graph.incomplete.get("not_said"), None, "it is said of every stack whether it is whole");
    assert!(graph.complete * 10 >= graph.samples * 9, "{} of {} whole", graph.complete, graph.samples);
    let own = graph.count(|path| path.frames.iter().any(|frame| frame.mapping == "truth_cpp"));
    assert!(own * 10 >= graph.samples * 9, "{own} of {}", graph.samples);
    Ok(())
}

/// By the seed's names: a key in a file that is wrong, and then right. Nobody is restarted, and what was
/// kept meanwhile is sent.
fn an_api_key_that_changes() -> Outcome {
    need_root()?;
    let truth = built("truth_cpp")?;
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::serve("127.0.0.1", "the right key");
    let (key, log) = (folder.path().join("apiKey"), folder.path().join("agent.log"));
    std::fs::write(&key, "a wrong key\n").unwrap();
    let listen = format!("127.0.0.1:{}", free_port());
    let mut agent = command(&["agent", "--rate", "97", "--listen", &listen, "--spool"]);
    agent
        .arg(folder.path().join("spool"))
        .env("ELASTIC_ENDPOINT", format!("http://127.0.0.1:{}", endpoint.port()))
        .env("ELASTIC_API_KEY_FILE", &key)
        .env("PROJECT_ID", "7");
    let agent = Running::start(&mut agent, &log);
    let load = Target::start(&truth, &["30"]);
    wait_for("a refusal", PATIENCE, || (endpoint.came().refused > 0).then_some(()));
    wait_for("the agent's words about it", PATIENCE, || agent.log().contains("does not accept our").then_some(()));
    {
        let came = endpoint.came();
        assert_eq!(came.shown.iter().collect::<Vec<_>>(), ["ApiKey a wrong key"]);
        assert!(came.samples.is_empty());
    }
    let api = Api::new(&format!("http://{listen}"));
    wait_for("batches that wait", PATIENCE, || (figure(&api, "everflame_agent_spool_batches") >= 2).then_some(()));
    let next = key.with_extension("new");
    std::fs::write(&next, "the right key\n").unwrap();
    std::fs::rename(next, &key).unwrap();
    let total = || endpoint.came().samples.values().sum::<u64>();
    wait_for("samples", PATIENCE, || (total() >= 300).then_some(()));
    drop(load);
    let acknowledged = figure(&api, "everflame_agent_samples_acknowledged_total");
    assert!(total() >= acknowledged, "{} came, {acknowledged} acknowledged", total());
    assert_eq!(figure(&api, "everflame_agent_requests_refused_total"), 0, "what waited for a key was not given up");
    let dropped: u64 = figures(&api, "everflame_agent_samples_dropped_total").iter().sum();
    assert_eq!(dropped, 0);
    let came = endpoint.came();
    println!("{} refusals, then {acknowledged} samples; attributes: {:?}", came.refused, came.attributes);
    for name in ["host.name", "process.executable.name", "thread.name"] {
        assert!(came.attributes.contains(name), "{name}: {:?}", came.attributes);
    }
    for secret in ["a wrong key", "the right key"] {
        assert!(!agent.log().contains(secret), "the key is in the log");
    }
    Ok(())
}

/// The figures of a name, one for each set of labels.
fn figures(api: &Api, name: &str) -> Vec<u64> {
    let (status, text) = api.get("/metrics", &[]);
    assert_eq!(status, 200, "{text}");
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok()).flatten()
    });
    let values: Vec<u64> = values.map(|value| value as u64).collect();
    assert!(!values.is_empty(), "no {name} in {text}");
    values
}

/// The only one.
fn figure(api: &Api, name: &str) -> u64 {
    let values = figures(api, name);
    assert_eq!(values.len(), 1, "{name}: {values:?}");
    values[0]
}

/// A program with a log, ended with the value.
struct Running(std::cell::RefCell<Child>, std::path::PathBuf);

impl Running {
    fn start(command: &mut Command, log: &Path) -> Self {
        let file = std::fs::File::create(log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Self(std::cell::RefCell::new(child), log.to_owned())
    }

    fn alive(&self) -> bool {
        matches!(self.0.borrow_mut().try_wait(), Ok(None))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.1).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let child = self.0.get_mut();
        let _ = child.kill();
        let _ = child.wait();
    }
}
