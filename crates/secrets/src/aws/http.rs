//! Requests with an end: time-outs, bounded answers, no redirects, and TLS by the system's roots.

use std::{error::Error, io, sync::Arc, time::Duration};

use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use ureq::{
    http,
    tls::{Certificate, RootCerts, TlsConfig},
};
use zeroize::Zeroizing;

use crate::Environment;

/// Largest answer that is read: a secret is 64 KiB at most, and JSON may write a byte as six.
const MAX_ANSWER_BYTES: u64 = 512 << 10;
/// Largest file of certificates, token or profile that is read.
pub(super) const MAX_FILE_BYTES: u64 = 1 << 20;

/// An answer, whatever its status.
pub(super) struct Answer {
    pub status: u16,
    pub body: Zeroizing<String>,
}

/// How far away the other end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// A service of the region, perhaps behind the proxy that the environment names.
    Region,
    /// On this machine: never by a proxy, and it answers at once or not at all.
    Machine,
}

/// Sends a request. Errors tell what happened and hold nothing of the request.
pub(super) fn send(
    environment: &Environment,
    reach: Reach,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, String> {
    let (connect, whole) = match reach {
        Reach::Region => (Duration::from_secs(5), Duration::from_secs(15)),
        Reach::Machine => (Duration::from_secs(1), Duration::from_secs(5)),
    };
    let mut config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_connect(Some(connect))
        .timeout_global(Some(whole))
        .user_agent(concat!("everflame/", env!("CARGO_PKG_VERSION")));
    if reach == Reach::Machine {
        config = config.proxy(None);
    }
    if url.starts_with("https://") {
        config = config.tls_config(tls(environment)?);
    }
    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    // What is wrong with a header may be a part of a secret.
    let request = request.body(body).map_err(|_| "a header or the address is malformed".to_owned())?;
    let agent: ureq::Agent = config.build().into();
    let mut answer = agent.run(request).map_err(|e| chain(&e))?;
    let body = answer.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_string().map_err(|e| chain(&e))?;
    Ok(Answer { status: answer.status().as_u16(), body: Zeroizing::new(body) })
}

/// The roots are read with each request: there is one every few minutes.
fn tls(environment: &Environment) -> Result<TlsConfig, String> {
    let roots: Vec<CertificateDer<'static>> = match environment.get("AWS_CA_BUNDLE") {
        Some(path) => {
            let pem = read_file(&path).map_err(|e| format!("cannot read AWS_CA_BUNDLE={path}: {e}"))?;
            CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect()
        }
        None => rustls_native_certs::load_native_certs().certs,
    };
    if roots.is_empty() {
        return Err("there are no certificates of authorities: install ca-certificates, or set AWS_CA_BUNDLE".into());
    }
    let roots = roots.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .build())
}

/// A small text file.
pub(super) fn read_file(path: &str) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let mut file = io::Read::take(std::fs::File::open(path)?, MAX_FILE_BYTES);
    io::Read::read_to_string(&mut file, &mut text)?;
    Ok(text)
}

/// An error with its causes, each said once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
