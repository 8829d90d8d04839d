//! The other end of a connection: where it is, who it has proven to be, and what it is doing. Shared by
//! the task that serves the connection, the pool that counts it, and its calls.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::Clock;
use crate::model::time::{MonotonicMillis, UnixSeconds};

/// The other end of one connection.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    clock: Arc<dyn Clock>,
    /// Verified by the client CAs; unset: it sent none.
    certificate: Mutex<Option<Arc<ClientCertificate>>>,
    /// The configuration of its TLS handshake.
    tls: Option<Arc<ServerConfig>>,
    has_sent_preface: AtomicBool,
    is_known: AtomicBool,
    /// Calls of known callers, until their last byte is sent.
    calls: AtomicUsize,
    /// Calls without credentials.
    stranger_calls: AtomicUsize,
    /// When the last call ended, or the connection began.
    last_used: AtomicU64,
    cancellations: Mutex<Bucket>,
    /// Ends the connection at once.
    closed: CancellationToken,
    /// Ends the connection once its calls have ended.
    retired: CancellationToken,
}

/// A client certificate, parsed once for all calls of its connection.
pub(super) struct ClientCertificate {
    /// The subject alternative names that identify a program: DNS names and URIs.
    pub(super) names: Vec<String>,
    expires: Option<UnixSeconds>,
}

impl ClientCertificate {
    fn new(leaf: &CertificateDer<'_>) -> Self {
        let Ok((_, parsed)) = X509Certificate::from_der(leaf) else {
            return Self { names: Vec::new(), expires: None };
        };
        let name = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
            _ => None,
        };
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = names.map(|names| names.value.general_names.iter().filter_map(name).collect());
        let expires = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        Self { names: names.unwrap_or_default(), expires: Some(UnixSeconds(expires)) }
    }

    pub(super) fn has_expired(&self, now: UnixSeconds) -> bool {
        self.expires.is_some_and(|expires| expires < now)
    }
}

impl Peer {
    pub(super) fn new(
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let now = clock.monotonic();
        Self {
            address,
            certificate: Mutex::default(),
            tls,
            has_sent_preface: AtomicBool::new(false),
            is_known: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            stranger_calls: AtomicUsize::new(0),
            last_used: AtomicU64::new(now.0),
            cancellations: Mutex::new(Bucket { tokens: STRANGER_BURST, filled_at: now }),
            closed: CancellationToken::new(),
            retired: CancellationToken::new(),
            clock,
        }
    }

    /// The address without what one owner can choose: of IPv6, the first 64 bits.
    pub(super) fn network(&self) -> IpAddr {
        match self.address.ip().to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => {
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
            }
        }
    }

    pub(super) fn set_certificate(&self, leaf: &CertificateDer<'_>) {
        let mut certificate = self.certificate.lock().unwrap_or_else(PoisonError::into_inner);
        *certificate = Some(Arc::new(ClientCertificate::new(leaf)));
    }

    pub(super) fn certificate(&self) -> Option<Arc<ClientCertificate>> {
        self.certificate.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn tls(&self) -> Option<&Arc<ServerConfig>> {
        self.tls.as_ref()
    }

    pub(super) fn set_preface_sent(&self) {
        self.has_sent_preface.store(true, Ordering::Release);
    }

    pub(super) fn has_sent_preface(&self) -> bool {
        self.has_sent_preface.load(Ordering::Acquire)
    }

    /// Whether a known caller has called on this connection.
    pub(super) fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Acquire)
    }

    /// Returns whether that is new.
    pub(super) fn set_known(&self) -> bool {
        let is_new = !self.is_known.swap(true, Ordering::AcqRel);
        if is_new {
            self.cancellations.lock().unwrap_or_else(PoisonError::into_inner).tokens = CALLER_BURST;
        }
        is_new
    }

    /// Counts a call until the result is dropped.
    pub(super) fn begin_call(self: &Arc<Self>, is_caller: bool) -> OpenCall {
        self.counter(is_caller).fetch_add(1, Ordering::AcqRel);
        OpenCall { peer: Arc::clone(self), is_caller }
    }

    fn counter(&self, is_caller: bool) -> &AtomicUsize {
        if is_caller { &self.calls } else { &self.stranger_calls }
    }

    /// Whether a known caller's call is open.
    pub(super) fn has_calls(&self) -> bool {
        self.calls.load(Ordering::Acquire) > 0
    }

    /// How long there has been no call; zero while there is one.
    pub(super) fn idle_for(&self) -> Duration {
        if self.has_calls() || self.stranger_calls.load(Ordering::Acquire) > 0 {
            return Duration::ZERO;
        }
        self.unused_for()
    }

    /// How long ago the last call ended, or the connection began.
    pub(super) fn unused_for(&self) -> Duration {
        let last_used = MonotonicMillis(self.last_used.load(Ordering::Acquire));
        self.clock.monotonic().since(last_used)
    }

    /// Counts a call that its client cancelled. Many at once are legitimate, such as when a client
    /// restarts; a steady stream of them is an attack (CVE-2023-44487) and closes the connection.
    fn count_cancellation(&self) {
        let now = self.clock.monotonic();
        let (burst, per_second) = if self.is_known() {
            (CALLER_BURST, CALLER_RATE)
        } else {
            (STRANGER_BURST, STRANGER_RATE)
        };
        let mut bucket = self.cancellations.lock().unwrap_or_else(PoisonError::into_inner);
        if !bucket.take(now, burst, per_second) {
            tracing::warn!(
                network.peer.address = %self.address.ip(),
                "closed a connection whose client cancels calls without end"
            );
            self.close();
        }
    }

    /// Ends the connection at once.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    /// Ends the connection once its calls have ended.
    pub(super) fn retire(&self) {
        self.retired.cancel();
    }

    pub(super) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    pub(super) fn retired(&self) -> &CancellationToken {
        &self.retired
    }
}

/// A call that isn't finished: its last byte hasn't been sent.
pub(super) struct OpenCall {
    peer: Arc<Peer>,
    is_caller: bool,
}

impl OpenCall {
    /// The client cancelled the call.
    pub(super) fn cancelled(&self) {
        self.peer.count_cancellation();
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.peer.last_used.store(self.peer.clock.monotonic().0, Ordering::Release);
        self.peer.counter(self.is_caller).fetch_sub(1, Ordering::AcqRel);
    }
}

/// A token bucket.
struct Bucket {
    tokens: u64,
    filled_at: MonotonicMillis,
}

impl Bucket {
    fn take(&mut self, now: MonotonicMillis, burst: u64, per_second: u64) -> bool {
        let passed = now.since(self.filled_at).as_secs();
        if passed > 0 {
            self.tokens = self.tokens.saturating_add(passed.saturating_mul(per_second)).min(burst);
            self.filled_at = now;
        }
        let has_token = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        has_token
    }
}

/// Calls that a known caller may cancel at once on one connection: all that it can have open, twice.
const CALLER_BURST: u64 = 1024;
/// And per second in the long run.
const CALLER_RATE: u64 = 100;
/// The same for a connection without a known caller.
const STRANGER_BURST: u64 = 64;
const STRANGER_RATE: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn peer(address: &str, clock: &Arc<ManualClock>) -> Arc<Peer> {
        let address = address.parse().expect("an address");
        Arc::new(Peer::new(address, None, Arc::clone(clock) as Arc<dyn Clock>))
    }

    #[test]
    fn a_network_is_an_ipv4_address_or_half_an_ipv6_address() {
        let clock = Arc::new(ManualClock::starting_now());
        for (address, network) in [
            ("192.0.2.7:1", "192.0.2.7"),
            ("[2001:db8:1:2:3:4:5:6]:1", "2001:db8:1:2::"),
            ("[::ffff:192.0.2.7]:1", "192.0.2.7"),
        ] {
            assert_eq!(peer(address, &clock).network().to_string(), network);
        }
    }

    #[test]
    fn a_burst_of_cancellations_is_allowed_and_a_stream_of_them_is_not() {
        let clock = Arc::new(ManualClock::starting_now());
        let caller = peer("192.0.2.7:1", &clock);
        assert!(caller.set_known() && !caller.set_known());
        let cancel = |count: u64| (0..count).for_each(|_| caller.begin_call(true).cancelled());
        cancel(512);
        assert!(!caller.closed().is_cancelled(), "everything that is open at once");
        clock.advance(Duration::from_secs(10));
        cancel(1000);
        assert!(!caller.closed().is_cancelled(), "and again");
        cancel(1024);
        assert!(caller.closed().is_cancelled());

        let stranger = peer("192.0.2.8:1", &clock);
        (0..=STRANGER_BURST).for_each(|_| stranger.begin_call(false).cancelled());
        assert!(stranger.closed().is_cancelled());
    }

    #[test]
    fn a_connection_is_idle_without_calls() {
        let clock = Arc::new(ManualClock::starting_now());
        let peer = peer("192.0.2.7:1", &clock);
        let call = peer.begin_call(true);
        clock.advance(Duration::from_secs(5));
        assert!(peer.has_calls() && peer.idle_for().is_zero());
        drop(call);
        clock.advance(Duration::from_secs(3));
        assert_eq!(peer.idle_for(), Duration::from_secs(3));
        let watch = peer.begin_call(false);
        assert!(!peer.has_calls() && peer.idle_for().is_zero());
        drop(watch);
    }
}
