//! The listeners: gRPC for the web tier and for support, HTTP for metrics and probes; how they
//! start and how they end. Called by `app`.

mod by_network;
pub mod grpc;
mod health;
pub mod http;
mod listener;
mod peer;
mod pool;
pub mod reload;
pub mod tls;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::clock::Clock;
use crate::model::limits::ListenerLimits;
use crate::tasks::Tasks;
use crate::telemetry::{BackgroundTask, Listener};
use grpc::admission::AdmissionLayer;
use grpc::auth::{Authorizer, WatchedCallers};
use grpc::refusal::name_reason;
use grpc::routes::{Services, routes};
pub use health::Health;
use listener::{accept, serve_http2};
use pool::Pool;
use tls::WatchedTls;

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
    /// Calls of LoginService at once.
    pub max_in_flight: usize,
    /// Connections of each listener.
    pub limits: ListenerLimits,
    /// How long calls in flight may take after the shutdown has begun.
    pub drain_timeout: Duration,
    /// For intervals and for the expiry of certificates.
    pub clock: Arc<dyn Clock>,
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
        let ServerConfig { login_listener, admin_listener, tls, callers, limits, clock, .. } =
            config;
        let [login_routes, admin_routes] = routes(services, &health, config.reflection, tasks);
        let authorizer = Authorizer::new(callers, Arc::clone(&clock));
        let admission = AdmissionLayer::new(authorizer, config.max_in_flight, limits);
        let listeners = tasks.group();
        for (task, name, listener, routes) in [
            (BackgroundTask::LoginListener, Listener::Login, login_listener, login_routes),
            (BackgroundTask::AdminListener, Listener::Admin, admin_listener, admin_routes),
        ] {
            let pool = Arc::new(Pool::new(name, limits, Arc::clone(&clock)));
            let service = tower::ServiceBuilder::new()
                .layer(admission.clone())
                .map_response(name_reason)
                .service(routes.prepare());
            let (tls, health, calls) = (tls.clone(), health.clone(), listeners.clone());
            let on_room = move |has_room: bool| {
                if name == Listener::Login {
                    health.set_full(!has_room);
                }
            };
            let serve = move |stream, place| {
                serve_http2(stream, place, service.clone(), limits.handshake, calls.clone())
            };
            let accepting = accept(listener, tls, pool, on_room, listeners.clone(), serve);
            listeners.spawn_essential(task, accepting);
        }
        Self { health, listeners, drain_timeout: config.drain_timeout }
    }

    /// Reports NOT_SERVING, accepts no more calls, and waits for those in flight for at most the
    /// drain timeout.
    pub async fn shutdown(self) {
        self.health.drain();
        tokio::time::sleep(WATCH_GRACE).await;
        // Stopped before the watches end: a client that watches again would delay the shutdown.
        self.listeners.stopping().cancel();
        self.health.end_watches();
        if !self.listeners.shutdown(self.drain_timeout).await {
            let timeout = self.drain_timeout;
            tracing::warn!(?timeout, "cancelled calls that were in flight after the drain timeout");
        }
    }
}

/// Time for clients that watch the health to read NOT_SERVING before their streams end.
const WATCH_GRACE: Duration = Duration::from_millis(100);
