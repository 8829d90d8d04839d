//! The state that grpc.health.v1 and `/readyz` report, on all listeners. Set by `app`'s store
//! watch. Liveness never depends on a store or an IdP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use super::grpc::routes::{CONNECTION_SERVICE, LOGIN_SERVICE};
use crate::telemetry;

/// The health of this replica. Clones share it.
#[derive(Clone)]
pub struct Health {
    reporter: HealthReporter,
    is_ready: Arc<AtomicBool>,
}

impl Health {
    /// The process is up; no service is serving yet.
    #[must_use]
    pub fn new() -> Self {
        Self { reporter: HealthReporter::new(), is_ready: Arc::default() }
    }

    /// Says whether LoginService and ConnectionService can do their work.
    pub async fn set(&self, can_log_in: bool, can_administrate: bool) {
        let status = |is_serving| {
            if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing }
        };
        self.set_ready(can_log_in);
        self.reporter.set_service_status("", ServingStatus::Serving).await;
        self.reporter.set_service_status(LOGIN_SERVICE, status(can_log_in)).await;
        self.reporter.set_service_status(CONNECTION_SERVICE, status(can_administrate)).await;
    }

    /// Whether LoginService can do its work.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Acquire)
    }

    /// Nothing is serving any more.
    pub(super) async fn drain(&self) {
        self.set_ready(false);
        for service in SERVICES {
            self.reporter.set_service_status(service, ServingStatus::NotServing).await;
        }
    }

    /// Ends the streams of clients that watch the health: they would delay the shutdown.
    pub(super) async fn end_watches(&mut self) {
        for service in SERVICES {
            self.reporter.clear_service_status(service).await;
        }
    }

    pub(super) fn service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }

    fn set_ready(&self, is_ready: bool) {
        self.is_ready.store(is_ready, Ordering::Release);
        telemetry::ready(is_ready);
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

const SERVICES: [&str; 3] = ["", LOGIN_SERVICE, CONNECTION_SERVICE];
