//! Who may talk to the server: a request must name it by its own address, by
//! `localhost`, or by a configured name, and so must the page that sent it. That keeps
//! web pages of others out, also those whose name was made to point here.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, Response, Uri, header, uri::Authority},
    middleware::Next,
};

use super::error::ApiError;
use crate::{
    app::App,
    listen::{LocalAddr, PeerAddr},
};

/// The names of a server.
#[derive(Debug, Clone)]
pub struct Guard {
    listen: SocketAddr,
    /// The port that is meant where none is said.
    default_port: u16,
    configured: Vec<(String, Option<u16>)>,
}

impl Guard {
    /// The names of a listener, and those that were configured; an error is the one
    /// that is no name.
    pub fn new(listen: SocketAddr, configured: &[String], tls: bool) -> Result<Self, String> {
        let configured =
            (configured.iter()).map(|name| split(name).ok_or_else(|| name.clone())).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { listen, default_port: if tls { 443 } else { 80 }, configured })
    }

    /// Checks the names that a request bears.
    fn check(&self, request: &Request) -> Result<(), ApiError> {
        let local = request.extensions().get::<LocalAddr>().map_or(self.listen, |local| local.0);
        let headers = request.headers();
        let authority = request.uri().authority().map(Authority::as_str);
        let mut named = false;
        for host in headers.get_all(header::HOST).iter().map(HeaderValue::to_str).chain(authority.map(Ok)) {
            named = true;
            let host = host.unwrap_or("");
            if !split(host).is_some_and(|(name, port)| self.is_own(&name, port.unwrap_or(self.default_port), local)) {
                return Err(refused("Host", host));
            }
        }
        if !named {
            return Err(refused("Host", ""));
        }
        for origin in headers.get_all(header::ORIGIN) {
            let origin = origin.to_str().unwrap_or("");
            if !self.is_own_origin(origin, local) {
                return Err(refused("Origin", origin));
            }
        }
        Ok(())
    }

    fn is_own_origin(&self, origin: &str, local: SocketAddr) -> bool {
        let Ok(uri) = origin.parse::<Uri>() else { return false };
        let default = match uri.scheme_str() {
            Some("http") => 80,
            Some("https") => 443,
            _ => return false,
        };
        let named = uri.authority().and_then(|authority| split(authority.as_str()));
        named.is_some_and(|(name, port)| self.is_own(&name, port.unwrap_or(default), local))
    }

    fn is_own(&self, name: &str, port: u16, local: SocketAddr) -> bool {
        if self.configured.iter().any(|(own, own_port)| own == name && own_port.is_none_or(|p| p == port)) {
            return true;
        }
        if port != self.listen.port() {
            return false;
        }
        if name == "localhost" {
            return true;
        }
        let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
        let Ok(ip) = bare.parse::<IpAddr>() else { return false };
        ip.is_loopback() || [local.ip(), self.listen.ip()].iter().any(|own| own.to_canonical() == ip.to_canonical())
    }
}

/// Lets only own names through, and nobody too often.
pub async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response<Body> {
    if let Err(error) = app.guard.check(&request) {
        app.metrics.refused_names.fetch_add(1, Ordering::Relaxed);
        return error.answer(request.headers());
    }
    let slow = |wait: Duration| ApiError::busy("this address asks too often").retry_after(wait);
    let address = request.extensions().get::<PeerAddr>().map(|peer| peer.0.ip().to_canonical());
    match address.map_or(Ok(()), |address| app.access.addresses.take(address)) {
        Ok(()) => next.run(request).await,
        Err(wait) => slow(wait).answer(request.headers()),
    }
}

/// `NAME` or `NAME:PORT`, the name in lower case.
fn split(text: &str) -> Option<(String, Option<u16>)> {
    let authority: Authority = text.parse().ok()?;
    if authority.as_str().contains('@') || authority.host().is_empty() {
        return None;
    }
    let port = match authority.port() {
        None if text.ends_with(':') => return None,
        None => None,
        Some(_) => Some(authority.port_u16()?),
    };
    Some((authority.host().to_ascii_lowercase(), port))
}

fn refused(header: &str, value: &str) -> ApiError {
    let value: String = value.chars().take(100).flat_map(char::escape_default).collect();
    ApiError::forbidden(format!(
        "{header} \"{value}\" is not this server's name: call it by its own address, or add the name to --allowed-hosts"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        let configured = ["Profiles.example:8443".to_owned(), "inside.example".to_owned()];
        Guard::new("0.0.0.0:4040".parse().expect("an address"), &configured, false).expect("names")
    }

    fn host(name: &str) -> bool {
        let local = "10.1.2.3:4040".parse().expect("an address");
        let request = Request::builder().header("host", name).extension(LocalAddr(local)).body(Body::empty());
        guard().check(&request.expect("a request")).is_ok()
    }

    #[test]
    fn own_names_pass() {
        for name in [
            "localhost:4040",
            "LOCALHOST:4040",
            "127.0.0.1:4040",
            "[::1]:4040",
            "10.1.2.3:4040",
            "profiles.example:8443",
            "inside.example",
            "inside.example:9",
        ] {
            assert!(host(name), "{name}");
        }
    }

    #[test]
    fn other_names_do_not() {
        for name in [
            "",
            "localhost",
            "localhost:80",
            "localhost:4040:4040",
            "localhost:",
            "evil.example:4040",
            "localhost.evil.example:4040",
            "10.1.2.4:4040",
            "profiles.example",
            "user@localhost:4040",
            "localhost:4040@evil.example",
        ] {
            assert!(!host(name), "{name}");
        }
    }

    #[test]
    fn origins_are_names_too() {
        let local = "127.0.0.1:4040".parse().expect("an address");
        let own = |origin: &str| guard().is_own_origin(origin, local);
        assert!(own("http://localhost:4040"));
        assert!(own("https://profiles.example:8443"));
        assert!(own("https://inside.example"));
        for origin in ["null", "", "http://evil.example", "http://localhost", "http://localhost:4041", "file://"] {
            assert!(!own(origin), "{origin}");
        }
    }
}
