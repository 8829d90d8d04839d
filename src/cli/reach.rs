//! How a command reaches the service: where it is, over which TLS, and as which caller.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// Where the service is and how to show who calls.
#[derive(Args, Clone, Debug)]
pub struct Reach {
    /// The listener's URL: http or https.
    #[arg(long, env = "SSO_ENDPOINT", value_name = "URL", default_value = "http://127.0.0.1:50052")]
    pub endpoint: String,
    /// PEM file of the CAs of the service's certificate. Default: the operating system's.
    #[arg(long, env = "SSO_ENDPOINT_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// The name that the service's certificate is for, where it isn't the URL's host.
    #[arg(long, env = "SSO_ENDPOINT_SERVER_NAME", value_name = "NAME")]
    pub server_name: Option<String>,
    /// PEM file of the caller's certificate chain. Needs --key-file.
    #[arg(long, env = "SSO_CLIENT_CERT_FILE", value_name = "FILE", requires = "key_file")]
    pub cert_file: Option<PathBuf>,
    /// PEM file of its private key.
    #[arg(long, env = "SSO_CLIENT_KEY_FILE", value_name = "FILE", requires = "cert_file")]
    pub key_file: Option<PathBuf>,
    /// File that holds the caller's bearer token.
    #[arg(long, env = "SSO_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// How long to wait for an answer.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

impl Reach {
    /// Connects.
    ///
    /// # Errors
    /// A file can't be read, the URL is none, or nobody answers there.
    pub async fn channel(&self) -> Result<Channel, String> {
        let wrong = |error: tonic::transport::Error| format!("{}: {}", self.endpoint, innermost(&error));
        let endpoint = Endpoint::from_shared(self.endpoint.clone()).map_err(wrong)?;
        let endpoint =
            if self.endpoint.starts_with("https://") { endpoint.tls_config(self.tls()?).map_err(wrong)? } else { endpoint };
        endpoint.connect_timeout(CONNECT_TIMEOUT.min(self.timeout)).timeout(self.timeout).connect().await.map_err(wrong)
    }

    /// `authorization`, where a token was given.
    ///
    /// # Errors
    /// The file can't be read, or holds no token.
    pub fn authorization(&self) -> Result<Option<MetadataValue<Ascii>>, String> {
        let Some(file) = &self.token_file else { return Ok(None) };
        let text = read(file)?;
        let token = std::str::from_utf8(&text).map(str::trim).unwrap_or_default();
        let mut value: MetadataValue<Ascii> =
            format!("Bearer {token}").parse().map_err(|_| format!("{} holds no bearer token", file.display()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    fn tls(&self) -> Result<ClientTlsConfig, String> {
        let mut tls = match &self.ca_file {
            Some(file) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(file)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some(name) = &self.server_name {
            tls = tls.domain_name(name);
        }
        if let (Some(cert), Some(key)) = (&self.cert_file, &self.key_file) {
            tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        Ok(tls)
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("{} can't be read: {error}", file.display()))
}

/// What really happened: tonic's own text says "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
