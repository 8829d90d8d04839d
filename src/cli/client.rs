//! How a command reaches the service: its address, TLS, and the caller's credentials. Every command
//! that talks to the service connects here; nothing here prints or sends a request.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use http::Uri;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use super::{Failure, listener};
use crate::model::address::is_loopback_host;
use crate::pb::connection_service_client::ConnectionServiceClient;

/// The service's address and TLS.
#[derive(Args, Clone, Debug)]
pub struct EndpointArgs {
    /// Set the listener's URL, http or https.
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        env = "SSO_ENDPOINT",
        value_name = "URL",
        default_value = "http://127.0.0.1:50052"
    )]
    endpoint: String,
    /// Read the CAs that sign the service's certificate from this PEM file. Default: the operating
    /// system's CAs.
    #[arg(long, global = true, help_heading = HEADING, env = "SSO_ENDPOINT_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Expect this name in the service's certificate instead of the URL's host.
    #[arg(long, global = true, help_heading = HEADING, env = "SSO_ENDPOINT_SERVER_NAME", value_name = "NAME")]
    server_name: Option<String>,
    /// Read the client's certificate chain from this PEM file. Requires --key-file.
    #[arg(long, global = true, help_heading = HEADING, env = "SSO_CLIENT_CERT_FILE", value_name = "FILE")]
    cert_file: Option<PathBuf>,
    /// Read the private key of the client's certificate from this PEM file.
    #[arg(long, global = true, help_heading = HEADING, env = "SSO_CLIENT_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Wait this long for an answer; a number alone is seconds.
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        value_name = "DURATION",
        default_value = "30s",
        value_parser = parse_timeout
    )]
    timeout: Duration,
}

/// The service's address, and the caller.
#[derive(Args, Clone, Debug)]
pub struct ClientArgs {
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// Read the caller's bearer token from this file.
    #[arg(long, global = true, help_heading = HEADING, env = "SSO_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Record changes under this name. Default: the operating system's user.
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        env = "SSO_OPERATOR",
        value_name = "NAME",
        default_value_t = user(),
        hide_default_value = true
    )]
    operator: String,
}

/// A client of ConnectionService that sends the caller's credentials.
pub type Admin = ConnectionServiceClient<InterceptedService<Channel, Credentials>>;

/// The metadata that identifies the caller, sent with each call.
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
    /// See [`EndpointArgs::explain`].
    pub(super) async fn explain(&self, failure: Failure) -> Failure {
        self.endpoint.explain(failure).await
    }

    /// Connects to ConnectionService.
    ///
    /// # Errors
    /// The token file can't be used, or see [`EndpointArgs::connect`].
    pub async fn admin(&self) -> Result<Admin, Failure> {
        // Metadata is ASCII; a name need not be.
        let operator = utf8_percent_encode(&self.operator, RESERVED).to_string();
        let operator = Some(operator).filter(|name| !name.is_empty());
        let operator = operator.and_then(|name| name.parse().ok());
        let credentials = Credentials { authorization: self.authorization()?, operator };
        let channel = self.endpoint.connect().await?;
        Ok(ConnectionServiceClient::with_interceptor(channel, credentials)
            .max_decoding_message_size(MAX_MESSAGE_SIZE))
    }

    fn authorization(&self) -> Result<Option<MetadataValue<Ascii>>, Failure> {
        let Some(file) = &self.token_file else { return Ok(None) };
        if !self.endpoint.is_confidential() {
            return Err(Failure::Usage(format!(
                "a bearer token is not sent to {} without TLS: use an https URL, or http to this \
                 machine only",
                self.endpoint.endpoint
            )));
        }
        let text = read(file)?;
        let token = std::str::from_utf8(&text).map(str::trim).unwrap_or_default();
        let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(|_| {
            Failure::Usage(format!("{} does not contain a bearer token", file.display()))
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// What is encoded in the operator's name besides what isn't ASCII.
const RESERVED: &AsciiSet = &CONTROLS.add(b'%');

impl EndpointArgs {
    /// Connects to the service.
    ///
    /// # Errors
    /// A file can't be read, the URL is invalid, or the service doesn't answer.
    pub async fn connect(&self) -> Result<Channel, Failure> {
        let failed = |error: tonic::transport::Error| Failure::NoAnswer(root_cause(&error));
        let endpoint = Endpoint::from_shared(self.endpoint.clone()).map_err(failed)?;
        let endpoint = if self.endpoint.starts_with("https://") {
            endpoint.tls_config(self.tls()?).map_err(failed)?
        } else {
            endpoint
        };
        endpoint
            .connect_timeout(CONNECT_TIMEOUT.min(self.timeout))
            .timeout(self.timeout)
            .connect()
            .await
            .map_err(failed)
    }

    /// Whether nobody else can read what is sent: by TLS, or since it stays on this machine.
    fn is_confidential(&self) -> bool {
        let is_local = |uri: Uri| uri.host().is_some_and(is_loopback_host);
        self.endpoint.starts_with("https://") || self.endpoint.parse().is_ok_and(is_local)
    }

    /// Adds to a failure for want of an answer who was asked, and what answers there instead.
    pub(super) async fn explain(&self, failure: Failure) -> Failure {
        let Failure::NoAnswer(cause) = failure else { return failure };
        let found = match self.endpoint.parse() {
            Ok(url) => listener::probe(&url).await,
            Err(_) => None,
        };
        let cause = found.unwrap_or(cause);
        Failure::NoAnswer(format!("no answer from {}: {cause}", self.endpoint))
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
                tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
            }
            (None, None) => {}
            _ => {
                let text = "--cert-file and --key-file must be given together";
                return Err(Failure::Usage(text.to_owned()));
            }
        }
        Ok(tls)
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file)
        .map_err(|error| Failure::Usage(format!("can't read {}: {error}", file.display())))
}

/// As `5s`; a number alone is seconds.
fn parse_timeout(text: &str) -> Result<Duration, humantime::DurationError> {
    text.parse().map(Duration::from_secs).or_else(|_| humantime::parse_duration(text))
}

/// The innermost source, since tonic's own text is only "transport error".
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the operating system names the command's user in the environment alone"
)]
fn user() -> String {
    std::env::var("USER").unwrap_or_default()
}

const HEADING: &str = "Service";
/// Enough for a page of 1000 connections with every text at its limit.
const MAX_MESSAGE_SIZE: usize = 64 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
