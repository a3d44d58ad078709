//! The accept loop: HTTP/1.1 and HTTP/2 on one port, with bounds on connections,
//! headers and the time that a stop may take.

use std::{
    future::Future,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{Router, body::Body};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};
use tower::Service;

use crate::{app::App, seats::Seats, web};

/// Connections at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 10_000;
/// Of one address, unless set: others get in whatever one does.
pub const CONNECTIONS_PER_ADDRESS: usize = MAX_CONNECTIONS / 2;
/// Bytes of one request's headers: a report takes up to 16 KiB of them.
const MAX_HEADER_BYTES: u32 = 64 << 10;
/// Time in which the headers of a request must have come.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// Bytes that a peer may send ahead on a stream and on a connection.
const WINDOW: u32 = 1 << 20;
/// How often a silent HTTP/2 peer is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long requests under way may take once the server is told to stop.
const STOP_TIME: Duration = Duration::from_secs(10);
/// Pause after an accept that failed (no file descriptors left, most likely).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The address of this end of the connection that a request came by.
#[derive(Debug, Clone, Copy)]
pub struct LocalAddr(pub SocketAddr);

/// The address of the other end.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddr(pub SocketAddr);

/// Serves until `shutdown` is done.
pub async fn serve(listener: TcpListener, app: Arc<App>, shutdown: impl Future<Output = ()>) {
    let router = web::router(app.clone());
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let seats = Seats::new(app.config.connections_per_address);
    let (stop, stopping) = watch::channel(false);
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accepted => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(seat) = seats.take(peer.ip()) else {
            app.metrics.refused_connections.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%peer, "a connection was refused: its address has too many");
            continue;
        };
        let (app, router, stopping) = (app.clone(), router.clone(), stopping.clone());
        tokio::spawn(async move {
            let _held = (place, seat);
            welcome(stream, peer, &app, router, stopping).await;
        });
    }
    drop(listener);
    drop(stopping);
    // Receivers are gone once every connection has ended.
    stop.send_replace(true);
    if tokio::time::timeout(STOP_TIME, stop.closed()).await.is_err() {
        tracing::warn!("some requests were still under way after {} s and were cut off", STOP_TIME.as_secs());
    }
}

/// Shakes hands where there is TLS.
async fn welcome(stream: TcpStream, peer: SocketAddr, app: &App, router: Router, stopping: watch::Receiver<bool>) {
    let Ok(local) = stream.local_addr() else { return };
    let ends = (LocalAddr(local), PeerAddr(peer));
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection answers in larger steps than it could");
    }
    let Some(tls) = &app.tls else { return connection(stream, ends, router, stopping).await };
    match tls.accept(stream).await {
        Ok(stream) => connection(stream, ends, router, stopping).await,
        Err(error) => {
            app.metrics.failed_handshakes.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%error, "a TLS handshake failed");
        }
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    (local, peer): (LocalAddr, PeerAddr),
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(local);
        request.extensions_mut().insert(peer);
        router.clone().call(request.map(Body::new))
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW * 4)
        .keep_alive_interval(KEEP_ALIVE);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let stopped = async {
        // An error says that the server is gone altogether.
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
