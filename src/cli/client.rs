//! How a command reaches the service: where it is, over which TLS, and as which caller.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use super::Failure;
use crate::pb::connection_service_client::ConnectionServiceClient;

/// Where the service is and how to show who calls.
#[derive(Args, Clone, Debug)]
pub struct ClientArgs {
    /// The listener's URL: http or https.
    #[arg(
        long,
        global = true,
        env = "SSO_ENDPOINT",
        value_name = "URL",
        default_value = "http://127.0.0.1:50052"
    )]
    pub endpoint: String,
    /// PEM file of the CAs of the service's certificate. Default: the operating system's.
    #[arg(long, global = true, env = "SSO_ENDPOINT_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// The name that the service's certificate is for, where it isn't the URL's host.
    #[arg(long, global = true, env = "SSO_ENDPOINT_SERVER_NAME", value_name = "NAME")]
    pub server_name: Option<String>,
    /// PEM file of the caller's certificate chain. Needs --key-file.
    #[arg(long, global = true, env = "SSO_CLIENT_CERT_FILE", value_name = "FILE")]
    pub cert_file: Option<PathBuf>,
    /// PEM file of its private key.
    #[arg(long, global = true, env = "SSO_CLIENT_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// File that holds the caller's bearer token.
    #[arg(long, global = true, env = "SSO_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Who uses this, for the record of changes. Default: the operating system's user.
    #[arg(long, global = true, env = "SSO_OPERATOR", value_name = "NAME", default_value_t = user(), hide_default_value = true)]
    pub operator: String,
    /// How long to wait for an answer.
    #[arg(long, global = true, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

/// ConnectionService, as this caller.
pub type Admin = ConnectionServiceClient<InterceptedService<Channel, Credentials>>;

/// Who calls: shown with each call.
#[derive(Clone)]
pub struct Credentials {
    authorization: Option<MetadataValue<Ascii>>,
    operator: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        if let Some(operator) = &self.operator {
            request.metadata_mut().insert("sso-operator", operator.clone());
        }
        Ok(request)
    }
}

impl ClientArgs {
    /// ConnectionService.
    ///
    /// # Errors
    /// As [`ClientArgs::channel`].
    pub async fn admin(&self) -> Result<Admin, Failure> {
        let operator =
            Some(&self.operator).filter(|name| !name.is_empty()).and_then(|name| name.parse().ok());
        let credentials = Credentials { authorization: self.authorization()?, operator };
        let channel = self.channel().await?;
        Ok(ConnectionServiceClient::with_interceptor(channel, credentials)
            .max_decoding_message_size(MAX_ANSWER))
    }

    /// Connects.
    ///
    /// # Errors
    /// A file can't be read, the URL is none, or nobody answers there.
    pub async fn channel(&self) -> Result<Channel, Failure> {
        let wrong = |error: tonic::transport::Error| {
            Failure::NoAnswer(format!("{}: {}", self.endpoint, innermost(&error)))
        };
        let endpoint = Endpoint::from_shared(self.endpoint.clone()).map_err(wrong)?;
        let endpoint = if self.endpoint.starts_with("https://") {
            endpoint.tls_config(self.tls()?).map_err(wrong)?
        } else {
            endpoint
        };
        endpoint
            .connect_timeout(CONNECT_TIMEOUT.min(self.timeout))
            .timeout(self.timeout)
            .connect()
            .await
            .map_err(wrong)
    }

    /// `authorization`, where a token was given.
    ///
    /// # Errors
    /// The file can't be read, or holds no token.
    fn authorization(&self) -> Result<Option<MetadataValue<Ascii>>, Failure> {
        let Some(file) = &self.token_file else { return Ok(None) };
        let text = read(file)?;
        let token = std::str::from_utf8(&text).map(str::trim).unwrap_or_default();
        let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
            .parse()
            .map_err(|_| Failure::Usage(format!("{} holds no bearer token", file.display())))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    fn tls(&self) -> Result<ClientTlsConfig, Failure> {
        let mut tls = match &self.ca_file {
            Some(file) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(file)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some(name) = &self.server_name {
            tls = tls.domain_name(name);
        }
        match (&self.cert_file, &self.key_file) {
            (Some(cert), Some(key)) => {
                tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?))
            }
            (None, None) => {}
            _ => return Err(Failure::Usage("--cert-file and --key-file go together".to_owned())),
        }
        Ok(tls)
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file)
        .map_err(|error| Failure::Usage(format!("{} can't be read: {error}", file.display())))
}

/// What really happened: tonic's own text says "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the operating system tells who uses the command by the environment alone"
)]
fn user() -> String {
    std::env::var("USER").unwrap_or_default()
}

/// A page of 1000 connections, each with all its texts.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
