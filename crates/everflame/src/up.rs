//! `up`: agent and server on this machine. The sampler keeps its privileges to itself: the
//! server is a child of it that has none.

use std::{
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::{Child, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use everflame_agent::{
    Agent, AgentConfig, Sampler, SamplerOptions,
    export::{Authorization, Credentials, Destination, Secret as Shown},
    tls::Roots,
};
use everflame_server::access::Secret;

use crate::{Told, agent, node, options::UpOptions, privileges, server};

/// How long the server may take to become ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long it may take to write what is in memory when it is told to end.
const END_WITHIN: Duration = Duration::from_secs(30);

/// Runs until it is told to stop, the duration is over, or the server ends.
pub fn run(options: UpOptions, log: &str) -> anyhow::Result<()> {
    // Signals are heard from the start: what began is ended in order.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stop = runtime.block_on(async { server::stop(options.duration) })?;
    let own = format!("http://{}", reachable(options.listen));
    let own = Destination { name: "its own store".to_owned(), endpoint: own, ..Destination::default() };
    let further = options.also.destinations(&own, options.secret.url.as_ref(), &options.secret)?;
    let kubernetes = node::watch(&options.node, options.labels.pod_labels.clone())?;
    let copy_every = options.opinion.every();
    let sampling = agent::sampler_options(options.rate, &options.sampling);
    let sampler = Sampler::load(&SamplerOptions { copy_every, ..sampling })?;
    privileges::prepare_data(&options.data)?;
    // Where the server wants tokens, its own agent has one that nobody else ever sees.
    let token = Secret::random("")?;
    let mut child = start_server(&options, log, &token)?;
    let address = match ready_address(&mut child) {
        Ok(address) => address,
        Err(e) => {
            let _ = child.kill();
            let _ = child.wait();
            return Err(e);
        }
    };
    let name = reachable(address).to_string();
    let authorization = Some(Authorization::Bearer(Shown::Value(token.reveal().to_owned())));
    let destination = Destination {
        endpoint: format!("http://{name}"),
        name,
        credentials: Credentials { authorization, headers: Vec::new() },
        roots: Roots::default(),
    };
    let config = AgentConfig {
        destination,
        further,
        spool: options.data.join("spool"),
        listen: None,
        node: node::name(&options.node),
        kubernetes,
        filter: options.filter.filter(),
        ..agent::config(&options.sampling)
    };
    let agent = Agent::start(sampler, config);
    let outcome = match agent {
        Ok(agent) => {
            server::announce(&format!("http://{address}"));
            let outcome = runtime.block_on(wait(&mut child, stop));
            agent.stop();
            outcome
        }
        Err(e) => Err(e.into()),
    };
    end(&mut child)?;
    outcome
}

fn start_server(options: &UpOptions, log: &str, token: &Secret) -> anyhow::Result<Child> {
    let mut command = privileges::unprivileged(&options.data)?;
    command.arg("server").arg("--listen").arg(options.listen.to_string());
    command.arg("--data").arg(&options.data);
    command.args(["--retention-hours", &options.retention.retention_hours.to_string()]);
    command.args(["--retention-bytes", &options.retention.retention_bytes.to_string()]);
    if !options.allowed_hosts.is_empty() {
        command.args(["--allowed-hosts", &options.allowed_hosts.join(",")]);
    }
    if options.insecure_no_auth {
        command.arg("--insecure-no-auth");
    }
    command.args(["--log", log]);
    command.env(privileges::OWN_AGENT, token.digest().to_hexadecimal());
    // What the server is to know was said above; `up`'s own length is not for it.
    command.env(privileges::ENDS_WITH_PARENT, "1");
    command.env_remove("EVERFLAME_DURATION").env_remove("EVERFLAME_CONFIG").env_remove("EVERFLAME_DATA");
    // Its agent speaks to it in plain HTTP, on this machine.
    command.env_remove("EVERFLAME_TLS_CERT_FILE").env_remove("EVERFLAME_TLS_KEY_FILE");
    command.stdout(Stdio::piped()).spawn().context("cannot start the server")
}

/// Waits for the server's one line.
fn ready_address(child: &mut Child) -> anyhow::Result<SocketAddr> {
    let stdout = child.stdout.take().context("the server has no standard output")?;
    let (send, lines) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(stdout).read_line(&mut line);
        let _ = send.send(line);
    });
    let line = lines.recv_timeout(READY_WITHIN).context("the server did not become ready within a minute")?;
    match line.trim().strip_prefix("everflame is ready: http://").map(str::parse) {
        Some(Ok(address)) => Ok(address),
        // It has said on standard error why not.
        _ => Err(Told.into()),
    }
}

/// Where a listener on `address` is reached from this machine.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

async fn wait(child: &mut Child, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    tokio::pin!(stop);
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            _ = tick.tick() => {
                if let Some(status) = child.try_wait()? {
                    bail!("the server ended ({status}): see its messages above");
                }
            }
        }
    }
}

fn end(child: &mut Child) -> anyhow::Result<()> {
    if child.try_wait()?.is_none() {
        let pid = rustix::process::Pid::from_child(child);
        let _ = rustix::process::kill_process(pid, privileges::PARENT_ENDS);
    }
    let until = Instant::now() + END_WITHIN;
    while Instant::now() < until {
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill()?;
    child.wait()?;
    bail!("the server did not end within {} s and was killed", END_WITHIN.as_secs())
}
