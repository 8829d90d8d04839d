//! The two listeners: services, health, reflection, and how they end.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use super::connections::ConnectionRpc;
use super::login::LoginRpc;
use super::status::name_reason;
use crate::connections::ConnectionDesk;
use crate::login::Login;
use crate::pb;
use crate::pb::connection_service_server::ConnectionServiceServer;
use crate::pb::login_service_server::LoginServiceServer;

/// What the health service says (grpc.health.v1), on both listeners.
#[derive(Clone)]
pub struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// Says nothing good yet of the services; the process itself is up.
    #[must_use]
    pub fn new() -> Self {
        Self { reporter: HealthReporter::new() }
    }

    /// Whether LoginService and ConnectionService can do their work.
    pub async fn set(&self, can_log_in: bool, can_administrate: bool) {
        let status = |is_serving| if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.reporter.set_service_status("", ServingStatus::Serving).await;
        self.reporter.set_service_status(LOGIN_SERVICE, status(can_log_in)).await;
        self.reporter.set_service_status(CONNECTION_SERVICE, status(can_administrate)).await;
    }

    async fn drain(&self) {
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

/// The open listeners.
pub struct Door {
    health: Health,
    close: watch::Sender<bool>,
    servers: [JoinHandle<()>; 2],
    drain_timeout: Duration,
}

impl Door {
    /// Serves on both listeners.
    #[must_use]
    pub fn open(
        login_listener: TcpListener,
        admin_listener: TcpListener,
        login: Arc<Login>,
        desk: Arc<ConnectionDesk>,
        public_origin: String,
        health: Health,
        drain_timeout: Duration,
    ) -> Self {
        let (close, closed) = watch::channel(false);
        let login_routes =
            Routes::new(LoginServiceServer::new(LoginRpc::new(login)).max_decoding_message_size(MAX_LOGIN_MESSAGE));
        let admin_routes = Routes::new(
            ConnectionServiceServer::new(ConnectionRpc::new(desk, public_origin)).max_decoding_message_size(MAX_ADMIN_MESSAGE),
        );
        let servers = [
            tokio::spawn(serve(login_listener, login_routes, LOGIN_SERVICE, health.clone(), closed.clone())),
            tokio::spawn(serve(admin_listener, admin_routes, CONNECTION_SERVICE, health.clone(), closed)),
        ];
        Self { health, close, servers, drain_timeout }
    }

    /// Says NOT_SERVING, takes no more calls, waits for those in flight, at most the drain timeout.
    pub async fn close(self) {
        self.health.drain().await;
        tokio::time::sleep(SAY_GOODBYE).await;
        self.close.send_replace(true);
        self.health.clone().end_watches().await;
        let [mut login, mut admin] = self.servers;
        let both = async { tokio::join!(&mut login, &mut admin) };
        if tokio::time::timeout(self.drain_timeout, both).await.is_err() {
            tracing::warn!("calls were still in flight after {:?} and are given up", self.drain_timeout);
            login.abort();
            admin.abort();
        }
    }
}

async fn serve(listener: TcpListener, routes: Routes, service: &str, health: Health, mut closed: watch::Receiver<bool>) {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let routes = routes.add_service(health.service());
    let routes = match with_reflection(routes, service) {
        Ok(routes) => routes,
        Err(error) => {
            tracing::error!(%error, "server reflection can't be offered");
            return;
        }
    };
    let served = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .layer(tower::util::MapResponseLayer::new(name_reason))
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

/// grpc.reflection v1 and v1alpha, of what this listener serves.
fn with_reflection(routes: Routes, service: &str) -> Result<Routes, tonic_reflection::server::Error> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // So that grpcurl shows what is inside a refusal.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(service)
            .with_service_name("grpc.health.v1.Health")
    };
    Ok(routes.add_service(builder().build_v1()?).add_service(builder().build_v1alpha()?))
}

const LOGIN_SERVICE: &str = pb::login_service_server::SERVICE_NAME;
const CONNECTION_SERVICE: &str = pb::connection_service_server::SERVICE_NAME;
/// An id_token_hint has at most 64 KiB, and what else a request holds has less.
const MAX_LOGIN_MESSAGE: usize = 256 * 1024;
const MAX_ADMIN_MESSAGE: usize = 1024 * 1024;
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Time for those who watch the health to read NOT_SERVING before their stream ends.
const SAY_GOODBYE: Duration = Duration::from_millis(100);
