//! `peerpanda-sso health`: what the service says of itself (grpc.health.v1), for a container that has no other tool.

use clap::Args;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::client::ClientArgs;
use super::{Failure, Outcome, print_line};

/// The command's options.
#[derive(Args)]
pub struct Health {
    #[command(flatten)]
    reach: ClientArgs,
    /// The service that is asked about, such as peerpanda.sso.v1.LoginService; empty: the process.
    #[arg(long, value_name = "NAME", default_value = "")]
    service: String,
}

impl Health {
    /// Asks, and prints SERVING, NOT_SERVING or SERVICE_UNKNOWN; good is SERVING alone.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn run(&self) -> Result<Outcome, Failure> {
        let mut client = HealthClient::new(self.reach.channel().await?);
        let answer = client.check(HealthCheckRequest { service: self.service.clone() }).await;
        let status = match answer {
            Ok(answer) => answer.into_inner().status(),
            Err(status) if status.code() == Code::NotFound => ServingStatus::ServiceUnknown,
            Err(status) => {
                return Err(Failure::NoAnswer(format!(
                    "{}: {}",
                    self.reach.endpoint,
                    status.message()
                )));
            }
        };
        print_line(status.as_str_name())?;
        Ok(if status == ServingStatus::Serving { Outcome::Success } else { Outcome::Failed })
    }
}
