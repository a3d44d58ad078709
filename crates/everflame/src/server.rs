//! `server`: takes profiles, keeps them, answers queries, shows them.

use std::{future::Future, io::Write, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use everflame_server::{Config, Server, access::AccessConfig, tls::TlsFiles};
use everflame_store::{Embedded, Store};
use tokio::signal::unix::{SignalKind, signal};

use crate::{WrongUse, options::ServerOptions, privileges};

/// Runs until it is told to stop or the duration is over.
pub fn run(options: ServerOptions) -> anyhow::Result<()> {
    if options.clickhouse.is_some() {
        return Err(
            WrongUse("--clickhouse is not in this version: leave it out to use the embedded store".into()).into()
        );
    }
    // Entering changes the directory.
    let [certificate, key, admin_token_file] =
        [&options.tls_cert_file, &options.tls_key_file, &options.admin_token_file].map(absolute);
    let (data, shown) = privileges::enter(&options.data)?;
    let store = Embedded::open(everflame_store::Options {
        retention_age: Duration::from_secs(options.retention.retention_hours * 3600),
        retention_bytes: options.retention.retention_bytes,
        ..everflame_store::Options::new(data.join("store"))
    })
    .with_context(|| format!("data directory {}", shown.display()))?;
    let store: Arc<dyn Store> = Arc::new(store);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = Config {
            allowed_hosts: options.allowed_hosts.clone(),
            max_request_bytes: options.max_request_bytes,
            tls: certificate.zip(key).map(|(certificate, key)| TlsFiles { certificate, key }),
            access: AccessConfig {
                admin_token_file,
                own_agent: privileges::own_agent(),
                no_auth: options.insecure_no_auth,
                per_address: options.requests_per_address,
                per_token: options.requests_per_token,
            },
            ..Config::new(options.listen, &data)
        };
        let server = Server::bind(config, Arc::clone(&store)).map_err(|error| match error {
            everflame_server::Error::Open(_) => WrongUse(error.to_string()).into(),
            other => anyhow::Error::from(other),
        })?;
        // Heard from before anyone can know that we are there.
        let stop = stop(options.duration)?;
        announce(&format!("{}://{}", server.scheme(), server.local_addr()));
        server.serve(stop).await?;
        anyhow::Ok(())
    })?;
    drop(runtime);
    store.flush().context("writing what is in memory")?;
    Ok(())
}

/// A file wherever this process goes.
fn absolute(file: &Option<PathBuf>) -> Option<PathBuf> {
    file.as_ref().map(|file| std::path::absolute(file).unwrap_or_else(|_| file.clone()))
}

/// The one line on standard output that says where to go.
pub fn announce(url: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever reads it may have gone; that is no reason to end.
    let _ = writeln!(out, "everflame is ready: {url}").and_then(|()| out.flush());
}

/// Ready when SIGTERM or Ctrl-C comes, or when the duration is over; in a part of `up`, when
/// `up` says so.
pub fn stop(duration: Option<f64>) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut parent = signal(SignalKind::user_defined1())?;
    let part = privileges::is_part();
    let over = async move {
        match duration {
            Some(seconds) => tokio::time::sleep(Duration::from_secs_f64(seconds)).await,
            None => std::future::pending().await,
        }
    };
    Ok(async move {
        tokio::select! {
            _ = terminate.recv(), if !part => {}
            _ = interrupt.recv(), if !part => {}
            _ = parent.recv(), if part => {}
            () = over => {}
        }
    })
}
