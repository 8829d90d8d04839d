//! TLS on the gRPC listeners, and the accepted connections, bounded in number and in the time that
//! they may take for their handshake and their first byte. Client certificates are requested and
//! not required: [`auth`](super::grpc::auth) decides who needs one.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::reload::{Contents, FileError, Watched};
use crate::tasks::Tasks;
use crate::telemetry::{BackgroundTask, certificate_expires};

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

/// The other end of a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    /// Verified by the client CAs, leaf first; `None`: it sent none.
    pub(super) certificates: Option<Arc<Vec<CertificateDer<'static>>>>,
}

/// An accepted connection.
pub(super) struct Incoming {
    stream: Stream,
    /// Ends the connection if its first byte doesn't arrive in time.
    first_byte: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Accepts connections until the returned stream is dropped. If the task that accepts ends, the
/// stream ends too, and with it the listener that reads it.
pub(super) fn accept(
    listener: TcpListener,
    tls: Option<Arc<WatchedTls>>,
    tasks: &Tasks,
) -> ReceiverStream<io::Result<Incoming>> {
    let (sender, accepted) = mpsc::channel(64);
    let handshakes = tasks.clone();
    tasks.spawn(BackgroundTask::Accept, async move {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            // At the limit, further connections wait in the kernel's queue.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let (sender, tls) = (sender.clone(), tls.as_ref().map(|tls| tls.current()));
            handshakes.spawn(BackgroundTask::Accept, async move {
                let Some(stream) = handshake(stream, tls).await else { return };
                let first_byte = Some(Box::pin(tokio::time::sleep(HANDSHAKE_TIMEOUT)));
                let _ = sender.send(Ok(Incoming { stream, first_byte, _permit: permit })).await;
            });
        }
    });
    ReceiverStream::new(accepted)
}

/// `None`: the other end spoke no TLS, or none that we accept.
async fn handshake(stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> Option<Stream> {
    let Some(tls) = tls else { return Some(Stream::Plain(stream)) };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(tls).accept(stream)).await {
        Ok(Ok(stream)) => return Some(Stream::Tls(Box::new(stream))),
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake timed out"),
    }
    None
}

impl Connected for Incoming {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        let certificates = match &self.stream {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => stream.get_ref().1.peer_certificates(),
        };
        let owned = |certificate: &CertificateDer<'_>| certificate.clone().into_owned();
        Peer { certificates: certificates.map(|chain| Arc::new(chain.iter().map(owned).collect())) }
    }
}

impl AsyncRead for Incoming {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if read.is_ready() {
            self.first_byte = None;
        } else if self
            .first_byte
            .as_mut()
            .is_some_and(|first_byte| first_byte.as_mut().poll(cx).is_ready())
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Incoming {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

/// Connections of one listener at once.
const MAX_CONNECTIONS: usize = 4096;
/// How long a connection may take for its handshake, and again for its first byte.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failure to accept a connection, such as "too many open files".
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
