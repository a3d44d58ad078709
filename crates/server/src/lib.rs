//! Ingest, queries, symbol service and the web application over one port. Knows no BPF.
//!
//! [`Server::bind`] takes the port, [`Server::serve`] answers until it is told to stop.
#![deny(unsafe_code)]

pub mod access;
mod app;
pub mod ingest;
mod lane;
mod listen;
pub mod query;
mod seats;
pub mod symbols;
pub mod tls;
pub mod web;

use std::{
    future::Future,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
};

use everflame_store::Store;

use crate::{
    access::{Access, AccessConfig, TokenError},
    app::{App, Door},
    symbols::Symbols,
    tls::{Tls, TlsError, TlsFiles},
    web::guard::Guard,
};

/// Bytes of a request after decompression, unless set.
pub const DEFAULT_MAX_REQUEST_BYTES: usize = 64 << 20;

/// How a server is started.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address and port to listen on; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Directory of the server's data; symbol indexes are kept in `symbols` below it.
    pub data_dir: PathBuf,
    /// Host names, with or without a port, by which the server may be called besides
    /// its own address and `localhost`.
    pub allowed_hosts: Vec<String>,
    /// Bytes of one ingest request, before and after decompression.
    pub max_request_bytes: usize,
    /// Connections that one address may have at the same time.
    pub connections_per_address: usize,
    /// Certificate and key, where the port speaks TLS.
    pub tls: Option<TlsFiles>,
    /// Who may do what.
    pub access: AccessConfig,
    /// Version that the server says it has.
    pub version: String,
}

impl Config {
    /// The defaults for an address and a directory.
    pub fn new(listen: SocketAddr, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen,
            data_dir: data_dir.into(),
            allowed_hosts: Vec::new(),
            max_request_bytes: DEFAULT_MAX_REQUEST_BYTES,
            connections_per_address: listen::CONNECTIONS_PER_ADDRESS,
            tls: None,
            access: AccessConfig::default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// Why a server cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody listens there already.
    #[error("{0} is in use: stop the other program or choose another address with --listen")]
    AddressInUse(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}: choose another address with --listen")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// What the system answered.
        source: std::io::Error,
    },
    /// The directory of symbol indexes cannot be used.
    #[error("cannot use {path}: {source}: choose another directory with --data", path = .path.display())]
    Symbols {
        /// The directory.
        path: PathBuf,
        /// What the system answered.
        source: std::io::Error,
    },
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The tokens.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// Others than this machine would reach it, and nobody would have to show a token.
    #[error(
        "{0} is reached by others than this machine, and there are no tokens: make one with `everflame token create \
         --role admin --data DIR`, give --admin-token-file, or say --insecure-no-auth"
    )]
    Open(SocketAddr),
    /// A configured host name is not one.
    #[error("\"{0}\" is not a host name: use NAME or NAME:PORT in --allowed-hosts")]
    AllowedHost(String),
}

/// A server that has its port.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    app: Arc<App>,
}

impl Server {
    /// Takes the port and opens the symbol directory. Blocks for a moment.
    pub fn bind(config: Config, store: Arc<dyn Store>) -> Result<Self, Error> {
        let wanted = config.listen;
        let path = config.data_dir.join("symbols");
        let symbols =
            Symbols::open(&path, symbols::Limits::default()).map_err(|source| Error::Symbols { path, source })?;
        let access = Access::open(&config.data_dir, &config.access)?;
        if !wanted.ip().to_canonical().is_loopback() && !access.is_closed() {
            if !config.access.no_auth {
                return Err(Error::Open(wanted));
            }
            tracing::warn!("everybody who reaches {wanted} may read and write everything: --insecure-no-auth");
        }
        let tls = config.tls.clone().map(Tls::new).transpose()?;
        if !wanted.ip().to_canonical().is_loopback() && tls.is_none() {
            tracing::warn!(
                "profiles and tokens are not encrypted on the way to {wanted}: give --tls-cert-file and --tls-key-file, or see to it that something before the server encrypts them"
            );
        }
        let listen = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::AddrInUse => Error::AddressInUse(wanted),
            _ => Error::Listen { address: wanted, source },
        };
        let listener = TcpListener::bind(wanted).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let guard = Guard::new(address, &config.allowed_hosts, tls.is_some()).map_err(Error::AllowedHost)?;
        Ok(Self { listener, address, app: Arc::new(App::new(config, Door { guard, tls, access }, store, symbols)) })
    }

    /// The address that it really listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.app.tls.is_some() { "https" } else { "http" }
    }

    /// Answers requests until `shutdown` is done, lets those under way finish (for a
    /// bounded time), and returns.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let address = self.address;
        let listener =
            tokio::net::TcpListener::from_std(self.listener).map_err(|source| Error::Listen { address, source })?;
        listen::serve(listener, self.app, shutdown).await;
        Ok(())
    }
}
