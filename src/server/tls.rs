//! TLS at the listeners (rustls), and the connections that come in: bounded in number and in the time that they may take
//! before their first word. Client certificates are asked for, not demanded: who needs one is for [`caller`](super::caller).

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
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

use crate::server::reload::{Contents, Watched};
use crate::telemetry::certificate_expires;

/// The listeners' TLS, as the files say now.
pub type WatchedTls = Watched<ServerConfig>;

/// Reads PEM files: the certificate chain, its key, and the CAs of callers' certificates.
///
/// # Errors
/// Which file can't be used, and why.
pub fn open(cert: PathBuf, key: PathBuf, client_ca: Option<PathBuf>) -> Result<WatchedTls, String> {
    Watched::open([Some(cert), Some(key), client_ca].into_iter().flatten().collect(), server_config)
}

fn server_config(contents: &[Contents]) -> Result<ServerConfig, String> {
    let [cert, key, client_ca @ ..] = contents else {
        return Err("a certificate and a key are needed".to_owned());
    };
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match client_ca {
        [] => builder.with_no_client_auth(),
        [client_ca, ..] => {
            let mut roots = rustls::RootCertStore::empty();
            for ca in certificates(client_ca, "the client CA file")? {
                roots.add(ca).map_err(|error| format!("a client CA can't be used: {error}"))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build();
            builder.with_client_cert_verifier(verifier.map_err(|error| error.to_string())?)
        }
    };
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| format!("the key file holds no PEM private key: {error}"))?;
    let chain = certificates(cert, "the certificate file")?;
    let expires = chain
        .first()
        .and_then(|leaf| X509Certificate::from_der(leaf).ok())
        .map(|(_, leaf)| leaf.validity().not_after);
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| format!("the certificate and the key can't be used together: {error}"))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    if let Some(expires) = expires {
        certificate_expires(expires.timestamp());
    }
    Ok(config)
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let read = read.map_err(|error| format!("{what} is no PEM: {error}"))?;
    if read.is_empty() { Err(format!("{what} holds no certificate")) } else { Ok(read) }
}

/// Who is at the other end, as far as the connection tells.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    /// Verified by the client CAs, leaf first.
    pub(super) certificates: Option<Arc<Vec<CertificateDer<'static>>>>,
}

/// A connection that came in.
pub(super) struct Incoming {
    stream: Stream,
    /// Until the other side has said a word.
    silence: Option<Pin<Box<Sleep>>>,
    _room: OwnedSemaphorePermit,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Takes connections until the stream is dropped; with TLS where there is some.
pub(super) fn accept(
    listener: TcpListener,
    tls: Option<Arc<WatchedTls>>,
) -> ReceiverStream<io::Result<Incoming>> {
    let (ready, accepted) = mpsc::channel(64);
    tokio::spawn(async move {
        let rooms = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            // Without room nobody is taken: they wait in the kernel's queue.
            let Ok(room) = Arc::clone(&rooms).acquire_owned().await else { return };
            let taken = tokio::select! {
                taken = listener.accept() => taken,
                () = ready.closed() => return,
            };
            let stream = match taken {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let (ready, tls) = (ready.clone(), tls.as_ref().map(|tls| tls.current()));
            tokio::spawn(async move {
                let stream = match tls {
                    None => Stream::Plain(stream),
                    Some(tls) => {
                        match tokio::time::timeout(SILENCE, TlsAcceptor::from(tls).accept(stream))
                            .await
                        {
                            Ok(Ok(stream)) => Stream::Tls(Box::new(stream)),
                            Ok(Err(error)) => {
                                return tracing::debug!(%error, "a TLS handshake failed");
                            }
                            Err(_) => return tracing::debug!("a TLS handshake took too long"),
                        }
                    }
                };
                let silence = Some(Box::pin(tokio::time::sleep(SILENCE)));
                let _ = ready.send(Ok(Incoming { stream, silence, _room: room })).await;
            });
        }
    });
    ReceiverStream::new(accepted)
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
            self.silence = None;
        } else if self.silence.as_mut().is_some_and(|silence| silence.as_mut().poll(cx).is_ready())
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
/// How long a connection may take for its handshake, and again for its first word.
const SILENCE: Duration = Duration::from_secs(10);
/// After an error of taking connections, such as "too many open files".
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
