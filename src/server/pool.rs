//! The open connections of one listener, bounded in all and per network. A new connection that finds no
//! room takes the place of one on which no known caller has called: so strangers displace each other,
//! and never a known caller.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustls::ServerConfig;

use super::by_network::ByNetwork;
use super::peer::Peer;
use crate::clock::Clock;
use crate::model::limits::ListenerLimits;
use crate::telemetry::{Closed, Listener, connection_closed, connections_open};

/// The connections of one listener.
pub(super) struct Pool {
    listener: Listener,
    pub(super) limits: ListenerLimits,
    clock: Arc<dyn Clock>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// By age.
    connections: BTreeMap<u64, Arc<Peer>>,
    /// Those on which no known caller has called.
    unknown: ByNetwork<()>,
}

/// A connection's place in the pool; free again when it is dropped.
pub(super) struct Place {
    id: u64,
    pub(super) peer: Arc<Peer>,
    pool: Weak<Pool>,
}

impl Pool {
    pub(super) fn new(listener: Listener, limits: ListenerLimits, clock: Arc<dyn Clock>) -> Self {
        Self { listener, limits, clock, open: Mutex::default() }
    }

    /// A place for a new connection; `None`: every place is taken by a known caller that uses it.
    pub(super) fn admit(
        self: &Arc<Self>,
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
    ) -> Option<Place> {
        let peer = Arc::new(Peer::new(address, tls, Arc::clone(&self.clock)));
        let network = peer.network();
        let mut open = self.lock();
        if open.unknown.len_of(network) >= self.limits.unknown_per_network {
            self.displace(&mut open, network);
        } else if open.unknown.len() >= self.limits.unknown
            || open.connections.len() >= self.limits.connections
        {
            match open.unknown.largest() {
                Some(network) => self.displace(&mut open, network),
                None => self.displace_idle_caller(&mut open)?,
            }
        }
        let id = open.unknown.insert(network, ());
        open.connections.insert(id, Arc::clone(&peer));
        connections_open(self.listener, open.connections.len());
        Some(Place { id, peer, pool: Arc::downgrade(self) })
    }

    /// Closes the oldest connection of this network on which no known caller has called.
    fn displace(&self, open: &mut Open, network: IpAddr) {
        let oldest = open.unknown.remove_oldest(network);
        if let Some(peer) = oldest.and_then(|(id, ())| open.remove(id)) {
            peer.close();
            connection_closed(self.listener, Closed::Displaced);
        }
    }

    /// Closes the connection of a known caller that has been without a call for the longest time.
    fn displace_idle_caller(&self, open: &mut Open) -> Option<()> {
        let idle = open.connections.iter().map(|(id, peer)| (peer.idle_for(), *id));
        let (idle_for, id) = idle.max()?;
        if idle_for < self.limits.known_idle {
            connection_closed(self.listener, Closed::Refused);
            return None;
        }
        open.remove(id)?.close();
        connection_closed(self.listener, Closed::Displaced);
        Some(())
    }

    /// Closes connections that are idle without a known caller, and retires those whose TLS
    /// configuration was replaced or whose client certificate has expired.
    pub(super) fn sweep(&self, tls: Option<&Arc<ServerConfig>>) {
        let now = self.clock.unix_seconds();
        for peer in self.lock().connections.values() {
            let is_outdated = match (peer.tls(), tls) {
                (Some(used), Some(current)) => !Arc::ptr_eq(used, current),
                _ => false,
            };
            let has_expired =
                peer.certificate().is_some_and(|certificate| certificate.has_expired(now));
            if is_outdated || has_expired {
                peer.retire();
            }
            if !peer.is_known() && peer.idle_for() >= self.limits.unknown_idle {
                connection_closed(self.listener, Closed::Idle);
                peer.close();
            }
        }
    }

    /// Whether a new connection finds a place.
    pub(super) fn has_room(&self) -> bool {
        let open = self.lock();
        open.connections.len() < self.limits.connections
            || open.unknown.len() > 0
            || open.connections.values().any(|peer| peer.idle_for() >= self.limits.known_idle)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn remove(&mut self, id: u64) -> Option<Arc<Peer>> {
        let peer = self.connections.remove(&id)?;
        self.unknown.remove(peer.network(), id);
        Some(peer)
    }
}

impl Place {
    /// The connection has not said what it wants in time.
    pub(super) fn count_late_handshake(&self) {
        if let Some(pool) = self.pool.upgrade() {
            connection_closed(pool.listener, Closed::HandshakeTimeout);
        }
    }

    /// A known caller has called on this connection.
    pub(super) fn set_known(&self) {
        if self.peer.set_known()
            && let Some(pool) = self.pool.upgrade()
        {
            pool.lock().unknown.remove(self.peer.network(), self.id);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            let mut open = pool.lock();
            open.remove(self.id);
            connections_open(pool.listener, open.connections.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;

    fn pool(clock: &Arc<ManualClock>) -> Arc<Pool> {
        let limits = ListenerLimits {
            connections: 4,
            unknown: 3,
            unknown_per_network: 2,
            ..ListenerLimits::default()
        };
        Arc::new(Pool::new(Listener::Login, limits, Arc::clone(clock) as Arc<dyn Clock>))
    }

    fn admit(pool: &Arc<Pool>, network: u8) -> Option<Place> {
        pool.admit(SocketAddr::from(([192, 0, 2, network], 1)), None)
    }

    #[test]
    fn strangers_displace_each_other_first_within_their_network() {
        let clock = Arc::new(ManualClock::starting_now());
        let pool = pool(&clock);
        let other = admit(&pool, 2).expect("a place");
        let places: Vec<_> = (0..3).map(|_| admit(&pool, 1).expect("a place")).collect();
        let closed = |place: &Place| place.peer.closed().is_cancelled();
        assert_eq!(places.iter().map(closed).collect::<Vec<_>>(), [true, false, false]);
        assert!(!closed(&other));
        let third = admit(&pool, 3).expect("a place");
        assert!(closed(&places[1]), "the largest network gives way");
        assert!(!closed(&other) && !closed(&third));
    }

    #[test]
    fn strangers_never_displace_a_known_caller() {
        let clock = Arc::new(ManualClock::starting_now());
        let pool = pool(&clock);
        let callers: Vec<_> = (0..3).map(|n| admit(&pool, n).expect("a place")).collect();
        callers.iter().for_each(Place::set_known);
        let strangers: Vec<_> = (3..30).map(|network| admit(&pool, network)).collect();
        assert!(strangers.iter().all(Option::is_some), "a newcomer may always try");
        assert!(callers.iter().all(|caller| !caller.peer.closed().is_cancelled()));
    }

    #[test]
    fn a_full_pool_of_callers_closes_only_idle_ones() {
        let clock = Arc::new(ManualClock::starting_now());
        let pool = pool(&clock);
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let place = admit(&pool, 1).expect("a place");
                place.set_known();
                place
            })
            .collect();
        assert!(!pool.has_room() && admit(&pool, 2).is_none());
        let busy = callers[0].peer.begin_call(true);
        clock.advance(Duration::from_secs(60));
        assert!(pool.has_room() && admit(&pool, 2).is_some());
        assert!(!callers[0].peer.closed().is_cancelled(), "the one that is in use stays");
        drop((busy, callers));
        assert!(pool.lock().connections.is_empty() && pool.lock().unknown.largest().is_none());
    }

    #[test]
    fn an_idle_stranger_is_closed() {
        let clock = Arc::new(ManualClock::starting_now());
        let pool = pool(&clock);
        let (idle, known, watching) = (admit(&pool, 1), admit(&pool, 2), admit(&pool, 3));
        let (idle, known, watching) = (idle.expect("a"), known.expect("b"), watching.expect("c"));
        known.set_known();
        let watch = watching.peer.begin_call(false);
        clock.advance(Duration::from_secs(60));
        pool.sweep(None);
        assert!(idle.peer.closed().is_cancelled());
        assert!(!known.peer.closed().is_cancelled() && !watching.peer.closed().is_cancelled());
        drop(watch);
    }
}
