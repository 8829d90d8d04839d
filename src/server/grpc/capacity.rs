//! How many calls may be open, by role and caller: a call holds its permit until the last byte of its
//! answer is sent. Each role has permits of its own, so that callers of one role can't starve those of
//! another; where several callers have a role, none gets all of its permits. Calls without credentials
//! (health, reflection) displace each other and take no caller's permit.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::auth::Role;
use crate::server::by_network::ByNetwork;

/// The permits of both listeners.
pub(super) struct Capacity {
    login: Arc<RolePermits>,
    identity: Arc<RolePermits>,
    admin: Arc<RolePermits>,
    strangers: Arc<Strangers>,
}

/// The calls of one role.
struct RolePermits {
    limit: usize,
    /// Bytes of messages that one caller's open calls may hold.
    max_bytes: usize,
    open: Mutex<OpenCalls>,
}

#[derive(Default)]
struct OpenCalls {
    count: usize,
    by_caller: HashMap<Arc<str>, CallerUse>,
}

struct CallerUse {
    calls: usize,
    bytes: Arc<ByteBudget>,
}

/// Permission for one call, until it is dropped.
pub(super) struct CallPermit {
    permits: Arc<RolePermits>,
    caller: Arc<str>,
    bytes: Arc<ByteBudget>,
}

/// Why a call gets no permit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Too many calls of this role are open.
    Role {
        /// The role's limit.
        limit: usize,
    },
    /// The caller has its share.
    Caller {
        /// The caller's limit.
        limit: usize,
    },
}

impl Capacity {
    /// `max_in_flight`: calls of LoginService at once.
    pub(super) fn new(max_in_flight: usize) -> Self {
        let permits = |limit: usize, max_bytes| {
            Arc::new(RolePermits { limit: limit.max(1), max_bytes, open: Mutex::default() })
        };
        let admin = (max_in_flight / ADMIN_PART).max(MIN_ADMIN);
        Self {
            login: permits(max_in_flight, LOGIN_BYTES),
            identity: permits(max_in_flight / IDENTITY_PART, IDENTITY_BYTES),
            admin: permits(admin, ADMIN_BYTES),
            strangers: Arc::default(),
        }
    }

    fn of(&self, role: Role) -> &Arc<RolePermits> {
        match role {
            Role::Login => &self.login,
            Role::Identity => &self.identity,
            Role::Admin => &self.admin,
        }
    }

    /// A permit for a call of this role. `has_others`: whether other callers have the role, too.
    pub(super) fn acquire(
        &self,
        role: Role,
        caller: Arc<str>,
        has_others: bool,
    ) -> Result<CallPermit, Full> {
        let permits = self.of(role);
        let mut open = permits.lock();
        if open.count >= permits.limit {
            return Err(Full::Role { limit: permits.limit });
        }
        let share = if has_others { permits.share() } else { permits.limit };
        let used = open.by_caller.entry(Arc::clone(&caller)).or_insert_with(|| CallerUse {
            calls: 0,
            bytes: Arc::new(ByteBudget { limit: permits.max_bytes, used: AtomicUsize::new(0) }),
        });
        if used.calls >= share {
            return Err(Full::Caller { limit: share });
        }
        used.calls += 1;
        let bytes = Arc::clone(&used.bytes);
        open.count += 1;
        Ok(CallPermit { permits: Arc::clone(permits), caller, bytes })
    }

    pub(super) fn strangers(&self) -> &Arc<Strangers> {
        &self.strangers
    }
}

impl RolePermits {
    fn share(&self) -> usize {
        (self.limit * 3 / 4).max(1)
    }

    fn lock(&self) -> MutexGuard<'_, OpenCalls> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CallPermit {
    /// The caller's budget for messages.
    pub(super) fn bytes(&self) -> Arc<ByteBudget> {
        Arc::clone(&self.bytes)
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        let mut open = self.permits.lock();
        open.count -= 1;
        if let Some(used) = open.by_caller.get_mut(&self.caller) {
            used.calls -= 1;
            if used.calls == 0 {
                open.by_caller.remove(&self.caller);
            }
        }
    }
}

/// A bound on bytes that are held at once.
pub(super) struct ByteBudget {
    limit: usize,
    used: AtomicUsize,
}

impl ByteBudget {
    /// Whether there was room. The bytes count either way, until they are released.
    pub(super) fn take(&self, bytes: usize) -> bool {
        self.used.fetch_add(bytes, Ordering::AcqRel) + bytes <= self.limit
    }

    pub(super) fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// Calls without credentials.
#[derive(Default)]
pub(super) struct Strangers {
    /// Unary calls. At the limit, one that begins displaces the oldest of the network that has the most:
    /// one whose message doesn't arrive keeps nobody out, and a probe that is answered at once is not
    /// displaced.
    calls: Mutex<ByNetwork<CancellationToken>>,
    streams: Mutex<Streams>,
}

/// A unary call without credentials, until it is dropped.
pub(super) struct StrangerCall {
    strangers: Arc<Strangers>,
    network: IpAddr,
    id: u64,
    /// Cancelled when another call takes the place of this one.
    pub(super) token: CancellationToken,
}

impl Drop for StrangerCall {
    fn drop(&mut self) {
        self.strangers.calls().remove(self.network, self.id);
    }
}

#[derive(Default)]
struct Streams {
    count: usize,
    by_network: HashMap<IpAddr, usize>,
}

/// Permission for one stream, until it is dropped.
pub(super) struct StreamPermit {
    strangers: Arc<Strangers>,
    network: IpAddr,
}

impl Strangers {
    /// Begins a unary call, which must end when its token is cancelled.
    pub(super) fn begin_call(self: &Arc<Self>, network: IpAddr) -> StrangerCall {
        let token = CancellationToken::new();
        let mut calls = self.calls();
        let gives_way = if calls.len_of(network) >= CALLS_PER_NETWORK {
            Some(network)
        } else if calls.len() >= STRANGER_CALLS {
            calls.largest()
        } else {
            None
        };
        if let Some((_, displaced)) = gives_way.and_then(|network| calls.remove_oldest(network)) {
            displaced.cancel();
        }
        let id = calls.insert(network, token.clone());
        StrangerCall { strangers: Arc::clone(self), network, id, token }
    }

    fn calls(&self) -> MutexGuard<'_, ByNetwork<CancellationToken>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a stream from this network.
    pub(super) fn begin_stream(self: &Arc<Self>, network: IpAddr) -> Option<StreamPermit> {
        let mut streams = self.streams();
        let of_network = streams.by_network.get(&network).copied().unwrap_or_default();
        if streams.count >= STRANGER_STREAMS || of_network >= STREAMS_PER_NETWORK {
            return None;
        }
        streams.count += 1;
        streams.by_network.insert(network, of_network + 1);
        Some(StreamPermit { strangers: Arc::clone(self), network })
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut streams = self.strangers.streams();
        streams.count -= 1;
        if let Some(count) = streams.by_network.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                streams.by_network.remove(&self.network);
            }
        }
    }
}

/// IdentityService has one permit for so many of LoginService.
const IDENTITY_PART: usize = 2;
/// ConnectionService has one permit for so many of LoginService, but at least [`MIN_ADMIN`].
const ADMIN_PART: usize = 16;
const MIN_ADMIN: usize = 16;
const LOGIN_BYTES: usize = 64 << 20;
const IDENTITY_BYTES: usize = 16 << 20;
const ADMIN_BYTES: usize = 32 << 20;
/// Unary calls without credentials at once.
const STRANGER_CALLS: usize = 256;
const CALLS_PER_NETWORK: usize = 64;
/// Streams without credentials at once: a client that watches the health has one for each listener.
const STRANGER_STREAMS: usize = 1024;
const STREAMS_PER_NETWORK: usize = 64;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn fill(capacity: &Capacity, role: Role, caller: &str, has_others: bool) -> Vec<CallPermit> {
        let caller: Arc<str> = caller.into();
        let acquire = || capacity.acquire(role, Arc::clone(&caller), has_others).ok();
        std::iter::from_fn(acquire).collect()
    }

    #[test]
    fn callers_of_one_role_take_nothing_from_another() {
        let capacity = Capacity::new(64);
        let identity = fill(&capacity, Role::Identity, "backend", false);
        let login = fill(&capacity, Role::Login, "web", false);
        let admin = fill(&capacity, Role::Admin, "support", false);
        assert_eq!((identity.len(), login.len(), admin.len()), (32, 64, 16));
        let full = capacity.acquire(Role::Login, "web".into(), false).err();
        assert_eq!(full, Some(Full::Role { limit: 64 }));
        drop(login);
        assert_eq!(fill(&capacity, Role::Login, "web", false).len(), 64);
    }

    #[test]
    fn a_caller_leaves_room_for_the_others_of_its_role() {
        let capacity = Capacity::new(8);
        let greedy = fill(&capacity, Role::Login, "greedy", true);
        assert_eq!(greedy.len(), 6);
        let full = capacity.acquire(Role::Login, "greedy".into(), true).err();
        assert_eq!(full, Some(Full::Caller { limit: 6 }));
        assert_eq!(fill(&capacity, Role::Login, "modest", true).len(), 2);
    }

    #[test]
    fn strangers_displace_the_oldest_calls_of_the_network_with_the_most() {
        let strangers = Arc::new(Strangers::default());
        let network = |n: u8| IpAddr::V4(Ipv4Addr::new(192, 0, 2, n));
        let probe = strangers.begin_call(network(0));
        let flood: Vec<_> =
            (0..=CALLS_PER_NETWORK).map(|_| strangers.begin_call(network(1))).collect();
        assert!(flood[0].token.is_cancelled() && !flood[1].token.is_cancelled());
        let rest: Vec<_> = (0..STRANGER_CALLS - CALLS_PER_NETWORK)
            .map(|n| strangers.begin_call(network(u8::try_from(n % 100).expect("small") + 2)))
            .collect();
        assert!(flood[1].token.is_cancelled() && !probe.token.is_cancelled());
        assert!(rest.iter().all(|call| !call.token.is_cancelled()));
        drop((probe, flood, rest));
        assert!(strangers.calls().len() == 0 && strangers.calls().largest().is_none());
    }

    #[test]
    fn one_network_takes_a_part_of_the_strangers_streams() {
        let strangers = Arc::new(Strangers::default());
        let network = |n: u8| IpAddr::V4(Ipv4Addr::new(192, 0, 2, n));
        let mut open: Vec<_> = std::iter::from_fn(|| strangers.begin_stream(network(1))).collect();
        assert_eq!(open.len(), STREAMS_PER_NETWORK);
        assert!(strangers.begin_stream(network(2)).is_some());
        open.pop();
        assert!(strangers.begin_stream(network(1)).is_some());
        for n in 2..=255 {
            open.extend(std::iter::from_fn(|| strangers.begin_stream(network(n))));
        }
        assert_eq!(open.len(), STRANGER_STREAMS);
    }
}
