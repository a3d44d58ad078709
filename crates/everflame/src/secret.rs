//! `--secret`: where to send profiles, and what to show there, from AWS Secrets Manager.

use std::{sync::Arc, time::Duration};

use clap::Args;
use everflame_agent::export::AuthorizationSource;
use everflame_secrets::{Environment, SecretUrl, SecretsManager, Watch, WatchOptions};

/// Options of what takes a secret.
#[derive(Debug, Args, Clone)]
pub struct SecretOptions {
    /// Secret in AWS Secrets Manager with where to send (endpoint) and the key (apiKey, or token):
    /// aws-sm://NAME or aws-sm://ARN, perhaps with ?region=REGION&endpoint=URL
    #[arg(long = "secret", value_name = "URL", env = "EVERFLAME_SECRET")]
    pub url: Option<SecretUrl>,
    /// Seconds after which the secret is fetched again; at once when the destination refuses the key
    #[arg(long = "secret-refresh", value_name = "SECONDS", env = "EVERFLAME_SECRET_REFRESH", default_value_t = 300,
        value_parser = clap::value_parser!(u64).range(10..=86_400))]
    pub refresh: u64,
}

/// A secret that is watched.
#[derive(Debug)]
pub struct Watched {
    /// Its name.
    pub name: String,
    /// Where to send, where it says so.
    pub endpoint: Option<String>,
    watch: Watch,
}

impl SecretOptions {
    /// Fetches the secret, if one is named, and watches it from then on.
    pub fn watch(&self) -> anyhow::Result<Option<Arc<Watched>>> {
        self.url.as_ref().map(|url| self.watch_url(url)).transpose()
    }

    /// Fetches a secret, and watches it from then on.
    pub fn watch_url(&self, url: &SecretUrl) -> anyhow::Result<Arc<Watched>> {
        let name = url.name.clone();
        let manager = SecretsManager::new(url.clone(), Environment::of_process());
        let options = WatchOptions { every: Duration::from_secs(self.refresh), ..WatchOptions::default() };
        let watch = Watch::start(move || manager.fetch(), options)?;
        let endpoint = watch.current().endpoint.clone();
        Ok(Arc::new(Watched { name, endpoint, watch }))
    }
}

impl AuthorizationSource for Watched {
    fn header(&self) -> String {
        self.watch.current().authorization.header().reveal().to_owned()
    }

    fn refused(&self) {
        self.watch.refused();
    }
}
