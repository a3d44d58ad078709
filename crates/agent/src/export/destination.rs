//! Where an exporter sends, and what it shows there.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use super::{Credentials, CredentialsError};
use crate::tls::{Roots, RootsError};

/// Longest name.
pub const MAX_NAME: usize = 100;

/// One destination.
#[derive(Debug, Clone, Default)]
pub struct Destination {
    /// What it is called in metrics and the log; of a further one also what its spool is found by.
    pub name: String,
    /// `http://HOST:PORT` or `https://HOST:PORT` of an OTLP server.
    pub endpoint: String,
    /// What the server wants to see.
    pub credentials: Credentials,
    /// Whose word about the server's identity counts, where the endpoint is https.
    pub roots: Roots,
}

/// What it needs cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// What the server wants to see.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// Whose word about the server counts.
    #[error(transparent)]
    Roots(#[from] RootsError),
}

impl Destination {
    /// Host and port, which is its name unless another is given.
    pub fn host_and_port(endpoint: &str) -> &str {
        let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
        rest.split('/').next().unwrap_or(rest)
    }

    /// Reads the files that it is told of, to find what is wrong with them early.
    pub fn check(&self) -> Result<(), DestinationError> {
        self.credentials.read()?;
        if self.endpoint.starts_with("https://") {
            self.roots.http2()?;
        }
        Ok(())
    }

    /// The spool of a further destination, within the directory of all.
    pub(crate) fn spool(&self, spool: &Path) -> PathBuf {
        let mut name = String::new();
        for byte in self.name.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => name.push(byte.into()),
                b'.' if !name.is_empty() => name.push('.'),
                _ => write!(name, "%{byte:02X}").expect("a string takes any text"),
            }
        }
        spool.join(super::exporters::ALSO).join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_files_of_their_own() {
        let spool = |name: &str| Destination { name: name.into(), ..Destination::default() }.spool(Path::new("/s"));
        assert_eq!(spool("collector.example:4317"), Path::new("/s/also/collector.example%3A4317"));
        assert_eq!(spool("istio/otel-collector"), Path::new("/s/also/istio%2Fotel-collector"));
        assert_eq!(spool(".."), Path::new("/s/also/%2E."));
        assert_eq!(Destination::host_and_port("https://a.example:443/"), "a.example:443");
        assert_eq!(Destination::host_and_port("[::1]:4040"), "[::1]:4040");
    }
}
