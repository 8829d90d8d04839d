//! The TLS configuration of the gRPC listeners. Client certificates are requested and not required:
//! [`auth`](super::grpc::auth) decides who needs one.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::reload::{Contents, FileError, Watched};
use crate::telemetry::certificate_expires;

/// The TLS configuration of the files as they were read last.
pub type WatchedTls = Watched<ServerConfig>;

/// Reads PEM files: the certificate chain, its key, and the CAs of callers' certificates. They are
/// reloaded when they change.
///
/// # Errors
/// A file can't be read, or see [`TlsError`].
pub fn open(
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
) -> Result<WatchedTls, FileError> {
    let files = [Some(cert), Some(key), client_ca].into_iter().flatten().collect();
    Watched::open("TLS certificate", files, server_config)
}

/// Why the PEM files can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM, or without a certificate.
    #[error("the {file} is not PEM: {error}")]
    NotPem {
        /// Which of the files.
        file: &'static str,
        /// The parser's error.
        error: pem::Error,
    },
    /// PEM, but something else.
    #[error("the {0} has no certificate")]
    NoCertificate(&'static str),
    /// The key file.
    #[error("the key file has no PEM private key: {0}")]
    NoKey(pem::Error),
    /// A CA of callers' certificates.
    #[error("invalid client CA: {0}")]
    ClientCa(rustls::Error),
    /// The client CAs as a whole.
    #[error("invalid client CA file: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// The key isn't the certificate's, or either is of a kind that isn't supported.
    #[error("the certificate and the key can't be used together: {0}")]
    KeyPair(rustls::Error),
    /// No protocol version is available.
    #[error("failed to configure TLS: {0}")]
    Versions(rustls::Error),
}

fn server_config(contents: &[Contents]) -> Result<ServerConfig, TlsError> {
    let [cert, key, client_ca @ ..] = contents else {
        return Err(TlsError::NoCertificate("certificate file"));
    };
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?;
    let builder = match client_ca {
        [] => builder.with_no_client_auth(),
        [client_ca, ..] => {
            let mut roots = rustls::RootCertStore::empty();
            for ca in certificates(client_ca, "client CA file")? {
                roots.add(ca).map_err(TlsError::ClientCa)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build();
            builder.with_client_cert_verifier(verifier?)
        }
    };
    let key = PrivateKeyDer::from_pem_slice(key).map_err(TlsError::NoKey)?;
    let chain = certificates(cert, "certificate file")?;
    let expires = chain
        .first()
        .and_then(|leaf| X509Certificate::from_der(leaf).ok())
        .map(|(_, leaf)| leaf.validity().not_after);
    let mut config = builder.with_single_cert(chain, key).map_err(TlsError::KeyPair)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    if let Some(expires) = expires {
        certificate_expires(expires.timestamp());
    }
    Ok(config)
}

fn certificates(pem: &[u8], file: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let read = read.map_err(|error| TlsError::NotPem { file, error })?;
    if read.is_empty() { Err(TlsError::NoCertificate(file)) } else { Ok(read) }
}
