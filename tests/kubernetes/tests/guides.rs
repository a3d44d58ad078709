//! What of the guides needs neither a cluster nor this machine's kernel: configurations for others'
//! programs, what `deploy/` renders, and commands to AWS, whose API is moto's. Each needs
//! a program, and is skipped, aloud, without it. What is for a cluster is run on one (tests/cluster/pages.rs).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use everflame_kubernetes::{objects, tools};
use everflame_tests::guide::{self, Block, PAGES};
use everflame_tests::machine::{cache, finish, free_port, need_program, output, repository, wait_for};
use everflame_tests::{Outcome, Skip, runner};
use serde_json::Value;

fn main() -> ExitCode {
    runner::run(&[
        ("guides::prometheus_takes_its_files", prometheus_takes_its_files),
        ("guides::collectors_are_whole", collectors_are_whole),
        ("guides::deploy_renders", deploy_renders),
        ("guides::aws_takes_the_commands", aws_takes_the_commands),
    ])
}

/// The blocks of all pages that are tried in one place.
fn of_tier(tier: &str) -> Vec<Block> {
    let blocks: Vec<Block> = PAGES.into_iter().flat_map(|page| guide::of_tier(page, tier)).collect();
    assert!(!blocks.is_empty(), "no block is for {tier}");
    blocks
}

/// promtool reads the rules and the jobs of the guides, and the alerts of `deploy/monitoring`.
fn prometheus_takes_its_files() -> Outcome {
    let promtool = cache().join("prometheus/usr/bin/promtool");
    if !promtool.is_file() {
        return Err(Skip("promtool is not here: run scripts/setup.sh test".to_owned()));
    }
    let folder = tempfile::tempdir().unwrap();
    let check = |what: &[&str], name: &str, text: &str| {
        let file = folder.path().join("file.yaml");
        std::fs::write(&file, text).unwrap();
        let checked = finish(Command::new(&promtool).arg("check").args(what).arg(&file));
        let said = String::from_utf8_lossy(&checked.stderr) + String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success(), "{name}: {said}");
    };
    for block in of_tier("promtool") {
        let what: &[&str] = if block.text.starts_with("groups:") { &["rules"] } else { &["config", "--syntax-only"] };
        let mut config = objects::parse(&block.text).remove(0);
        // Debian's build knows no discovery by Kubernetes.
        for job in config.get_mut("scrape_configs").and_then(Value::as_array_mut).into_iter().flatten() {
            let found = job.as_object_mut().unwrap().remove("kubernetes_sd_configs").expect("no fixed addresses");
            assert_eq!(found, serde_json::json!([{"role": "pod", "namespaces": {"names": ["everflame"]}}]));
        }
        check(what, &format!("{}:{}", block.page, block.line), &config.to_string());
    }
    // JSON is YAML.
    check(
        &["rules"],
        "deploy/monitoring/rules.yaml",
        &objects::of_file("monitoring/rules.yaml")[0]["spec"].to_string(),
    );
    Ok(())
}

/// Keys that a collector's components take, of those that the guides use.
const KEYS: [(&str, &[&str]); 4] = [
    ("receivers/otlp", &["protocols"]),
    ("exporters/otlp", &["endpoint", "tls", "auth"]),
    ("exporters/elasticsearch", &["endpoint", "api_key", "mapping"]),
    ("extensions/bearertokenauth", &["filename"]),
];

/// Every component of a pipeline is configured, and every configured one is used.
fn collectors_are_whole() -> Outcome {
    for block in of_tier("collector") {
        let at = format!("{}:{}", block.page, block.line);
        let config = objects::parse(&block.text).remove(0);
        let keys =
            |value: &Value| -> Vec<String> { value.as_object().map_or(vec![], |map| map.keys().cloned().collect()) };
        let names = |value: &Value| -> Vec<String> {
            value.as_array().unwrap_or(&vec![]).iter().map(|name| name.as_str().unwrap().to_owned()).collect()
        };
        let pipeline = &config["service"]["pipelines"]["profiles"];
        let used = |kind: &str| names(if kind == "extensions" { &config["service"][kind] } else { &pipeline[kind] });
        for kind in keys(&config).iter().filter(|kind| *kind != "service") {
            let mut used = used(kind);
            used.sort();
            assert_eq!(keys(&config[kind]), used, "{at}: {kind}");
            for name in used {
                let known = KEYS.iter().find(|(of, _)| *of == format!("{kind}/{name}"));
                let known = known.unwrap_or_else(|| panic!("{at}: {kind}/{name}: which keys does it take?")).1;
                for key in keys(&config[kind][&name]) {
                    assert!(known.contains(&key.as_str()), "{at}: {kind}/{name}: {key}");
                }
            }
        }
        for kind in ["receivers", "exporters"] {
            assert!(!used(kind).is_empty(), "{at}: the pipeline has no {kind}");
        }
        assert!(!block.text.contains("batch"), "{at}: `batch` takes no profiles");
    }
    Ok(())
}

/// The script renders each overlay with the guides' options, and `kubectl create` its objects.
fn deploy_renders() -> Outcome {
    need_program("kubectl")?;
    let tools = tools::folder()?;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("FILE"), "key").unwrap();
    std::os::unix::fs::symlink(repository().join("deploy"), folder.path().join("deploy")).unwrap();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    for block in of_tier("rendered") {
        for line in block.text.lines() {
            let command = match line.split_whitespace().next() {
                Some("deploy/deploy.sh") => format!("{line} --dry-run"),
                Some("kubectl") if line.contains(" create ") => format!("{line} --dry-run=client -o yaml"),
                _ => line.replace("kubectl apply -k", "kustomize build"),
            };
            let mut shell = Command::new("bash");
            let rendered = output(shell.args(["-c", &command]).current_dir(folder.path()).env("PATH", &path));
            let objects = objects::parse(&rendered);
            assert!(!objects.is_empty(), "{}:{}: {line} renders nothing", block.page, block.line);
            for option in line.split(" --endpoint ").skip(1) {
                assert!(rendered.contains(option.trim()), "{line}: {option} is in no object");
            }
        }
    }
    Ok(())
}

/// A process that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The secret and the role are made, and are what they are said to be.
fn aws_takes_the_commands() -> Outcome {
    need_program("aws")?;
    let moto: PathBuf = cache().join("moto/bin/moto_server");
    if !moto.is_file() {
        return Err(Skip("moto is not here: run scripts/setup.sh test".to_owned()));
    }
    let port = free_port();
    let mut server = Command::new(moto);
    server.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Ends(server.spawn().unwrap());
    wait_for("moto", Duration::from_secs(120), || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(repository().join("deploy"), folder.path().join("deploy")).unwrap();
    let script = guide::script(&of_tier("aws"), folder.path(), "");
    let text = output(
        Command::new("bash")
            .args(["-c", &script])
            .current_dir(folder.path())
            .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}"))
            .envs([("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "y"), ("AWS_DEFAULT_REGION", "eu-central-1")])
            .env("AWS_PAGER", ""),
    );
    assert!(text.contains("istio/otel-collector/elastic") && text.contains("secretsmanager:GetSecretValue"), "{text}");
    assert!(!folder.path().join("secret.json").try_exists().unwrap(), "the key is left in a file");
    Ok(())
}
