//! Accepts the connections of one listener and serves each in a task of its own: HTTP/2 for gRPC,
//! HTTP/1.1 for operators. Bounds the time until a connection has said what it wants, ends connections
//! that the [`Pool`] closes, and at the shutdown waits for calls and not for connections.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::peer::Peer;
use super::pool::{Place, Pool};
use super::tls::WatchedTls;
use crate::tasks::Tasks;
use crate::telemetry::{BackgroundTask, LogThrottle};

/// Serves a listener's connections until the shutdown begins. `serve` makes the future that serves one.
pub(super) async fn accept<F>(
    listener: TcpListener,
    tls: Option<Arc<WatchedTls>>,
    pool: Arc<Pool>,
    on_room: impl Fn(bool),
    tasks: Tasks,
    serve: impl FnOnce(Stream, Arc<Place>) -> F + Clone + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let (stopping, throttle) = (tasks.stopping(), LogThrottle::default());
    let mut sweeps = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = sweeps.tick() => {
                pool.sweep(tls.as_ref().map(|tls| tls.current()).as_ref());
                on_room(pool.has_room());
                continue;
            }
            () = stopping.cancelled() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let tls = tls.as_ref().map(|tls| tls.current());
        let Some(place) = pool.admit(address, tls.clone()) else {
            on_room(false);
            throttle.warn(|suppressed| {
                tracing::warn!(
                    network.peer.address = %address.ip(),
                    limit = pool.limits.connections,
                    suppressed,
                    "refused a connection: known callers use all"
                );
            });
            continue;
        };
        let (place, serve) = (Arc::new(place), serve.clone());
        let (closed, deadline) = (place.peer.closed().clone(), pool.limits.handshake);
        let serving = async move {
            let handshake = handshake(stream, tls, &place.peer);
            match tokio::time::timeout(deadline, handshake).await {
                Ok(Ok(stream)) => serve(stream, place).await,
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                Err(_) => place.count_late_handshake(),
            }
        };
        tasks.spawn_draining(BackgroundTask::Connection, async move {
            closed.run_until_cancelled_owned(serving).await;
        });
    }
}

async fn handshake(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    peer: &Arc<Peer>,
) -> io::Result<Stream> {
    let transport = match tls {
        None => Transport::Plain(stream),
        Some(tls) => {
            let stream = TlsAcceptor::from(tls).accept(stream).await?;
            if let Some(leaf) = stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
                peer.set_certificate(leaf);
            }
            Transport::Tls(Box::new(stream))
        }
    };
    Ok(Stream { transport, read: 0, peer: Arc::clone(peer) })
}

/// Serves one connection of gRPC.
pub(super) async fn serve_http2<S, B>(
    stream: Stream,
    place: Arc<Place>,
    service: S,
    handshake: Duration,
    tasks: Tasks,
) where
    S: Service<http::Request<Incoming>, Response = http::Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let peer = Arc::clone(&place.peer);
    let extension = Arc::clone(&place);
    let service = tower::ServiceBuilder::new()
        .map_request(move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(Arc::clone(&extension));
            request
        })
        .service(service);
    let connection = http2::Builder::new(CallExecutor(tasks.clone()))
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADERS)
        .max_pending_accept_reset_streams(MAX_UNACCEPTED_RESETS)
        .max_local_error_reset_streams(MAX_PROTOCOL_ERRORS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = pin!(connection);
    let stopping = tasks.stopping();
    let mut end_of_use = pin!(end_of_use(&peer, &stopping));
    let has_ended = tokio::select! {
        _ = connection.as_mut() => return,
        () = end_of_use.as_mut() => true,
        () = tokio::time::sleep(handshake) => false,
    };
    if !has_ended {
        if !peer.has_sent_preface() {
            return place.count_late_handshake();
        }
        tokio::select! {
            _ = connection.as_mut() => return,
            () = end_of_use => {}
        }
    }
    // The client opens no further call, but those on their way are served.
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection.as_mut() => {}
        // At the shutdown nobody waits for clients that keep their connection.
        () = async {
            stopping.cancelled().await;
            without_calls(&peer).await;
        } => {}
        () = tokio::time::sleep(RETIREMENT) => {}
    }
}

/// Serves one connection of HTTP/1.1, for one or several requests.
pub(super) async fn serve_http1(
    stream: Stream,
    routes: axum::Router,
    deadline: Duration,
    stopping: CancellationToken,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(deadline)
        .max_headers(MAX_HTTP1_HEADERS)
        .max_buf_size(MAX_HTTP1_BUFFER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stopping.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = tokio::time::timeout(DRAIN_QUIET, connection).await;
}

/// Until the connection should take no further call.
async fn end_of_use(peer: &Peer, stopping: &CancellationToken) {
    tokio::select! {
        () = peer.retired().cancelled() => {}
        () = stopping.cancelled() => {}
        () = tokio::time::sleep(MAX_CONNECTION_AGE) => {}
    }
}

/// Until no known caller's call has been open for a moment.
async fn without_calls(peer: &Peer) {
    let mut quiet = Duration::ZERO;
    while quiet < DRAIN_QUIET {
        tokio::time::sleep(DRAIN_POLL).await;
        quiet = if peer.has_calls() { Duration::ZERO } else { quiet + DRAIN_POLL };
    }
}

/// Runs calls so that they end with the service, and not only with the process.
#[derive(Clone)]
struct CallExecutor(Tasks);

impl<F> Executor<F> for CallExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        self.0.spawn_draining(BackgroundTask::Connection, call);
    }
}

/// The bytes of a connection.
pub(super) struct Stream {
    transport: Transport,
    /// Bytes that were read, up to [`PREFACE`].
    read: usize,
    peer: Arc<Peer>,
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if self.read < PREFACE {
            self.read += buf.filled().len() - before;
            if self.read >= PREFACE {
                self.peer.set_preface_sent();
            }
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

/// After a failure to accept a connection, such as "too many open files".
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of HTTP/2's preface and the header of the first frame (RFC 9113 3.4).
const PREFACE: usize = 24 + 9;
const KEEPALIVE: Duration = Duration::from_secs(30);
/// A client that doesn't answer a ping within this time is disconnected.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Clients have to reconnect from time to time, so that new replicas get their share.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(30 * 60);
/// How long a connection that takes no further calls may stay: longer than any call but a stream.
const RETIREMENT: Duration = Duration::from_secs(60);
/// How long a connection without calls is kept at the shutdown, for calls that are on their way.
const DRAIN_QUIET: Duration = Duration::from_millis(300);
const DRAIN_POLL: Duration = Duration::from_millis(50);
/// Calls at once on one connection.
const MAX_STREAMS: u32 = 512;
/// Bytes that a client may send into one call before they are read.
const STREAM_WINDOW: u32 = 64 * 1024;
/// And into all calls of a connection.
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Bytes of one call's headers that are read, so that `admission` can refuse that call alone: a longer
/// list may end the connection.
const MAX_HEADERS: u32 = 64 * 1024;
/// Calls that a client may cancel before they are looked at: as many as it can have open.
const MAX_UNACCEPTED_RESETS: usize = MAX_STREAMS as usize;
/// Violations of the protocol within single calls before a connection is closed (CVE-2025-8671).
const MAX_PROTOCOL_ERRORS: usize = 1024;
const MAX_HTTP1_HEADERS: usize = 64;
/// Bytes.
const MAX_HTTP1_BUFFER: usize = 16 * 1024;
