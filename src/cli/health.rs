//! `peerpanda-sso health`: asks the service for its status by grpc.health.v1. For containers that
//! have no other tool; sends no credentials, since the health service takes none.

use clap::Args;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::client::EndpointArgs;
use super::{Failure, Outcome, listener, print_line};

/// The command's options.
#[derive(Args)]
pub struct Health {
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// Ask for this service, such as peerpanda.sso.v1.LoginService. Empty: the process.
    #[arg(long, value_name = "NAME", default_value = "")]
    service: String,
}

impl Health {
    /// Asks, and prints SERVING, NOT_SERVING or SERVICE_UNKNOWN. Only SERVING is a success.
    ///
    /// # Errors
    /// The service doesn't answer.
    pub async fn run(&self) -> Result<Outcome, Failure> {
        match self.ask().await {
            Ok(status) => {
                print_line(status.as_str_name())?;
                let is_serving = status == ServingStatus::Serving;
                Ok(if is_serving { Outcome::Success } else { Outcome::Failed })
            }
            Err(failure) => Err(self.endpoint.explain(failure).await),
        }
    }

    async fn ask(&self) -> Result<ServingStatus, Failure> {
        let mut client = HealthClient::new(self.endpoint.connect().await?);
        let answer = client.check(HealthCheckRequest { service: self.service.clone() }).await;
        match answer {
            Ok(answer) => Ok(answer.into_inner().status()),
            Err(status) if status.code() == Code::NotFound => Ok(ServingStatus::ServiceUnknown),
            Err(status) => Err(Failure::NoAnswer(listener::words(&status))),
        }
    }
}
