//! `agent`: profiles this machine and sends the profiles to a server.

use std::{env, fs, path::PathBuf};

use anyhow::{Context, bail};
use everflame_agent::{
    Agent, AgentConfig, Memory, Sampler, SamplerOptions,
    export::{Authorization, Credentials, Destination, Secret},
    tls::Roots,
};

use crate::{
    WrongUse, also, node,
    options::{AgentOptions, SamplingOptions},
    server,
};

/// Runs until it is told to stop or the duration is over.
pub fn run(options: AgentOptions) -> anyhow::Result<()> {
    if env::var("PROFILING_ENABLED").is_ok_and(|v| matches!(v.as_str(), "false" | "0" | "no")) {
        tracing::warn!("PROFILING_ENABLED says no: nothing is profiled");
        return tokio_block(async {
            server::stop(options.duration)?.await;
            Ok(())
        });
    }
    if options.secret.url.is_some() && options.token_file.is_some() {
        return Err(WrongUse("give --secret or --token-file, not both: one of them is sent".to_owned()).into());
    }
    let secret = match options.secret.watch()? {
        None => None,
        Some(secret) if options.endpoint.is_none() && secret.endpoint.is_none() => {
            let name = &secret.name;
            bail!("secret `{name}`: the key `endpoint` is missing: add it, or give --endpoint");
        }
        secret => secret,
    };
    let of_secret = secret.as_ref().and_then(|secret| secret.endpoint.as_deref());
    let endpoint = endpoint(options.endpoint.as_deref().or(of_secret))?;
    let authorization = secret
        .map(|secret| Authorization::Source(secret))
        .or(options.token_file.map(|path| Authorization::Bearer(Secret::File(path))))
        .or_else(seed_key);
    let destination = Destination {
        name: Destination::host_and_port(&endpoint).to_owned(),
        endpoint,
        credentials: Credentials { authorization, headers: seed_headers()? },
        roots: Roots { ca_file: options.ca_file },
    };
    let further = options.also.destinations(&destination, None, &options.secret)?;
    // Signals are heard from the start: what began is ended in order.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stop = runtime.block_on(async { server::stop(options.duration) })?;
    let copy_every = options.opinion.every();
    let sampler = Sampler::load(&SamplerOptions { copy_every, ..sampler_options(options.rate, &options.sampling) })?;
    let config = AgentConfig {
        destination,
        further,
        spool: options.spool,
        spool_bytes: options.spool_bytes,
        listen: Some(options.listen),
        project: environment("PROJECT_ID")?,
        node: node::name(&options.node),
        kubernetes: node::watch(&options.node, options.labels.pod_labels)?,
        filter: options.filter.filter(),
        ..config(&options.sampling)
    };
    let agent = Agent::start(sampler, config)?;
    runtime.block_on(stop);
    agent.stop();
    Ok(())
}

fn tokio_block(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// What the kernel side is told.
pub fn sampler_options(rate: u32, sampling: &SamplingOptions) -> SamplerOptions {
    SamplerOptions {
        rate,
        ring_bytes: sampling.ring_bytes,
        time_limit_us: sampling.time_limit_us,
        only_wanted: false,
        memory: Memory::new(sampling.memory),
        copy_every: 0,
    }
}

/// What the agent is told everywhere alike.
pub fn config(sampling: &SamplingOptions) -> AgentConfig {
    AgentConfig {
        memory: Memory::new(sampling.memory),
        table_bytes: sampling.table_bytes,
        read_service_env: !sampling.no_service_env,
        ..AgentConfig::default()
    }
}

/// The endpoint: our option, the names of the deployment that this one replaces, or
/// OpenTelemetry's.
fn endpoint(given: Option<&str>) -> anyhow::Result<String> {
    let names = ["ELASTIC_ENDPOINT", "OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    let found = given
        .map(str::to_owned)
        .or_else(|| names.iter().find_map(|name| env::var(name).ok().filter(|value| !value.is_empty())));
    let Some(found) = found.filter(|e| !e.is_empty()) else {
        return Err(WrongUse(format!("--endpoint is missing: say where to send profiles (or set {})", names[0])).into());
    };
    also::with_scheme("--endpoint", &found)
}

/// The key by the environment of the deployment that this one replaces.
fn seed_key() -> Option<Authorization> {
    let file = env::var_os("ELASTIC_API_KEY_FILE").map(|path| Secret::File(PathBuf::from(path)));
    file.or_else(|| env::var("ELASTIC_API_KEY").ok().map(Secret::Value)).map(Authorization::ApiKey)
}

/// OpenTelemetry's headers. A value may always come from a file (`…_FILE`).
fn seed_headers() -> anyhow::Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    let headers = environment("OTEL_EXPORTER_OTLP_PROFILES_HEADERS")?.or(environment("OTEL_EXPORTER_OTLP_HEADERS")?);
    for pair in headers.as_deref().unwrap_or_default().split(',').filter(|p| !p.trim().is_empty()) {
        let (name, value) =
            // It may be a secret, so it is not shown.
            pair.split_once('=').context("OTEL_EXPORTER_OTLP_HEADERS: a part of it is not NAME=VALUE")?;
        all.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(all)
}

/// A value of the environment, or of the file that it names.
fn environment(name: &str) -> anyhow::Result<Option<String>> {
    let file = format!("{name}_FILE");
    if let Some(path) = env::var_os(&file) {
        let text = fs::read_to_string(&path).with_context(|| format!("{file}: cannot read {}", path.display()))?;
        return Ok(Some(text.trim().to_owned()));
    }
    Ok(env::var(name).ok().filter(|v| !v.is_empty()))
}
