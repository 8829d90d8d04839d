//! The one HTTP client that calls IdPs: https only, addresses of the public internet only, no redirects, no proxy,
//! bounded bodies and deadlines. The address guard is the connector: it sees each socket address before it
//! is dialled, so a name that resolves differently the second time gains nothing.

use std::fmt;
use std::future::Future;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use flate2::read::GzDecoder;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, LOCATION, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;
use tower_service::Service;
use url::Url;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::error::CallError;
use crate::model::address::AddressPolicy;
use crate::model::text::quotable;
use crate::telemetry::traces;

/// Which IdPs may be called.
#[derive(Clone, Debug, Default)]
pub struct CallPolicy {
    /// Which addresses; https alone unless it says otherwise. TLS is verified in any case.
    pub addresses: AddressPolicy,
    /// CAs to trust beside those of the operating system.
    pub extra_cas: Vec<CertificateDer<'static>>,
    /// Whether IdPs are told in which trace a call is.
    pub propagate_trace_context: bool,
}

/// The client; cheap to clone.
#[derive(Clone)]
pub struct HttpClient {
    inner: Client<HttpsConnector<GuardedConnector>, Full<Bytes>>,
    pub(super) addresses: Arc<AddressPolicy>,
    propagate_trace_context: bool,
    /// For whoever wants a connection of its own.
    connector: GuardedConnector,
    tls: Arc<ClientConfig>,
}

/// An answer whose body was read whole.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// How long it may be used, by `Cache-Control` (RFC 9111 5.2.2); `None`: it doesn't say.
    pub(super) fn max_age(&self) -> Option<Duration> {
        let values =
            self.headers.get_all(CACHE_CONTROL).into_iter().filter_map(|value| value.to_str().ok());
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

    /// The media type, in lower case and without parameters.
    pub(super) fn media_type(&self) -> String {
        let value = self
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }
}

impl HttpClient {
    /// Reads the operating system's CAs.
    ///
    /// # Errors
    /// One of the extra CAs is no certificate, or there is no CA at all.
    #[expect(clippy::disallowed_methods, reason = "this is the one HTTP client")]
    pub fn new(policy: &CallPolicy) -> Result<Self, String> {
        let mut roots = rustls::RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        let (found, _) = roots.add_parsable_certificates(native.certs);
        for ca in &policy.extra_cas {
            roots.add(ca.clone()).map_err(|error| format!("a CA can't be used: {error}"))?;
        }
        if roots.is_empty() && !policy.addresses.allow_insecure {
            return Err(
                "the operating system has no CA certificates: install ca-certificates".to_owned()
            );
        }
        tracing::debug!(found, extra = policy.extra_cas.len(), "CA certificates read");
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
        let addresses = Arc::new(policy.addresses.clone());
        let guarded = GuardedConnector::new(Arc::clone(&addresses), system_lookup);
        let connector = guarded.clone();
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls.clone());
        let builder =
            if addresses.allow_insecure { builder.https_or_http() } else { builder.https_only() };
        let inner = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(32)
            .http1_max_headers(MAX_HEADERS)
            .http1_max_buf_size(MAX_HEADER_BYTES)
            .build(builder.enable_http1().wrap_connector(guarded));
        Ok(Self {
            inner,
            addresses,
            propagate_trace_context: policy.propagate_trace_context,
            connector,
            tls: Arc::new(tls),
        })
    }

    /// Where IdPs may be.
    #[must_use]
    pub fn addresses(&self) -> &AddressPolicy {
        &self.addresses
    }

    /// Fetches a document.
    pub(super) async fn get(
        &self,
        url: &Url,
        accept: &'static str,
        limit: usize,
    ) -> Result<Answer, CallError> {
        let request = Request::get(url.as_str())
            .header(http::header::ACCEPT, accept)
            .body(Bytes::new())
            .map_err(|error| CallError::Unusable {
                host: host_of(url.as_str()),
                detail: error.to_string(),
            })?;
        self.send(request, limit).await
    }

    /// Sends a request and reads the answer's body, at most `limit` bytes of it, all within [`REQUEST_DEADLINE`].
    /// Server errors and too many requests (429) are [`CallError::Unavailable`]; every other status is the caller's.
    pub(super) async fn send(
        &self,
        request: Request<Bytes>,
        limit: usize,
    ) -> Result<Answer, CallError> {
        self.send_and_read(request, limit, true).await
    }

    /// The same, with every status the caller's own: for whoever wants to see a redirect, and does not follow it blindly.
    pub(super) async fn send_raw(
        &self,
        request: Request<Bytes>,
        limit: usize,
    ) -> Result<Answer, CallError> {
        self.send_and_read(request, limit, false).await
    }

    async fn send_and_read(
        &self,
        mut request: Request<Bytes>,
        limit: usize,
        is_strict: bool,
    ) -> Result<Answer, CallError> {
        let host = host_of(&request.uri().to_string());
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_TEXT));
        if self.propagate_trace_context {
            traces::give(request.headers_mut());
        }
        match tokio::time::timeout(
            REQUEST_DEADLINE,
            self.exchange(request.map(Full::new), &host, limit, is_strict),
        )
        .await
        {
            Ok(answer) => answer,
            Err(_) => Err(CallError::Unavailable {
                host,
                detail: format!("no whole answer within {REQUEST_DEADLINE:?}"),
            }),
        }
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        host: &str,
        limit: usize,
        is_strict: bool,
    ) -> Result<Answer, CallError> {
        let unusable = |detail: String| CallError::Unusable { host: host.to_owned(), detail };
        let unavailable = |detail: String| CallError::Unavailable { host: host.to_owned(), detail };
        let response =
            self.inner.request(request).await.map_err(|error| call_error(host, &error))?;
        let (head, body) = response.into_parts();
        if is_strict && head.status.is_redirection() {
            let location = head
                .headers
                .get(LOCATION)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            let target = Url::parse(location).ok().and_then(|url| url.host_str().map(quotable));
            let target = target.unwrap_or_else(|| "the same host".to_owned());
            return Err(unusable(format!(
                "HTTP {} to {target}; redirects are not followed",
                head.status.as_u16()
            )));
        }
        if is_strict
            && (head.status.is_server_error() || head.status == StatusCode::TOO_MANY_REQUESTS)
        {
            return Err(unavailable(format!("HTTP {}", head.status.as_u16())));
        }
        let body = Limited::new(body, limit).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                unusable(format!("a body of more than {limit} bytes"))
            } else {
                unavailable("the connection broke within the body".to_owned())
            }
        })?;
        let body = decoded(&head.headers, body.to_bytes(), limit).map_err(unusable)?;
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

impl HttpClient {
    /// When the certificate of an https URL's host expires, in seconds since the Unix epoch, by a connection of its own.
    pub(super) async fn certificate_expiry(&self, url: &Url) -> Result<i64, CallError> {
        let host = host_of(url.as_str());
        let unavailable = |detail: String| CallError::Unavailable { host: host.clone(), detail };
        let looked = async {
            let uri: Uri = url.as_str().parse().map_err(|_| unavailable("no URI".to_owned()))?;
            let mut connector = self.connector.clone();
            let stream =
                connector.call(uri).await.map_err(|error| match forbidden_in(error.as_ref()) {
                    Some(Forbidden(kind)) => {
                        CallError::AddressForbidden { host: host.clone(), kind }
                    }
                    None => unavailable(quotable(&error.to_string())),
                })?;
            let name = url
                .host_str()
                .unwrap_or_default()
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned();
            let name =
                ServerName::try_from(name).map_err(|_| unavailable("no host name".to_owned()))?;
            let tls =
                TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream.into_inner()).await;
            let tls = tls.map_err(|error| unavailable(quotable(&error.to_string())))?;
            let leaf = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let leaf = leaf.and_then(|leaf| X509Certificate::from_der(leaf).ok());
            leaf.map(|(_, leaf)| leaf.validity().not_after.timestamp())
                .ok_or_else(|| unavailable("no certificate".to_owned()))
        };
        let too_slow = || unavailable(format!("no TLS within {REQUEST_DEADLINE:?}"));
        tokio::time::timeout(REQUEST_DEADLINE, looked).await.unwrap_or_else(|_| Err(too_slow()))
    }
}

/// Some servers compress unasked. What comes out is bounded like what comes in.
fn decoded(headers: &HeaderMap, body: Bytes, limit: usize) -> Result<Bytes, String> {
    let codings: Vec<_> = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .map(|coding| coding.to_str().unwrap_or_default())
        .collect();
    match codings.as_slice() {
        [] | ["identity"] => Ok(body),
        ["gzip" | "x-gzip"] => {
            let mut out = Vec::new();
            let mut decoder = GzDecoder::new(body.as_ref())
                .take(u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1));
            decoder
                .read_to_end(&mut out)
                .map_err(|_| "a body that is not the gzip that it claims to be".to_owned())?;
            if out.len() > limit {
                Err(format!("a body of more than {limit} bytes"))
            } else {
                Ok(out.into())
            }
        }
        _ => Err("a body in a coding that was not asked for".to_owned()),
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// The host of a URL, for messages.
pub(super) fn host_of(url: &str) -> String {
    Url::parse(url)
        .ok()
        .and_then(|url| url.host_str().map(quotable))
        .unwrap_or_else(|| "the IdP".to_owned())
}

/// Finds what really happened below the client's error.
fn call_error(host: &str, error: &ClientError) -> CallError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut innermost = error.to_string();
    while let Some(current) = cause {
        if let Some(Forbidden(kind)) = forbidden_in(current) {
            return CallError::AddressForbidden { host: host.to_owned(), kind };
        }
        innermost = current.to_string();
        cause = current.source();
    }
    CallError::Unavailable { host: host.to_owned(), detail: quotable(&innermost) }
}

fn forbidden_in(error: &(dyn std::error::Error + 'static)) -> Option<Forbidden> {
    if let Some(forbidden) = error.downcast_ref::<Forbidden>() {
        return Some(*forbidden);
    }
    let inner = error.downcast_ref::<std::io::Error>()?.get_ref()?;
    inner.downcast_ref::<Forbidden>().copied()
}

/// The guard's refusal, on its way up through the client's errors.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a {0} address")]
struct Forbidden(&'static str);

/// Dials only addresses that [`AddressPolicy::forbidden`] passes: names by the resolver, literals before they are dialled.
#[derive(Clone)]
struct GuardedConnector {
    inner: HttpConnector<GuardedResolver>,
    addresses: Arc<AddressPolicy>,
}

impl GuardedConnector {
    fn new(addresses: Arc<AddressPolicy>, lookup: Lookup) -> Self {
        let mut inner = HttpConnector::new_with_resolver(GuardedResolver {
            addresses: Arc::clone(&addresses),
            lookup,
        });
        inner.enforce_http(false);
        inner.set_nodelay(true);
        inner.set_connect_timeout(Some(CONNECT_TIMEOUT));
        Self { inner, addresses }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for GuardedConnector {
    type Response = <HttpConnector<GuardedResolver> as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let literal = uri.host().and_then(|host| {
            host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok()
        });
        if let Some(kind) = literal.and_then(|literal| self.addresses.forbidden(literal)) {
            return Box::pin(async move { Err(Forbidden(kind).into()) });
        }
        let connecting = self.inner.call(uri);
        Box::pin(async move { connecting.await.map_err(Into::into) })
    }
}

#[derive(Clone)]
struct GuardedResolver {
    addresses: Arc<AddressPolicy>,
    lookup: Lookup,
}

/// Resolves a name to all its addresses.
type Lookup = fn(Name) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>>;

fn system_lookup(
    name: Name,
) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>> {
    Box::pin(async move { Ok(tokio::net::lookup_host((name.as_str(), 0)).await?.collect()) })
}

impl Service<Name> for GuardedResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let addresses = Arc::clone(&self.addresses);
        let lookup = (self.lookup)(name);
        Box::pin(async move {
            let resolved = lookup.await?;
            // A name that leads inside and outside is somebody's trick: none of its addresses is dialled.
            match resolved.iter().find_map(|addr| addresses.forbidden(addr.ip())) {
                Some(kind) => Err(std::io::Error::other(Forbidden(kind))),
                None => Ok(resolved.into_iter()),
            }
        })
    }
}

/// One request, from the first byte of connecting to the last one of the body, however slowly it drips.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Shorter than what servers keep idle connections for, so that a code isn't sent into one that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_HEADERS: usize = 100;
const MAX_HEADER_BYTES: usize = 64 * 1024;
const USER_AGENT_TEXT: &str = concat!("peerpanda-sso/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// DNS rebinding: outside the first time it is asked (which 127.0.0.2 stands for), inside the second time.
    fn rebinding(
        _name: Name,
    ) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>> {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let last = if ASKED.fetch_add(1, Ordering::Relaxed) == 0 { 2 } else { 1 };
        Box::pin(async move { Ok(vec![SocketAddr::from(([127, 0, 0, last], 0))]) })
    }

    fn both(_name: Name) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>> {
        Box::pin(async { Ok([2, 1].map(|last| SocketAddr::from(([127, 0, 0, last], 0))).to_vec()) })
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_the_second_time_is_not_dialled() {
        let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.expect("a port");
        let uri: Uri =
            format!("https://idp.example:{}/", listener.local_addr().expect("an address").port())
                .parse()
                .expect("a URI");
        let policy = AddressPolicy {
            allowed_networks: vec!["127.0.0.2/32".parse().expect("a network")],
            ..AddressPolicy::default()
        };
        let mut connector = GuardedConnector::new(Arc::new(policy.clone()), rebinding);
        assert!(connector.call(uri.clone()).await.is_ok(), "the allowed address is dialled");
        let error = connector.call(uri.clone()).await.expect_err("inside");
        let refused = |error: &BoxError| {
            std::iter::successors(Some(&**error as &(dyn std::error::Error + 'static)), |error| {
                error.source()
            })
            .any(|error| forbidden_in(error).is_some())
        };
        assert!(refused(&error), "{error:?}");
        let mut connector = GuardedConnector::new(Arc::new(policy), both);
        assert!(refused(&connector.call(uri).await.expect_err("inside and outside")));
    }
}
