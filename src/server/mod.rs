//! The two listeners: services, health, reflection, and how they end.

pub mod grpc;
pub mod http;
pub mod reload;
pub mod tls;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::connections::ConnectionAdmin;
use crate::identity_token::IdentityTokens;
use crate::login::Login;
use crate::login::attempts::AttemptLog;
use crate::pb;
use crate::pb::connection_service_server::ConnectionServiceServer;
use crate::pb::identity_service_server::IdentityServiceServer;
use crate::pb::login_service_server::LoginServiceServer;
use crate::server::reload::RELOAD_INTERVAL;
use grpc::admission::AdmissionLayer;
use grpc::auth::{Authorizer, Role, WatchedCallers};
use grpc::connections::ConnectionRpc;
use grpc::identity::IdentityRpc;
use grpc::login::LoginRpc;
use grpc::refusal::name_reason;
use http::Readiness;
use tls::{Incoming, WatchedTls, accept};

/// What the health service says (grpc.health.v1), on both listeners.
#[derive(Clone)]
pub struct Health {
    reporter: HealthReporter,
    readiness: Readiness,
}

impl Health {
    /// Says nothing good yet of the services; the process itself is up.
    #[must_use]
    pub fn new() -> Self {
        Self { reporter: HealthReporter::new(), readiness: Readiness::default() }
    }

    /// Whether LoginService and ConnectionService can do their work.
    pub async fn set(&self, can_log_in: bool, can_administrate: bool) {
        let status = |is_serving| {
            if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing }
        };
        self.readiness.set(can_log_in);
        self.reporter.set_service_status("", ServingStatus::Serving).await;
        self.reporter.set_service_status(LOGIN_SERVICE, status(can_log_in)).await;
        self.reporter.set_service_status(CONNECTION_SERVICE, status(can_administrate)).await;
    }

    /// The same for whoever asks over HTTP: whether people can log in.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    async fn drain(&self) {
        self.readiness.set(false);
        for service in ["", LOGIN_SERVICE, CONNECTION_SERVICE] {
            self.reporter.set_service_status(service, ServingStatus::NotServing).await;
        }
    }

    /// Ends the streams of those who watch: otherwise they would hold the shutdown up.
    async fn end_watches(mut self) {
        for service in ["", LOGIN_SERVICE, CONNECTION_SERVICE] {
            self.reporter.clear_service_status(service).await;
        }
    }

    fn service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

/// Who may come in, and how.
pub struct ServerConfig {
    /// LoginService's.
    pub login_listener: TcpListener,
    /// ConnectionService's.
    pub admin_listener: TcpListener,
    /// `None`: plain.
    pub tls: Option<Arc<WatchedTls>>,
    /// `None`: everybody is let in.
    pub callers: Option<Arc<WatchedCallers>>,
    /// Whether grpc.reflection is offered.
    pub reflection: bool,
    /// Calls at once.
    pub max_in_flight: usize,
    /// For calls in flight at the end.
    pub drain_timeout: Duration,
}

/// What support works with.
pub struct Support {
    /// What it does.
    pub admin: Arc<ConnectionAdmin>,
    /// What it sees of logins.
    pub attempts: Arc<AttemptLog>,
    /// Scheme, host and port of the customer-facing URIs.
    pub public_origin: String,
}

/// The open listeners.
pub struct Server {
    health: Health,
    close: watch::Sender<bool>,
    servers: [JoinHandle<()>; 2],
    watch: JoinHandle<()>,
    drain_timeout: Duration,
}

impl Server {
    /// Serves on both listeners.
    #[must_use]
    pub fn start(
        config: ServerConfig,
        login: Arc<Login>,
        identity_tokens: Option<Arc<IdentityTokens>>,
        support: Support,
        health: Health,
    ) -> Self {
        let ServerConfig {
            login_listener,
            admin_listener,
            tls,
            callers,
            reflection,
            max_in_flight,
            drain_timeout,
        } = config;
        let (close, closed) = watch::channel(false);
        let Support { admin, attempts, public_origin } = support;
        let login = LoginRpc::new(login, identity_tokens.clone());
        let login = LoginServiceServer::new(login).max_decoding_message_size(MAX_LOGIN_MESSAGE);
        let admin =
            ConnectionServiceServer::new(ConnectionRpc::new(admin, attempts, public_origin))
                .max_decoding_message_size(MAX_ADMIN_MESSAGE);
        let authorizer = |role| Authorizer::new(callers.clone(), role);
        let login_routes = Routes::new(InterceptedService::new(login, authorizer(Role::Login)));
        let login_routes = match &identity_tokens {
            Some(identity_tokens) => {
                let service =
                    IdentityServiceServer::new(IdentityRpc::new(Arc::clone(identity_tokens)));
                let service = service.max_decoding_message_size(MAX_LOGIN_MESSAGE);
                login_routes
                    .add_service(InterceptedService::new(service, authorizer(Role::Identity)))
            }
            None => login_routes,
        };
        let admin_routes = Routes::new(InterceptedService::new(admin, authorizer(Role::Admin)));
        let admission = AdmissionLayer::new(max_in_flight);
        let start = |listener, routes: Routes, services: &[&'static str]| {
            let routes = routes.add_service(health.service());
            let routes = if reflection { with_reflection(routes, services) } else { routes };
            let name = services.first().copied().unwrap_or_default();
            tokio::spawn(serve(
                accept(listener, tls.clone()),
                routes,
                name,
                admission.clone(),
                closed.clone(),
            ))
        };
        let login_services: &[&str] = if identity_tokens.is_some() {
            &[LOGIN_SERVICE, IDENTITY_SERVICE]
        } else {
            &[LOGIN_SERVICE]
        };
        let servers = [
            start(login_listener, login_routes, login_services),
            start(admin_listener, admin_routes, &[CONNECTION_SERVICE]),
        ];
        let watch = tokio::spawn(keep_reloading(tls, callers));
        Self { health, close, servers, watch, drain_timeout }
    }

    /// Says NOT_SERVING, takes no more calls, waits for those in flight, at most the drain timeout.
    pub async fn shutdown(self) {
        self.health.drain().await;
        tokio::time::sleep(SAY_GOODBYE).await;
        self.close.send_replace(true);
        self.health.clone().end_watches().await;
        self.watch.abort();
        let [mut login, mut admin] = self.servers;
        let both = async { tokio::join!(&mut login, &mut admin) };
        if tokio::time::timeout(self.drain_timeout, both).await.is_err() {
            tracing::warn!(
                "calls were still in flight after {:?} and are given up",
                self.drain_timeout
            );
            login.abort();
            admin.abort();
        }
    }
}

async fn serve(
    incoming: ReceiverStream<std::io::Result<Incoming>>,
    routes: Routes,
    service: &str,
    admission: AdmissionLayer,
    mut closed: watch::Receiver<bool>,
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
        .serve_with_incoming_shutdown(incoming, async move {
            // An error means that the sender is gone: the door closes then too.
            let _ = closed.wait_for(|closed| *closed).await;
        })
        .await;
    if let Err(error) = served {
        tracing::error!(%error, service, "a listener failed");
    }
}

/// Reads certificates and callers again when they change.
async fn keep_reloading(tls: Option<Arc<WatchedTls>>, callers: Option<Arc<WatchedCallers>>) {
    let mut ticks = tokio::time::interval(RELOAD_INTERVAL);
    loop {
        ticks.tick().await;
        let (tls, callers) = (tls.clone(), callers.clone());
        let reload = tokio::task::spawn_blocking(move || {
            if let Some(tls) = tls {
                tls.reload_if_changed();
            }
            if let Some(callers) = callers {
                callers.reload_if_changed();
            }
        });
        if let Err(error) = reload.await {
            tracing::error!(%error, "the watched files could not be looked at");
        }
    }
}

/// grpc.reflection v1 and v1alpha, of what this listener serves.
fn with_reflection(routes: Routes, services: &[&str]) -> Routes {
    let builder = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // So that grpcurl shows what is inside a refusal.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("grpc.health.v1.Health");
        services.iter().fold(builder, |builder, service| builder.with_service_name(*service))
    };
    match (builder().build_v1(), builder().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => routes.add_service(v1).add_service(v1alpha),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "server reflection can't be offered");
            routes
        }
    }
}

const LOGIN_SERVICE: &str = pb::login_service_server::SERVICE_NAME;
const IDENTITY_SERVICE: &str = pb::identity_service_server::SERVICE_NAME;
const CONNECTION_SERVICE: &str = pb::connection_service_server::SERVICE_NAME;
/// An id_token_hint has at most 64 KiB, and what else a request holds has less.
const MAX_LOGIN_MESSAGE: usize = 256 * 1024;
const MAX_ADMIN_MESSAGE: usize = 1024 * 1024;
const KEEPALIVE: Duration = Duration::from_secs(30);
/// A caller that doesn't answer a ping for so long is gone.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Afterwards the caller connects anew: so that new replicas get their share.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(30 * 60);
/// Calls of one connection at once.
const MAX_STREAMS: u32 = 512;
/// Bytes of one call's headers: a bearer token, and a trace.
const MAX_HEADERS: u32 = 16 * 1024;
/// Streams that a connection may open and reset before it is closed (CVE-2023-44487, CVE-2025-8671).
const MAX_RESETS: usize = 32;
/// Time for those who watch the health to read NOT_SERVING before their stream ends.
const SAY_GOODBYE: Duration = Duration::from_millis(100);
