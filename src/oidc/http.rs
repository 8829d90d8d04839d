//! The HTTP client that calls IdPs: https only, public addresses only, no redirects, no proxy but
//! the operator's, bounded bodies and deadlines. Every call of this module goes through it; its connector is the
//! address guard in `oidc/address.rs`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use flate2::read::GzDecoder;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, DATE, LOCATION,
    RETRY_AFTER, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tower_service::Service;
use url::Url;

use super::address::{CONNECT_TIMEOUT, Forbidden, GuardedConnector, ProxyUnreachable};
use super::dns::{NameResolver, Unresolved};
use super::error::{CallError, Defect, Outage, ProxyError};
use super::proxy::Proxy;
use super::tls::{self, CertificateVerifier, Presented};
use crate::model::address::AddressPolicy;
use crate::model::text::quotable;
use crate::telemetry::traces;

pub use super::tls::PresentedCertificate;

/// Which IdPs may be called, and how.
#[derive(Clone, Debug, Default)]
pub struct CallPolicy {
    /// Which addresses, and whether plain http is allowed. TLS is always verified.
    pub addresses: AddressPolicy,
    /// CAs to trust in addition to those of the operating system.
    pub extra_cas: Vec<CertificateDer<'static>>,
    /// The proxy through which IdPs are called.
    pub proxy: Option<Proxy>,
    /// Resolves host names in place of the machine's name servers; for tests.
    pub name_server: Option<SocketAddr>,
    /// Whether requests carry the trace context (W3C Trace Context).
    pub propagate_trace_context: bool,
}

/// The client; cheap to clone.
#[derive(Clone)]
pub struct HttpClient {
    inner: Client<HttpsConnector<GuardedConnector>, Full<Bytes>>,
    addresses: Arc<AddressPolicy>,
    propagate_trace_context: bool,
    /// For a connection outside the pool; see [`HttpClient::connect`].
    connector: GuardedConnector,
    tls: Arc<ClientConfig>,
    /// `None`: no CA is trusted.
    verifier: Option<CertificateVerifier>,
    presented: Option<Arc<Presented>>,
}

/// An answer whose body was read completely.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// A header's value, if it is visible ASCII.
    pub(super) fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// How long the answer may be used (RFC 9111 5.2.2); `None` if it doesn't say.
    pub(super) fn max_age(&self) -> Option<Duration> {
        let values = self.headers.get_all(CACHE_CONTROL).into_iter();
        let values = values.filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).find_map(|directive| {
            let directive = directive.trim().to_ascii_lowercase();
            match directive.strip_prefix("max-age=") {
                Some(seconds) => seconds.trim_matches('"').parse().ok().map(Duration::from_secs),
                None => {
                    matches!(directive.as_str(), "no-store" | "no-cache").then_some(Duration::ZERO)
                }
            }
        })
    }

    /// The media type in lower case, without parameters.
    pub(super) fn media_type(&self) -> String {
        let value = self.header(CONTENT_TYPE).unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }
}

impl HttpClient {
    /// A client that trusts `roots` and resolves `names`, with a pool of its own.
    pub(super) fn new(
        policy: &CallPolicy,
        roots: RootCertStore,
        names: NameResolver,
    ) -> Result<Self, String> {
        let (tls, verifier) = tls::client_config(roots)?;
        let addresses = Arc::new(policy.addresses.clone());
        let connector = GuardedConnector::new(Arc::clone(&addresses), names, policy.proxy.clone());
        let inner = pool(&connector, &tls, addresses.allow_insecure);
        Ok(Self {
            inner,
            addresses,
            propagate_trace_context: policy.propagate_trace_context,
            connector,
            tls: Arc::new(tls),
            verifier,
            presented: None,
        })
    }

    /// A client like this one, with connections of its own, which keeps the certificates that hosts
    /// present; for a check.
    #[must_use]
    pub fn recording(&self) -> Self {
        let Some(verifier) = &self.verifier else { return self.clone() };
        let presented = Arc::default();
        let mut tls = ClientConfig::clone(&self.tls);
        tls.dangerous().set_certificate_verifier(Arc::new(verifier.recording(&presented)));
        // A resumed session presents no certificate.
        tls.resumption = Resumption::disabled();
        Self {
            inner: pool(&self.connector, &tls, self.addresses.allow_insecure),
            tls: Arc::new(tls),
            presented: Some(presented),
            ..self.clone()
        }
    }

    /// The certificates that hosts presented to a [`Self::recording`] client, trusted or not, by host; the
    /// host's own first.
    #[must_use]
    pub fn presented(&self) -> BTreeMap<String, Vec<PresentedCertificate>> {
        self.presented.as_ref().map(|presented| presented.by_host()).unwrap_or_default()
    }

    /// Which addresses may be called.
    #[must_use]
    pub fn addresses(&self) -> &AddressPolicy {
        &self.addresses
    }

    /// Fetches a document; see [`Self::send`].
    pub(super) async fn get(
        &self,
        url: &Url,
        accept: &'static str,
        limit: usize,
    ) -> Result<Answer, CallError> {
        let request = Request::get(url.as_str()).header(ACCEPT, accept).body(Bytes::new());
        let unusable = |_| CallError::Unusable { host: host_of(url), defect: Defect::Url };
        self.send(request.map_err(unusable)?, limit).await
    }

    /// Sends a request and reads at most `limit` bytes of the answer, all within
    /// [`REQUEST_DEADLINE`]. Redirects, server errors and HTTP 429 are errors; every other status
    /// is for the caller to judge.
    pub(super) async fn send(
        &self,
        request: Request<Bytes>,
        limit: usize,
    ) -> Result<Answer, CallError> {
        self.send_checked(request, limit, check_status).await
    }

    /// [`Self::send`] with every status left to the caller, who follows no redirect unchecked.
    pub(super) async fn send_raw(
        &self,
        request: Request<Bytes>,
        limit: usize,
    ) -> Result<Answer, CallError> {
        self.send_checked(request, limit, |_, _| Ok(())).await
    }

    async fn send_checked(
        &self,
        mut request: Request<Bytes>,
        limit: usize,
        check: fn(StatusCode, &HeaderMap) -> Result<(), Failure>,
    ) -> Result<Answer, CallError> {
        let uri = request.uri().clone();
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_TEXT));
        if self.propagate_trace_context {
            traces::inject(request.headers_mut());
        }
        let exchange = async {
            let response = self.inner.request(request.map(Full::new)).await;
            let (head, body) =
                response.map_err(|error| failure(&error, error.is_connect()))?.into_parts();
            check(head.status, &head.headers)?;
            let body = Limited::new(body, limit).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    Failure::Defect(Defect::TooLarge(limit))
                } else {
                    Failure::Outage(Outage::ConnectionLost)
                }
            })?;
            let body = decode(&head.headers, body.to_bytes(), limit).map_err(Failure::Defect)?;
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        let timeout = |_| Err(Failure::Outage(Outage::Timeout(REQUEST_DEADLINE)));
        let answer = tokio::time::timeout(REQUEST_DEADLINE, exchange).await.unwrap_or_else(timeout);
        answer.map_err(|failure| failure.at(host_of_uri(&uri)))
    }

    /// Connects to an https URL's host, and no more: a [`Self::recording`] client then has its
    /// certificates.
    pub(super) async fn connect(&self, url: &Url) -> Result<(), CallError> {
        let connected = tokio::time::timeout(REQUEST_DEADLINE, self.connect_to(url)).await;
        let timeout = || Err(Failure::Outage(Outage::Timeout(REQUEST_DEADLINE)));
        connected.unwrap_or_else(|_| timeout()).map_err(|failure| failure.at(host_of(url)))
    }

    async fn connect_to(&self, url: &Url) -> Result<(), Failure> {
        let uri: Uri = url.as_str().parse().map_err(|_| Failure::Defect(Defect::Url))?;
        let mut connector = self.connector.clone();
        let stream = connector.call(uri).await.map_err(|error| failure(error.as_ref(), true))?;
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|_| Failure::Defect(Defect::Url))?;
        let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream.into_inner());
        tls.await.map_err(|error| failure(&error, true))?;
        Ok(())
    }
}

/// An empty pool of connections.
#[expect(clippy::disallowed_methods, reason = "this is the one HTTP client")]
fn pool(
    connector: &GuardedConnector,
    tls: &ClientConfig,
    allow_insecure: bool,
) -> Client<HttpsConnector<GuardedConnector>, Full<Bytes>> {
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls.clone());
    let builder = if allow_insecure { builder.https_or_http() } else { builder.https_only() };
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(32)
        // RFC 9112 5.1 and 5.2: a client replaces or drops what is obsolete in headers. Only a
        // server or proxy has to refuse it.
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_allow_spaces_after_header_name_in_responses(true)
        .http1_max_headers(MAX_HEADERS)
        .http1_max_buf_size(MAX_HEADER_BYTES)
        .build(builder.enable_http1().wrap_connector(connector.clone()))
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// A [`CallError`] before its host is known, so that a call that succeeds allocates no host name.
enum Failure {
    Forbidden(&'static str),
    OutOfResources(&'static str),
    Outage(Outage),
    Defect(Defect),
}

impl Failure {
    fn at(self, host: String) -> CallError {
        match self {
            Self::Forbidden(kind) => CallError::AddressForbidden { host, kind },
            Self::OutOfResources(resource) => CallError::OutOfResources { host, resource },
            Self::Outage(outage) => CallError::Unavailable { host, outage },
            Self::Defect(defect) => CallError::Unusable { host, defect },
        }
    }
}

/// Refuses the statuses after which no body is worth reading.
fn check_status(status: StatusCode, headers: &HeaderMap) -> Result<(), Failure> {
    if status.is_redirection() {
        let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.and_then(|text| Url::parse(text).ok());
        let target = location.map_or_else(|| "the same host".to_owned(), |url| host_of(&url));
        return Err(Failure::Defect(Defect::Redirect { status: status.as_u16(), target }));
    }
    match status {
        StatusCode::TOO_MANY_REQUESTS => {
            Err(Failure::Outage(Outage::TooManyRequests(retry_after(headers))))
        }
        _ if status.is_server_error() => Err(Failure::Outage(Outage::ServerError(status.as_u16()))),
        _ => Ok(()),
    }
}

/// RFC 9110 10.2.3: seconds, or a date, which is compared with the answer's own.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let date = |text| httpdate::parse_http_date(text).ok();
    let value = text(RETRY_AFTER)?.trim();
    let wait = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => date(value)?.duration_since(date(text(DATE)?)?).ok()?,
    };
    Some(wait.clamp(SHORTEST_RETRY_AFTER, LONGEST_RETRY_AFTER))
}

/// Some servers compress although they are asked not to. The decompressed body is bounded too.
fn decode(headers: &HeaderMap, body: Bytes, limit: usize) -> Result<Bytes, Defect> {
    let codings: Vec<_> = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .map(|coding| coding.to_str().unwrap_or_default())
        .collect();
    match codings.as_slice() {
        [] | ["identity"] => Ok(body),
        ["gzip" | "x-gzip"] => {
            let mut out = Vec::new();
            let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
            let mut decoder = GzDecoder::new(body.as_ref()).take(bound);
            decoder.read_to_end(&mut out).map_err(|_| Defect::Encoding)?;
            if out.len() > limit { Err(Defect::TooLarge(limit)) } else { Ok(out.into()) }
        }
        _ => Err(Defect::Encoding),
    }
}

/// The host of a URL, for messages.
pub(super) fn host_of(url: &Url) -> String {
    url.host_str().map_or_else(|| UNKNOWN_HOST.to_owned(), quotable)
}

fn host_of_uri(uri: &Uri) -> String {
    uri.host().map_or_else(|| UNKNOWN_HOST.to_owned(), quotable)
}

/// Looks for an error of type `E` in `error` and below it.
pub(super) fn find<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    error.downcast_ref::<E>().or_else(|| below(error).and_then(find))
}

fn below<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    // An I/O error's `source` leaves out the error that it wraps.
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    match wrapped {
        Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
        None => error.source(),
    }
}

/// What of ours is used up, if that is what an I/O error in `error` or below it says.
pub(super) fn resource_used_up(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let code = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    match code {
        Some(ENFILE | EMFILE) => Some("file descriptors"),
        // No local port is left for the IdP's address; addresses that this machine can't reach at all
        // are left out before they are dialled.
        Some(EADDRNOTAVAIL) => Some("local ports"),
        Some(ENOMEM | ENOBUFS) => Some("memory for sockets"),
        Some(_) | None => below(error).and_then(resource_used_up),
    }
}

/// What really happened, below the client's own errors.
fn failure(error: &(dyn Error + 'static), is_connecting: bool) -> Failure {
    if let Some(Forbidden(kind)) = find::<Forbidden>(error) {
        return Failure::Forbidden(kind);
    }
    if let Some(resource) = resource_used_up(error) {
        return Failure::OutOfResources(resource);
    }
    let is_timeout = || find::<tokio::time::error::Elapsed>(error).is_some();
    Failure::Outage(if find::<ProxyUnreachable>(error).is_some() {
        Outage::Proxy(ProxyError::Unreachable)
    } else if let Some(error) = find::<ProxyError>(error) {
        Outage::Proxy(*error)
    } else if let Some(unresolved) = find::<Unresolved>(error) {
        match unresolved {
            Unresolved::NoAddress => Outage::Dns,
            Unresolved::NoAnswer => Outage::DnsNoAnswer,
            Unresolved::OutOfResources(resource) => return Failure::OutOfResources(resource),
        }
    } else if let Some(error) = find::<rustls::Error>(error) {
        tls::outage(error)
    } else if is_connecting && is_timeout() {
        Outage::ConnectTimeout(CONNECT_TIMEOUT)
    } else if is_connecting {
        Outage::Connect
    } else {
        Outage::ConnectionLost
    })
}

/// One request, from the connection attempt to the last byte of the body.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Shorter than servers keep idle connections, so that no code is sent into a closing one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// What an IdP may ask for by Retry-After.
const SHORTEST_RETRY_AFTER: Duration = Duration::from_secs(1);
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);
/// Linux's error numbers.
const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const EADDRNOTAVAIL: i32 = 99;
const ENOBUFS: i32 = 105;
const MAX_HEADERS: usize = 100;
const MAX_HEADER_BYTES: usize = 64 * 1024;
const USER_AGENT_TEXT: &str = concat!("peerpanda-sso/", env!("CARGO_PKG_VERSION"));
const UNKNOWN_HOST: &str = "the IdP";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_failures_are_told_apart_by_what_is_wrapped() {
        let outage = |error: &io::Error, is_connecting| match failure(error, is_connecting) {
            Failure::Outage(outage) => outage,
            Failure::Forbidden(kind) => panic!("{kind}"),
            Failure::Defect(defect) => panic!("{defect}"),
            Failure::OutOfResources(resource) => panic!("{resource}"),
        };
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(outage(&refused, true), Outage::Connect);
        assert_eq!(outage(&refused, false), Outage::ConnectionLost);
        for (unresolved, expected) in
            [(Unresolved::NoAddress, Outage::Dns), (Unresolved::NoAnswer, Outage::DnsNoAnswer)]
        {
            assert_eq!(outage(&io::Error::other(unresolved), true), expected);
        }
        // As hyper-rustls wraps what rustls reports.
        let expired = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        let expired = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, expired));
        assert_eq!(outage(&expired, true), Outage::CertificateExpired(None));
        let forbidden = io::Error::other(Forbidden("loopback"));
        assert!(matches!(failure(&forbidden, true), Failure::Forbidden("loopback")));
    }

    #[test]
    fn what_this_machine_lacks_is_not_the_idps_fault() {
        for (code, expected) in [
            (23, Some("file descriptors")),
            (24, Some("file descriptors")),
            (99, Some("local ports")),
            (12, Some("memory for sockets")),
            (105, Some("memory for sockets")),
            // ECONNREFUSED and EHOSTUNREACH.
            (111, None),
            (113, None),
        ] {
            let error = io::Error::other(io::Error::from_raw_os_error(code));
            let resource = match failure(&error, true) {
                Failure::OutOfResources(resource) => Some(resource),
                Failure::Forbidden(_) | Failure::Outage(_) | Failure::Defect(_) => None,
            };
            assert_eq!(resource, expected, "{code}");
        }
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_bounded() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (value, expected) in [
            (Some("30"), Some(30)),
            (Some("0"), Some(1)),
            (Some("86400"), Some(3600)),
            (Some("Sun, 06 Nov 1994 08:51:37 GMT"), Some(120)),
            (Some("Sun, 06 Nov 1994 08:00:00 GMT"), None),
            (Some("-1"), None),
            (Some("soon"), None),
            (None, None),
        ] {
            let mut headers = HeaderMap::from_iter([(DATE, HeaderValue::from_static(date))]);
            if let Some(value) = value {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
            }
            assert_eq!(retry_after(&headers), expected.map(Duration::from_secs), "{value:?}");
        }
    }

    #[test]
    fn bodies_are_decoded_within_the_limit() {
        let headers = |coding: &'static str| {
            HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static(coding))])
        };
        let body = Bytes::from_static(b"{}");
        assert_eq!(decode(&HeaderMap::new(), body.clone(), 2), Ok(body.clone()));
        assert_eq!(decode(&headers("br"), body.clone(), 2), Err(Defect::Encoding));
        assert_eq!(decode(&headers("gzip"), body, 2), Err(Defect::Encoding));
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut encoder, &[b'x'; 100]).expect("written");
        let bomb = Bytes::from(encoder.finish().expect("compressed"));
        assert_eq!(decode(&headers("gzip"), bomb.clone(), 99), Err(Defect::TooLarge(99)));
        assert_eq!(decode(&headers("gzip"), bomb, 100).expect("fits").len(), 100);
    }
}
