//! The agent's own small listener: `/healthz`, `/readyz` and `/metrics`.

use std::{
    fmt::Write as _,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};

/// Connections that are served at the same time; further ones wait.
pub const MAX_CONNECTIONS: usize = 16;
/// Longest time for the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// Longest time that a connection may live.
const CONNECTION_WITHIN: Duration = Duration::from_secs(30);

/// What the listener tells about.
pub trait Status: Send + Sync {
    /// Whether the agent samples and delivers; if not, what is missing.
    fn ready(&self) -> Result<(), String>;
    /// Every figure.
    fn metrics(&self, metrics: &mut Metrics);
}

/// Figures in Prometheus' text form.
#[derive(Debug, Default)]
pub struct Metrics {
    text: String,
    last: String,
}

impl Metrics {
    /// A figure that only grows. `name` without prefix and `_total`.
    pub fn counter(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.line(&format!("{name}_total"), "counter", help, labels, value);
    }

    /// A figure that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.line(name, "gauge", help, labels, value);
    }

    /// The whole text.
    pub fn into_text(self) -> String {
        self.text
    }

    fn line(&mut self, name: &str, kind: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        let name = format!("everflame_agent_{name}");
        if self.last != name {
            self.last.clone_from(&name);
            self.text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        }
        self.text.push_str(&name);
        for (at, (label, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let before = if at == 0 { '{' } else { ',' };
            write!(self.text, "{before}{label}=\"{value}\"").expect("a string takes any text");
        }
        let after = if labels.is_empty() { "" } else { "}" };
        writeln!(self.text, "{after} {value}").expect("a string takes any text");
    }
}

/// A listener that serves until it is dropped.
#[derive(Debug)]
pub struct StatusServer {
    address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl StatusServer {
    /// Listens on `address` (port 0 for any), so that it is known early whether that works.
    pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Answers what comes in on a listener of [`StatusServer::bind`].
    pub fn start(listener: std::net::TcpListener, status: Arc<dyn Status>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let address = listener.local_addr()?;
        let entered = runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        drop(entered);
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name("everflame-status".to_string()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, status) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for StatusServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn serve(listener: TcpListener, status: Arc<dyn Status>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                tracing::debug!("status listener: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let status = status.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let Ok(own) = stream.local_addr() else { return };
            let service = hyper::service::service_fn(|request: Request<Incoming>| {
                let response = answer(request.method(), request.uri().path(), request.headers(), own, status.as_ref());
                async { Ok::<_, std::convert::Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WITHIN)
                .serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(CONNECTION_WITHIN, connection).await;
        });
    }
}

fn answer(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    own: SocketAddr,
    status: &dyn Status,
) -> Response<Full<Bytes>> {
    if !is_ours(headers, own) {
        let text = format!("the request is for another host: use http://{own}\n");
        return response(StatusCode::FORBIDDEN, "text/plain", text);
    }
    if method != Method::GET && method != Method::HEAD {
        return response(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "use GET\n".to_string());
    }
    match path {
        "/healthz" => response(StatusCode::OK, "text/plain", "alive\n".to_string()),
        "/readyz" => match status.ready() {
            Ok(()) => response(StatusCode::OK, "text/plain", "ready\n".to_string()),
            Err(missing) => response(StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("{missing}\n")),
        },
        "/metrics" => {
            let mut metrics = Metrics::default();
            status.metrics(&mut metrics);
            response(StatusCode::OK, "text/plain; version=0.0.4", metrics.into_text())
        }
        _ => response(StatusCode::NOT_FOUND, "text/plain", "there are /healthz, /readyz and /metrics\n".to_string()),
    }
}

/// Whether a request names this listener: no web page can read it under another name.
fn is_ours(headers: &HeaderMap, own: SocketAddr) -> bool {
    let named = |authority: &str| {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
            _ => (authority, Some(80)),
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let ours = match bare.parse::<IpAddr>() {
            Ok(ip) => ip.to_canonical() == own.ip().to_canonical(),
            Err(_) => bare.eq_ignore_ascii_case("localhost") && own.ip().to_canonical().is_loopback(),
        };
        ours && port == Some(own.port())
    };
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().is_some_and(|host| host.to_str().is_ok_and(named)) && hosts.next().is_none();
    let origin = headers
        .get(header::ORIGIN)
        .is_none_or(|origin| origin.to_str().is_ok_and(|origin| origin.strip_prefix("http://").is_some_and(named)));
    host && origin
}

fn response(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}
