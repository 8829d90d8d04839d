//! The address guard: a connector that dials only what [`AddressPolicy`] allows. It sees each
//! socket address just before it is dialled, so a name that resolves differently the second time
//! gains nothing. With a proxy, which resolves names itself, it sees only what is written in URLs.
//! Used by [`super::http`] alone; no call to an IdP may go around it.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tower_service::Service;

use super::dns::{NameResolver, Unresolved, reachable};
use super::error::ProxyError;
use super::proxy::Proxy;
use crate::model::address::{AddressPolicy, LOOPBACK, is_localhost};

/// The guard's refusal, wrapped in the client's errors on its way up.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a {0} address")]
pub(super) struct Forbidden(pub(super) &'static str);

/// The proxy can't be reached.
#[derive(Debug, thiserror::Error)]
#[error("the proxy can't be reached")]
pub(super) struct ProxyUnreachable(#[source] BoxError);

/// Checks names when they are resolved, and literal addresses before they are dialled.
#[derive(Clone)]
pub(super) struct GuardedConnector {
    inner: HttpConnector<GuardedResolver>,
    addresses: Arc<AddressPolicy>,
    proxy: Option<Arc<Proxy>>,
}

impl GuardedConnector {
    pub(super) fn new(
        addresses: Arc<AddressPolicy>,
        names: NameResolver,
        proxy: Option<Proxy>,
    ) -> Self {
        Self::with_lookup(addresses, proxy, move |name| {
            let names = names.clone();
            Box::pin(async move {
                let addresses = names.addresses(name.as_str()).await?;
                Ok(addresses.iter().map(|address| SocketAddr::new(*address, 0)).collect())
            })
        })
    }

    fn with_lookup(
        addresses: Arc<AddressPolicy>,
        proxy: Option<Proxy>,
        lookup: impl Fn(Name) -> Resolving + Send + Sync + 'static,
    ) -> Self {
        // The operator's own proxy may have any address.
        let any = AddressPolicy { allow_insecure: true, ..AddressPolicy::default() };
        let dialled = if proxy.is_some() { Arc::new(any) } else { Arc::clone(&addresses) };
        let resolver = GuardedResolver { addresses: dialled, lookup: Arc::new(lookup) };
        let mut inner = HttpConnector::new_with_resolver(resolver);
        inner.enforce_http(false);
        inner.set_nodelay(true);
        inner.set_connect_timeout(Some(CONNECT_TIMEOUT));
        Self { inner, addresses, proxy: proxy.map(Arc::new) }
    }

    /// The kind of a host that is forbidden as written.
    fn forbidden(&self, host: &str) -> Option<&'static str> {
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        match (literal, &self.proxy) {
            // A resolver never sees an address that is written in the URL.
            (Ok(literal), _) => self.addresses.forbidden(literal),
            // Nor does it see a name that the proxy resolves.
            (Err(_), Some(_)) => self.addresses.forbidden_name(host),
            (Err(_), None) => None,
        }
    }
}

/// A connection to the IdP, through the proxy.
async fn tunnel(proxy: &Proxy, connecting: Connecting, uri: &Uri) -> Result<Connected, BoxError> {
    let unreachable = |error: <HttpConnector<GuardedResolver> as Service<Uri>>::Error| {
        ProxyUnreachable(error.into())
    };
    let mut stream = connecting.await.map_err(unreachable)?.into_inner();
    let is_https = uri.scheme() == Some(&Scheme::HTTPS);
    let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    let host = uri.host().unwrap_or_default();
    let opened = timeout(CONNECT_TIMEOUT, proxy.tunnel(&mut stream, host, port)).await?;
    opened.map_err(|error: ProxyError| BoxError::from(error))?;
    Ok(TokioIo::new(stream))
}

type Connecting = <HttpConnector<GuardedResolver> as Service<Uri>>::Future;
type Connected = <HttpConnector<GuardedResolver> as Service<Uri>>::Response;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for GuardedConnector {
    type Response = <HttpConnector<GuardedResolver> as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        if let Some(kind) = self.forbidden(uri.host().unwrap_or_default()) {
            return Box::pin(async move { Err(Forbidden(kind).into()) });
        }
        let Some(proxy) = self.proxy.clone() else {
            let connecting = self.inner.call(uri);
            return Box::pin(async move { connecting.await.map_err(Into::into) });
        };
        let connecting = self.inner.call(proxy.uri.clone());
        Box::pin(async move { tunnel(&proxy, connecting, &uri).await })
    }
}

#[derive(Clone)]
pub(super) struct GuardedResolver {
    addresses: Arc<AddressPolicy>,
    lookup: Lookup,
}

type Resolving = Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, Unresolved>> + Send>>;

/// Resolves a name to all its addresses.
type Lookup = Arc<dyn Fn(Name) -> Resolving + Send + Sync>;

impl Service<Name> for GuardedResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let addresses = Arc::clone(&self.addresses);
        if is_localhost(name.as_str()) {
            return Box::pin(std::future::ready(loopback(&addresses)));
        }
        let lookup = (self.lookup)(name);
        Box::pin(async move {
            let resolved = lookup.await.map_err(io::Error::other)?;
            // A name with both public and private addresses is an attack: none of them is dialled.
            match resolved.iter().find_map(|addr| addresses.forbidden(addr.ip())) {
                Some(kind) => Err(io::Error::other(Forbidden(kind))),
                None if resolved.is_empty() => Err(io::Error::other(Unresolved::NoAddress)),
                None => Ok(resolved.into_iter()),
            }
        })
    }
}

/// The allowed addresses of `localhost`. Nobody is asked for them, so a forbidden one among them does
/// not mean an attack.
fn loopback(policy: &AddressPolicy) -> io::Result<std::vec::IntoIter<SocketAddr>> {
    let allowed = LOOPBACK.into_iter().filter(|address| policy.forbidden(*address).is_none());
    let allowed = reachable(allowed.collect()).into_iter();
    let allowed: Vec<_> = allowed.map(|address| SocketAddr::new(address, 0)).collect();
    if allowed.is_empty() {
        return Err(io::Error::other(Forbidden("loopback")));
    }
    Ok(allowed.into_iter())
}

/// All addresses of a name together.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::http::find;
    use super::*;

    /// DNS rebinding: the first answer is an allowed address (127.0.0.2 here), the second is
    /// private.
    fn rebinding(_name: Name) -> Resolving {
        static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
        let last = if LOOKUPS.fetch_add(1, Ordering::Relaxed) == 0 { 2 } else { 1 };
        Box::pin(async move { Ok(vec![SocketAddr::from(([127, 0, 0, last], 0))]) })
    }

    fn allowed_and_private(_name: Name) -> Resolving {
        Box::pin(async { Ok([2, 1].map(|last| SocketAddr::from(([127, 0, 0, last], 0))).to_vec()) })
    }

    fn nowhere(_name: Name) -> Resolving {
        Box::pin(async { Err(Unresolved::NoAddress) })
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_the_second_time_is_not_dialled() {
        let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let uri: Uri = format!("https://idp.example:{port}/").parse().expect("a URI");
        let policy = Arc::new(AddressPolicy {
            allowed_networks: vec!["127.0.0.2/32".parse().expect("a network")],
            ..AddressPolicy::default()
        });
        let connector = |lookup: fn(Name) -> Resolving| {
            GuardedConnector::with_lookup(Arc::clone(&policy), None, lookup)
        };
        let mut rebound = connector(rebinding);
        assert!(rebound.call(uri.clone()).await.is_ok(), "the allowed address is dialled");
        let error = rebound.call(uri.clone()).await.expect_err("private the second time");
        assert!(find::<Forbidden>(error.as_ref()).is_some(), "{error:?}");
        let error = connector(allowed_and_private).call(uri.clone()).await.expect_err("both");
        assert!(find::<Forbidden>(error.as_ref()).is_some(), "{error:?}");
        let error = connector(nowhere).call(uri).await.expect_err("no address");
        assert!(find::<Unresolved>(error.as_ref()).is_some(), "{error:?}");
    }

    #[tokio::test]
    async fn localhost_is_dialled_only_where_a_loopback_address_is_allowed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let uri: Uri = format!("https://localhost:{port}/").parse().expect("a URI");
        for (networks, is_allowed) in [(vec![], false), (vec!["127.0.0.0/8"], true)] {
            let allowed_networks =
                networks.into_iter().map(|network| network.parse().expect("a network")).collect();
            let policy = AddressPolicy { allowed_networks, ..AddressPolicy::default() };
            let mut connector = GuardedConnector::with_lookup(Arc::new(policy), None, nowhere);
            let dialled = connector.call(uri.clone()).await;
            assert_eq!(dialled.is_ok(), is_allowed);
            if let Err(error) = dialled {
                assert!(find::<Forbidden>(error.as_ref()).is_some(), "{error:?}");
            }
        }
    }

    #[tokio::test]
    async fn with_a_proxy_hosts_are_still_judged_as_written() {
        let policy = Arc::new(AddressPolicy::default());
        let proxy = Proxy::parse("http://127.0.0.1:1").expect("a proxy");
        let mut connector = GuardedConnector::with_lookup(policy, Some(proxy), nowhere);
        for (host, is_forbidden) in [
            ("10.1.2.3", true),
            ("[::1]", true),
            ("localhost", true),
            ("metadata.google.internal", true),
            ("idp.example", false),
            ("8.8.8.8", false),
        ] {
            let uri: Uri = format!("https://{host}/").parse().expect("a URI");
            let error = connector.call(uri).await.expect_err("no proxy is there");
            let is_refused = find::<Forbidden>(error.as_ref()).is_some();
            assert_eq!(is_refused, is_forbidden, "{host}: {error:?}");
            assert_ne!(is_refused, find::<ProxyUnreachable>(error.as_ref()).is_some(), "{host}");
        }
    }
}
