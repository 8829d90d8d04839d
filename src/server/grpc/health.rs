//! grpc.health.v1 over gRPC. A client may watch a service that isn't known (yet): its state is then
//! SERVICE_UNKNOWN.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health as HealthService;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::routes::{CONNECTION_SERVICE, LOGIN_SERVICE};
use crate::server::health::{Health, State};

pub(in crate::server) struct HealthRpc(Health);

impl HealthRpc {
    pub(in crate::server) fn new(health: Health) -> Self {
        Self(health)
    }
}

fn status(state: State, service: &str) -> Option<ServingStatus> {
    let is_serving = match service {
        "" => state.is_up(),
        LOGIN_SERVICE => state.serves_logins(),
        CONNECTION_SERVICE => state.serves_support(),
        _ => return None,
    };
    Some(if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing })
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl HealthService for HealthRpc {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let state = *self.0.watch().borrow();
        let status = status(state, &request.into_inner().service)
            .ok_or_else(|| Status::not_found("unknown service"))?;
        Ok(Response::new(response(status)))
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let mut last = None;
        let changes = WatchStream::new(self.0.watch())
            .take_while(|state| std::future::ready(!state.has_ended))
            .filter_map(move |state| {
                let status = status(state, &service).unwrap_or(ServingStatus::ServiceUnknown);
                let is_new = last.replace(status) != Some(status);
                std::future::ready(is_new.then(|| Ok(response(status))))
            });
        Ok(Response::new(Box::pin(changes)))
    }
}
