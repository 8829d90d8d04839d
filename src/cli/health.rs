//! `peerpanda-sso health`: asks the service for its status by grpc.health.v1. For containers that
//! have no other tool; sends no credentials, since the health service takes none.

use clap::Args;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::client::EndpointArgs;
use super::{Failure, Outcome, print_line};

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
        let mut client = HealthClient::new(self.endpoint.connect().await?);
        let answer = client.check(HealthCheckRequest { service: self.service.clone() }).await;
        let status = match answer {
            Ok(answer) => answer.into_inner().status(),
            Err(status) if status.code() == Code::NotFound => ServingStatus::ServiceUnknown,
            Err(status) => return Err(self.endpoint.no_answer(status.message())),
        };
        print_line(status.as_str_name())?;
        Ok(if status == ServingStatus::Serving { Outcome::Success } else { Outcome::Failed })
    }
}
