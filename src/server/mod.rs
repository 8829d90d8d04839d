//! The listeners: gRPC for the web tier and for support, HTTP for metrics and probes; how they
//! start and how they end. Called by `app`.

pub mod grpc;
mod health;
pub mod http;
pub mod reload;
pub mod tls;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::tasks::Tasks;
use crate::telemetry::BackgroundTask;
use grpc::admission::AdmissionLayer;
use grpc::auth::WatchedCallers;
use grpc::refusal::name_reason;
use grpc::routes::{Services, routes};
pub use health::Health;
use tls::{Incoming, WatchedTls, accept};

/// Where the gRPC server listens, and who may call it.
pub struct ServerConfig {
    /// For LoginService and IdentityService.
    pub login_listener: TcpListener,
    /// For ConnectionService.
    pub admin_listener: TcpListener,
    /// `None`: plaintext.
    pub tls: Option<Arc<WatchedTls>>,
    /// `None`: everybody may call.
    pub callers: Option<Arc<WatchedCallers>>,
    /// Whether grpc.reflection is offered.
    pub reflection: bool,
    /// Calls at once, on both listeners together.
    pub max_in_flight: usize,
    /// How long calls in flight may take after the shutdown has begun.
    pub drain_timeout: Duration,
}

/// The running gRPC server.
pub struct Server {
    health: Health,
    listeners: Tasks,
    drain_timeout: Duration,
}

impl Server {
    /// Serves on both listeners. A listener that ends is a failure of `tasks`.
    #[must_use]
    pub fn start(config: ServerConfig, services: Services, health: Health, tasks: &Tasks) -> Self {
        let ServerConfig { login_listener, admin_listener, tls, callers, .. } = config;
        let [login_routes, admin_routes] =
            routes(services, callers.as_ref(), &health.service(), config.reflection, tasks);
        let admission = AdmissionLayer::new(config.max_in_flight);
        let listeners = tasks.group();
        for (task, listener, routes) in [
            (BackgroundTask::LoginListener, login_listener, login_routes),
            (BackgroundTask::AdminListener, admin_listener, admin_routes),
        ] {
            let incoming = accept(listener, tls.clone(), tasks);
            let serving = serve(incoming, routes, admission.clone(), listeners.stopping());
            listeners.spawn_essential(task, serving);
        }
        Self { health, listeners, drain_timeout: config.drain_timeout }
    }

    /// Reports NOT_SERVING, accepts no more calls, and waits for those in flight for at most the
    /// drain timeout.
    pub async fn shutdown(mut self) {
        self.health.drain().await;
        tokio::time::sleep(WATCH_GRACE).await;
        // Stopped before the watches end: a client that watches again would delay the shutdown.
        self.listeners.stopping().cancel();
        self.health.end_watches().await;
        if !self.listeners.shutdown(self.drain_timeout).await {
            let timeout = self.drain_timeout;
            tracing::warn!(?timeout, "cancelled calls that were in flight after the drain timeout");
        }
    }
}

async fn serve(
    incoming: ReceiverStream<std::io::Result<Incoming>>,
    routes: Routes,
    admission: AdmissionLayer,
    stopping: CancellationToken,
) {
    let layers =
        tower::ServiceBuilder::new().layer(admission).map_response(name_reason).into_inner();
    let served = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_connection_age(MAX_CONNECTION_AGE)
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_max_pending_accept_reset_streams(Some(MAX_RESETS))
        .http2_max_local_error_reset_streams(Some(MAX_RESETS))
        .layer(layers)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stopping.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "listener failed");
    }
}

const KEEPALIVE: Duration = Duration::from_secs(30);
/// A client that doesn't answer a ping within this time is disconnected.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Clients have to reconnect from time to time, so that new replicas get their share.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(30 * 60);
/// Calls at once on one connection.
const MAX_STREAMS: u32 = 512;
/// Bytes of one call's headers: a bearer token and a trace context.
const MAX_HEADERS: u32 = 16 * 1024;
/// Streams that a client may open and reset before it is disconnected (CVE-2023-44487,
/// CVE-2025-8671).
const MAX_RESETS: usize = 32;
/// Time for clients that watch the health to read NOT_SERVING before their streams end.
const WATCH_GRACE: Duration = Duration::from_millis(100);
