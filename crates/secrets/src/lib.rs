//! Where to send profiles and what to show there, from where an organisation keeps such things:
//! AWS Secrets Manager. A secret is fetched at the start, again every few minutes, and at once when
//! the destination refuses it, so that a rotated key is used without a restart.
//!
//! ```no_run
//! use everflame_secrets::{Environment, SecretsManager, Watch, WatchOptions};
//! let url = "aws-sm://istio/otel-collector/elastic".parse()?;
//! let manager = SecretsManager::new(url, Environment::of_process());
//! let watch = Watch::start(move || manager.fetch(), WatchOptions::default())?;
//! println!("send to {:?}", watch.current().endpoint);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod aws;
mod environment;
mod error;
mod hidden;
mod secret;
mod url;
mod watch;

pub use aws::SecretsManager;
pub use environment::Environment;
pub use error::SecretError;
pub use hidden::Hidden;
pub use secret::{Authorization, Secret};
pub use url::{SecretUrl, UrlError};
pub use watch::{Counts, Watch, WatchOptions};
