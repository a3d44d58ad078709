//! The other end's certificate: whom we believe (the system's roots, or one file), and what
//! to say when it is not one of them. Roots are read with each connection, so that new ones
//! are used at once.

use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use ureq::tls::{Certificate, RootCerts};

/// Whose word about a server's identity counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roots {
    /// Certificates of authorities in PEM; the system's where there is no file.
    pub ca_file: Option<PathBuf>,
}

/// The roots cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file cannot be read.
    #[error("cannot read the certificates in {0}: {1}: correct --ca-file")]
    File(PathBuf, #[source] io::Error),
    /// There is no certificate in it.
    #[error("{0} holds no certificate in PEM: correct --ca-file")]
    Empty(PathBuf),
    /// The system has none.
    #[error("this system has no certificates of authorities: install ca-certificates, or give --ca-file")]
    NoSystem,
}

impl Roots {
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, RootsError> {
        match &self.ca_file {
            Some(path) => in_file(path),
            None => Some(rustls_native_certs::load_native_certs().certs)
                .filter(|certificates| !certificates.is_empty())
                .ok_or(RootsError::NoSystem),
        }
    }

    /// For connections that speak HTTP/2.
    pub fn http2(&self) -> Result<Arc<ClientConfig>, RootsError> {
        let mut store = RootCertStore::empty();
        let (_, unusable) = store.add_parsable_certificates(self.certificates()?);
        if unusable > 0 {
            tracing::debug!(unusable, "some certificates of authorities are of kinds that are not understood");
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has what the protocol versions need");
        let mut config = config.with_root_certificates(store).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    /// For requests over HTTP/1.1.
    pub fn http1(&self) -> Result<ureq::tls::TlsConfig, RootsError> {
        let roots: Vec<_> = self.certificates()?.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        Ok(ureq::tls::TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(roots)))
            .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
            .build())
    }
}

fn in_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, RootsError> {
    let pem = fs::read(path).map_err(|e| RootsError::File(path.to_owned(), e))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
    if certificates.is_empty() { Err(RootsError::Empty(path.to_owned())) } else { Ok(certificates) }
}

/// What to do about an error whose cause is the other end's certificate.
pub fn remedy(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(error) = next {
        // Neither of the two names what it wraps as its source.
        let inner: Option<&(dyn Error + 'static)> = match error.downcast_ref::<ureq::Error>() {
            Some(ureq::Error::Io(inner)) => Some(inner),
            Some(ureq::Error::Rustls(inner)) => Some(inner),
            _ => error.downcast_ref::<io::Error>().and_then(io::Error::get_ref).map(|inner| inner as _),
        };
        if let Some(found) = inner.and_then(|inner| inner.downcast_ref()).or_else(|| error.downcast_ref()) {
            return of(found);
        }
        next = inner.or_else(|| error.source());
    }
    None
}

fn of(error: &rustls::Error) -> Option<&'static str> {
    Some(match error {
        rustls::Error::InvalidCertificate(cause) => match cause {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "nobody whom this machine trusts has signed the server's certificate: give the authority's with --ca-file"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the server's certificate is for other names: call the server by one of them, or give it a certificate \
                 for this one"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the server's certificate has expired: renew it (and check this machine's clock)"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the server's certificate is not valid yet: check this machine's clock"
            }
            _ => "the server's certificate is not in order: give it a valid one",
        },
        rustls::Error::InvalidMessage(_) => "the other end does not speak TLS there: use http://, or its port for TLS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_is_found_under_what_is_wrapped_around_it() {
        let cause = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let wrapped = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, cause.clone()));
        assert!(remedy(&wrapped).unwrap().contains("--ca-file"));
        assert!(remedy(&ureq::Error::Io(wrapped)).unwrap().contains("--ca-file"));
        assert!(remedy(&cause).unwrap().contains("--ca-file"));
        assert_eq!(remedy(&io::Error::other("refused")), None);
    }

    #[test]
    fn files_without_certificates_are_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let roots = |path: &Path| Roots { ca_file: Some(path.to_owned()) };
        assert!(roots(file.path()).http2().unwrap_err().to_string().contains("holds no certificate"));
        let missing = roots(Path::new("/nowhere/ca.pem")).http1().unwrap_err().to_string();
        assert!(missing.contains("/nowhere/ca.pem") && missing.contains("--ca-file"), "{missing}");
    }
}
