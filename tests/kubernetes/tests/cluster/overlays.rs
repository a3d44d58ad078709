//! The overlays that send to others, as well as to our server and instead of it: to a real OpenTelemetry
//! collector in a pod, and to an endpoint that wants an API key as Elastic's does.

use std::net::TcpStream;
use std::time::Duration;

use everflame_kubernetes::endpoint::Endpoint;
use everflame_kubernetes::images::Image;
use everflame_kubernetes::rooms::NODE;
use everflame_kubernetes::{Plane, tools};
use everflame_tests::api::{residual, sum};
use everflame_tests::machine::finish;
use everflame_tests::{Api, Outcome};
use serde_json::{Value, json};

use crate::deployment::{agent, api, cleared, installed, patiently, pod, quiet, said, script, state};
use crate::install::left;
use crate::pods::namespaces;
use crate::reader::{Reader, block};

/// The guides' addresses.
const COLLECTOR: &str = "otel-collector.observability:4317";
const ELASTIC: &str = "elastic-otel-collector.observability:4317";
const GUIDE: &str = "docs/integration.md";
/// What the script says of a cluster whose namespaces do not have their names as labels.
const LABEL: &str = "kubectl label namespace kube-system kubernetes.io/metadata.name=kube-system";
/// A pod whose samples are looked for.
const LOAD: &str = "load";
const ENOUGH: u64 = 100;
const KEY: &str = "a-key-that-stands-nowhere-else";

/// First a collector and then Elastic beside a server that runs: each has every profile, and our server
/// does not notice.
pub fn as_well() -> Outcome {
    tools::folder()?;
    let stage = installed()?;
    quiet(&stage);
    let reader = Reader::new(&stage);
    let others = Others::start(&stage);
    let server = pod(&stage, "everflame-server")["metadata"]["uid"].clone();

    run(&stage, &["--overlay", "also-collector", "--endpoint", &format!("http://{COLLECTOR}")]);
    others.behind_the_collector(&stage);
    lets_out(&stage, &[json!({"ports": [{"port": 4317, "protocol": "TCP"}]})]);
    let (ours, theirs) = (api(&stage), agent(&stage));
    patiently(&stage, "the same samples at our server", || {
        (ours.samples(&format!("{{pod=\"{LOAD}\"}}")) >= ENOUGH).then_some(())
    });
    whole(&ours);
    assert_eq!(refusals(&theirs, COLLECTOR), 0.0);

    let overlay = ["--overlay", "also-elastic", "--endpoint", &format!("http://{ELASTIC}")];
    let output = script(&stage, &overlay);
    assert!(!output.status.success(), "without the Secret");
    assert!(said(&output).contains("create secret generic everflame-elastic"), "{}", said(&output));
    std::fs::write(reader.folder().join("FILE"), KEY).unwrap();
    reader.run("kubectl -n everflame create secret generic everflame-elastic --from-file=apiKey=FILE");
    run(&stage, &overlay);
    others.at_elastic(&stage);
    let before = ours.samples(&format!("{{pod=\"{LOAD}\"}}"));
    patiently(&stage, "more samples at our server", || {
        (ours.samples(&format!("{{pod=\"{LOAD}\"}}")) > before + ENOUGH).then_some(())
    });
    whole(&ours);
    assert_eq!(refusals(&agent(&stage), ELASTIC), 0.0);
    stands_nowhere(&stage, KEY);
    assert_eq!(pod(&stage, "everflame-server")["metadata"]["uid"], server, "the server was replaced");

    // Back: the others get nothing more, and agents are not let out to them.
    run(&stage, &[]);
    let settings = stage.kubectl().get(&["configmap", "everflame-agent", "-n", "everflame"]).unwrap();
    assert!(settings["data"]["EVERFLAME_ALSO"].is_null(), "{settings}");
    assert!(!agent(&stage).get("/metrics", &[]).1.contains("observability"), "still sent to others");
    let policy = ["networkpolicy", "everflame-agent-endpoint", "-n", "everflame"];
    assert!(stage.kubectl().get(&policy).is_none(), "agents may still go out to them");
    stage.kubectl().run(&["delete", "secret", "everflame-elastic", "-n", "everflame"]);
    others.end(&stage);
    Ok(())
}

/// The same instead of our server: on a cluster that has none.
pub fn instead() -> Outcome {
    tools::folder()?;
    let stage = cleared()?;
    let reader = Reader::new(&stage);
    let others = Others::start(&stage);

    let commands = block(GUIDE, "--overlay collector");
    let text = reader.run(commands.lines().next().unwrap());
    assert!(text.contains(&format!("send profiles to http://{COLLECTOR}")), "{text}");
    // So it is before Kubernetes 1.21.
    assert!(text.contains(LABEL), "{text}");
    reader.run(LABEL);
    others.behind_the_collector(&stage);
    assert_eq!(refusals(&agent(&stage), COLLECTOR), 0.0);
    let pods = stage.kubectl().get(&["pods", "-n", "everflame"]).unwrap();
    assert_eq!(pods["items"].as_array().unwrap().len(), 1, "agents alone: {pods}");
    let to_the_collector = json!({
        "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "observability"}}}],
        "ports": [{"port": 4317, "protocol": "TCP"}],
    });
    lets_out(&stage, &[to_the_collector, json!({"ports": [{"port": 4317, "protocol": "TCP"}]})]);
    run(&stage, &["--uninstall"]);
    assert!(left(&stage).is_empty(), "{:?}", left(&stage));

    // Elastic, in a namespace that was made for the Secret. Its key is wrong at first.
    std::fs::write(reader.folder().join("FILE"), "a-key-of-yesterday").unwrap();
    others.elastic.came().key = KEY.into();
    let text = reader.run(&block(GUIDE, "--overlay elastic"));
    assert!(!text.contains(LABEL), "it was done: {text}");
    patiently(&stage, "a refusal", || (others.elastic.came().refused > 0).then_some(()));
    let before = pod(&stage, "everflame-agent");
    std::fs::write(reader.folder().join("FILE"), KEY).unwrap();
    let secret = "kubectl -n everflame create secret generic everflame-elastic --from-file=apiKey=FILE";
    reader.run(&format!("{secret} --dry-run=client -o yaml | kubectl apply -f -"));
    others.at_elastic(&stage);
    let after = pod(&stage, "everflame-agent");
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["status"]["containerStatuses"][0]["restartCount"], 0, "a new key needs no restart");
    let shown: Vec<String> = others.elastic.came().shown.iter().cloned().collect();
    assert_eq!(shown, ["ApiKey a-key-of-yesterday"]);
    assert_eq!(refusals(&agent(&stage), ELASTIC), 0.0, "what waited for the key was not given up");
    stands_nowhere(&stage, KEY);
    lets_out(&stage, &[json!({"ports": [{"port": 4317, "protocol": "TCP"}, {"port": 443, "protocol": "TCP"}]})]);
    run(&stage, &["--uninstall"]);
    assert_eq!(left(&stage), ["namespace/everflame", "secret/everflame-elastic"], "what its user made stays");
    reader.run("kubectl delete namespace everflame");
    reader.run("kubectl label namespace kube-system kubernetes.io/metadata.name-");
    others.end(&stage);
    Ok(())
}

/// Runs the script, which must succeed.
fn run(plane: &Plane, arguments: &[&str]) {
    let output = script(plane, arguments);
    assert!(output.status.success(), "{arguments:?}: {}\n{}", said(&output), state(plane));
}

/// Requests of an exporter that were refused for good.
fn refusals(agent: &Api, exporter: &str) -> f64 {
    agent.figure(&format!("everflame_agent_requests_refused_total{{exporter=\"{exporter}\"}}"))
}

/// Every account of our server adds up, and nothing was dropped on the way to it.
fn whole(server: &Api) {
    let accounts = server.accounting();
    assert!(!accounts.is_empty());
    for account in accounts {
        assert_eq!((residual(&account), sum(&account["dropped"])), (0, 0), "{account}");
    }
}

/// The policies of the agents have these rules for what goes out, beside those that they always have.
fn lets_out(plane: &Plane, rules: &[Value]) {
    let policies = plane.kubectl().get(&["networkpolicies", "-n", "everflame", "-l", "app=everflame-agent"]).unwrap();
    let policies = policies["items"].as_array().unwrap().iter();
    let all: Vec<Value> = policies.flat_map(|policy| policy["spec"]["egress"].as_array().cloned().unwrap()).collect();
    for rule in rules {
        assert!(all.contains(rule), "{rule} is not among {all:?}");
    }
}

/// A key is in its Secret and nowhere else: in no other object, no argument, no environment, no log.
fn stands_nowhere(plane: &Plane, key: &str) {
    let kubectl = plane.kubectl();
    let secret = kubectl.get(&["secret", "everflame-elastic", "-n", "everflame"]).unwrap();
    let encoded = secret["data"]["apiKey"].as_str().expect("the key").to_owned();
    let kinds = kubectl.run(&["api-resources", "--verbs=list", "-o", "name"]);
    let kinds: Vec<&str> = kinds.lines().filter(|kind| *kind != "secrets").collect();
    let mut places = vec![
        ("an object", kubectl.run(&["get", &kinds.join(","), "-A", "--ignore-not-found", "-o", "json"])),
        ("the log", kubectl.run(&["logs", "-n", "everflame", "-l", "app=everflame-agent", "--tail=-1"])),
    ];
    let mut agents = 0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        if read("comm").starts_with(b"everflame") {
            agents += 1;
            places.push(("a command line", String::from_utf8_lossy(&read("cmdline")).into_owned()));
            places.push(("an environment", String::from_utf8_lossy(&read("environ")).into_owned()));
        }
    }
    assert!(agents > 0, "no agent was looked at");
    assert!(places[0].1.contains("everflame-elastic"), "no object was looked at");
    for (place, text) in places {
        assert!(!text.contains(key) && !text.contains(&encoded), "the key is in {place}");
    }
}

/// What of others runs in the namespace `observability`: a collector, behind it an endpoint that counts,
/// one that wants an API key, and a pod that burns.
struct Others {
    behind: Endpoint,
    elastic: Endpoint,
}

impl Others {
    fn start(plane: &Plane) -> Self {
        let others = Self {
            behind: Endpoint::serve(NODE, "of-the-collector"),
            elastic: Endpoint::at(&format!("{NODE}:4317"), KEY),
        };
        let collector = tools::folder().expect("asked for before").join("otelcol");
        plane.import(&Image::new("otelcol:1", &[("otelcol", &collector)], &["/otelcol"]));
        let kubectl = plane.kubectl();
        // One that a failure has left sends to nobody.
        kubectl.run(&["delete", "namespace", "observability", "--ignore-not-found"]);
        namespaces(plane, &["observability"]);
        let configuration = json!({
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": "0.0.0.0:4317", "max_recv_msg_size_mib": 64}}}},
            "exporters": {"otlp": {
                "endpoint": format!("{NODE}:{}", others.behind.port()), "tls": {"insecure": true},
                "headers": {"authorization": "ApiKey of-the-collector"},
            }},
            "service": {
                "pipelines": {"profiles": {"receivers": ["otlp"], "exporters": ["otlp"]}},
                "telemetry": {"metrics": {"level": "none"}},
            },
        });
        let arguments = json!(["--feature-gates=service.profilesSupport", "--config", format!("yaml:{configuration}")]);
        let pod = |name: &str, image: &str, arguments: Value| {
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": "observability", "labels": {"app": name}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [
                    {"name": name, "image": image, "imagePullPolicy": "Never", "args": arguments},
                ]},
            })
        };
        let service = |name: &str, selector: Value| {
            let mut spec = json!({"clusterIP": "None", "ports": [{"port": 4317}]});
            if !selector.is_null() {
                spec["selector"] = selector;
            }
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "observability"}, "spec": spec})
        };
        kubectl.apply(&[
            pod("otel-collector", "otelcol:1", arguments),
            service("otel-collector", json!({"app": "otel-collector"})),
            pod(LOAD, "truth:1", json!(["600"])),
            service("elastic-otel-collector", Value::Null),
            json!({
                "apiVersion": "v1", "kind": "Endpoints",
                "metadata": {"name": "elastic-otel-collector", "namespace": "observability"},
                "subsets": [{"addresses": [{"ip": NODE}], "ports": [{"port": 4317}]}],
            }),
        ]);
        patiently(plane, "the collector", || {
            let pod = kubectl.get(&["pod", "otel-collector", "-n", "observability"])?;
            TcpStream::connect((pod["status"]["podIP"].as_str()?, 4317)).ok().map(drop)
        });
        others
    }

    /// All that the collector acknowledged comes out behind it.
    fn behind_the_collector(&self, plane: &Plane) {
        self.arrives(plane, &self.behind, COLLECTOR);
    }

    /// All that was acknowledged is there, by who showed the key.
    fn at_elastic(&self, plane: &Plane) {
        self.arrives(plane, &self.elastic, ELASTIC);
    }

    fn arrives(&self, plane: &Plane, endpoint: &Endpoint, exporter: &str) {
        let count = || endpoint.came().samples.get(LOAD).copied().unwrap_or(0);
        let log = || {
            let logs =
                |of: &[&str]| said(&finish(&mut plane.kubectl().command(&[&["logs", "--tail=20"], of].concat())));
            logs(&["-n", "observability", "otel-collector"]) + &logs(&["-n", "everflame", "-l", "app=everflame-agent"])
        };
        let start = std::time::Instant::now();
        while count() < ENOUGH {
            assert!(
                start.elapsed() < Duration::from_secs(120),
                "of {LOAD} at {exporter}: {:?}\n{}",
                endpoint.came(),
                log()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        let acknowledged =
            agent(plane).figure(&format!("everflame_agent_samples_acknowledged_total{{exporter=\"{exporter}\"}}"));
        let all = || endpoint.came().samples.values().sum::<u64>();
        patiently(plane, "all that was acknowledged", || (all() as f64 >= acknowledged).then_some(()));
        println!(
            "{exporter}: {acknowledged} samples acknowledged, {} came, {} of them of the pod {LOAD}",
            all(),
            count()
        );
        let came = endpoint.came();
        for attribute in ["host.name", "k8s.namespace.name", "k8s.pod.name", "process.executable.name"] {
            assert!(came.attributes.contains(attribute), "{attribute}: {:?}", came.attributes);
        }
    }

    fn end(self, plane: &Plane) {
        // It goes while others do something else.
        plane.kubectl().run(&["delete", "namespace", "observability", "--wait=false"]);
    }
}
