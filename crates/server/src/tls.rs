//! TLS on the port. Certificate and key come from files that are looked at with each new
//! connection, so that new ones are used at once and no connection is dropped for it; a
//! pair that cannot be used leaves the old one in place, and says so.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::access::Stamp;

/// Time in which a handshake must be done.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// The files of a server's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those that lead to its root, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// Why certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read the {what} {path}: {source} (the server reads it as the user that it runs as: `nobody`, where it is started as root)", path = .path.display())]
    Read {
        /// Which it is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not what it is to be.
    #[error("{path} is no {what} in PEM: {source}", path = .path.display())]
    Pem {
        /// What it is to be.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::pki_types::pem::Error,
    },
    /// They do not fit each other, or are of a kind that is not understood.
    #[error("certificate {certificate} and key {key} cannot be used together: {source}", certificate = .files.certificate.display(), key = .files.key.display())]
    Pair {
        /// The files.
        files: TlsFiles,
        /// What is wrong.
        source: rustls::Error,
    },
}

/// Takes TLS connections.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    certificate: Arc<Certificate>,
}

impl Tls {
    /// Reads both files.
    pub fn new(files: TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let certificate = Arc::new(Certificate::read(files.clone(), provider.clone())?);
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Pair { files, source })?;
        let mut config = config.with_no_client_auth().with_cert_resolver(certificate.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), certificate })
    }

    /// Shakes hands.
    pub async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let late = |_| std::io::Error::new(std::io::ErrorKind::TimedOut, "the handshake took too long");
        tokio::time::timeout(HANDSHAKE_TIME, self.acceptor.accept(stream)).await.map_err(late)?
    }

    /// The certificate that is shown.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.certificate.files).finish_non_exhaustive()
    }
}

/// The pair that is used, and the files that it came from.
#[derive(Debug)]
pub struct Certificate {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    used: Mutex<([Option<Stamp>; 2], Arc<CertifiedKey>)>,
    /// Times that a new pair was taken into use.
    pub reloads: AtomicU64,
    /// Times that a new pair could not be used.
    pub failures: AtomicU64,
}

impl Certificate {
    fn read(files: TlsFiles, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        // Looked at before they are read: what changes in between is read once more.
        let stamps = files.stamps();
        let used = Mutex::new((stamps, Arc::new(files.load(&provider)?)));
        Ok(Self { files, provider, used, reloads: AtomicU64::new(0), failures: AtomicU64::new(0) })
    }

    fn current(&self) -> Arc<CertifiedKey> {
        let stamps = self.files.stamps();
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if stamps != used.0 {
            used.0 = stamps;
            match self.files.load(&self.provider) {
                Ok(pair) => {
                    used.1 = Arc::new(pair);
                    self.reloads.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(certificate = %self.files.certificate.display(), "a new certificate is in use");
                }
                Err(error) => {
                    self.failures.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%error, "the certificate as it was before stays in use");
                }
            }
        }
        used.1.clone()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl TlsFiles {
    fn stamps(&self) -> [Option<Stamp>; 2] {
        [Stamp::of(&self.certificate), Stamp::of(&self.key)]
    }

    fn load(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let read =
            |what, path: &PathBuf| fs::read(path).map_err(|source| TlsError::Read { what, path: path.clone(), source });
        let (what, path) = ("certificate", &self.certificate);
        let broken = |source| TlsError::Pem { what, path: path.clone(), source };
        let pem = read(what, path)?;
        let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>().map_err(broken)?;
        if chain.is_empty() {
            return Err(broken(rustls::pki_types::pem::Error::NoItemsFound));
        }
        let (what, path) = ("private key", &self.key);
        let pem = read(what, path)?;
        let key =
            PrivateKeyDer::from_pem_slice(&pem).map_err(|source| TlsError::Pem { what, path: path.clone(), source })?;
        CertifiedKey::from_der(chain, key, provider).map_err(|source| TlsError::Pair { files: self.clone(), source })
    }
}
