//! How the connection to the server is made: TLS where the endpoint says https.

use std::io;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use crate::tls::{Roots, remedy};

/// A channel that connects with its first request, and again whenever it has to.
pub(super) fn channel(endpoint: &Endpoint, roots: Roots) -> Channel {
    if endpoint.uri().scheme_str() != Some("https") {
        return endpoint.connect_lazy();
    }
    endpoint.connect_with_connector_lazy(tower::service_fn(move |uri: Uri| {
        let roots = roots.clone();
        async move { connect(&uri, &roots).await.map(TokioIo::new) }
    }))
}

async fn connect(uri: &Uri, roots: &Roots) -> io::Result<TlsStream<TcpStream>> {
    let host = uri.host().ok_or_else(|| io::Error::other("the endpoint has no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let config = roots.http2().map_err(io::Error::other)?;
    let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
    let stream = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| match remedy(&error) {
        Some(remedy) => io::Error::new(error.kind(), format!("{error}: {remedy}")),
        None => error,
    })
}
