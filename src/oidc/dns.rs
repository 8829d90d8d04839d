//! Resolves the host names of IdPs without a thread for each: a name whose name servers are silent
//! costs a socket or two for at most [`LOOKUP_DEADLINE`], and delays no other name. Used by the
//! address guard in `oidc/address.rs` alone, which checks every address before it is dialled.
//!
//! One lookup serves all who ask for the same name at the same time. An account calls a handful of
//! names, so it has a handful of lookups; those of all accounts have [`MAX_LOOKUPS`], of which names
//! that lately had no answer get [`MAX_DOUBTFUL_LOOKUPS`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver};
use moka::Expiry;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::http::resource_used_up;

/// Why a name has no address, wrapped in the client's errors on its way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unresolved {
    /// The name servers say so.
    #[error("the host name does not resolve")]
    NoAddress,
    /// They failed, or said nothing in time.
    #[error("no name server answered for the host name")]
    NoAnswer,
    /// They could not be asked, for want of something of ours.
    #[error("this replica has no free {0}")]
    OutOfResources(&'static str),
}

/// Resolves names by the machine's hosts file and name servers; cheap to clone.
#[derive(Clone)]
pub(super) struct NameResolver(Arc<Inner>);

struct Inner {
    /// A test's own name server; `None`: those of the machine.
    name_server: Option<SocketAddr>,
    system: ArcSwap<System>,
    answers: moka::future::Cache<String, Answer>,
    /// Names that had no answer when they were last asked for.
    doubtful: moka::sync::Cache<String, ()>,
    lookups: Semaphore,
    doubtful_lookups: Semaphore,
}

/// The machine's configuration, as of the files' last change.
struct System {
    files_changed: [Option<SystemTime>; 2],
    hosts: Hosts,
    resolver: TokioResolver,
}

#[derive(Clone)]
struct Answer {
    outcome: Result<Arc<[IpAddr]>, Unresolved>,
    ttl: Duration,
}

impl NameResolver {
    pub(super) fn new(name_server: Option<SocketAddr>) -> Result<Self, String> {
        let answers = moka::future::Cache::builder()
            .weigher(|name: &String, answer: &Answer| answer.weight(name))
            .max_capacity(MAX_CACHE)
            .expire_after(ByTtl)
            .build();
        let doubtful = moka::sync::Cache::builder()
            .max_capacity(MAX_DOUBTFUL_NAMES)
            .time_to_live(DOUBTFUL_FOR)
            .build();
        let system = System::read(name_server, files_changed())?;
        Ok(Self(Arc::new(Inner {
            name_server,
            system: ArcSwap::from_pointee(system),
            answers,
            doubtful,
            lookups: Semaphore::new(MAX_LOOKUPS),
            doubtful_lookups: Semaphore::new(MAX_DOUBTFUL_LOOKUPS),
        })))
    }

    /// All addresses of a name, at most [`MAX_ADDRESSES`].
    pub(super) async fn addresses(&self, name: &str) -> Result<Arc<[IpAddr]>, Unresolved> {
        let looked_up = self.0.answers.try_get_with_by_ref(name, self.0.look_up(name)).await;
        looked_up.map_err(|error| *error)?.outcome
    }
}

impl Inner {
    /// The error is one of ours, which says nothing about the name, so that it isn't cached.
    async fn look_up(&self, name: &str) -> Result<Answer, Unresolved> {
        let system = self.system();
        if let Some(addresses) = system.in_hosts_file(name) {
            return Ok(Answer { outcome: Ok(addresses), ttl: SHORTEST_TTL });
        }
        let is_doubtful = self.doubtful.contains_key(name);
        let room = if is_doubtful { &self.doubtful_lookups } else { &self.lookups };
        let place = timeout(LOOKUP_DEADLINE, room.acquire()).await;
        let _place = place.map_err(|_| Unresolved::NoAnswer)?.map_err(|_| Unresolved::NoAnswer)?;
        let asked = timeout(LOOKUP_DEADLINE, system.resolver.lookup_ip(name)).await;
        let answer = match asked {
            Err(_) => Answer::failed(Unresolved::NoAnswer, None),
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) => Answer::without(&none),
            Ok(Err(error)) => {
                if let NetError::Io(error) = &error
                    && let Some(resource) = resource_used_up(&**error)
                {
                    return Err(Unresolved::OutOfResources(resource));
                }
                tracing::debug!(host = name, %error, "name servers failed");
                Answer::failed(Unresolved::NoAnswer, None)
            }
            Ok(Ok(found)) => {
                let records = found.as_lookup().answers();
                let ttl = records.iter().map(|record| record.ttl).min().unwrap_or_default();
                Answer::found(found.iter(), Duration::from_secs(ttl.into()))
            }
        };
        if answer.outcome == Err(Unresolved::NoAnswer) {
            self.doubtful.insert(name.to_owned(), ());
        } else if is_doubtful {
            self.doubtful.invalidate(name);
        }
        Ok(answer)
    }

    /// The machine's configuration, read again if its files have changed: two `stat` calls, which a
    /// lookup over the network can bear.
    fn system(&self) -> Arc<System> {
        let current = self.system.load_full();
        let files_changed = files_changed();
        if current.files_changed == files_changed {
            return current;
        }
        match System::read(self.name_server, files_changed) {
            Ok(system) => {
                tracing::info!("reloaded name servers and hosts file");
                let system = Arc::new(system);
                self.system.store(Arc::clone(&system));
                system
            }
            Err(error) => {
                tracing::warn!(error, "failed to reload name servers and hosts file");
                current
            }
        }
    }
}

impl System {
    fn read(
        name_server: Option<SocketAddr>,
        files_changed: [Option<SystemTime>; 2],
    ) -> Result<Self, String> {
        let (servers, search) = match name_server {
            Some(address) => (vec![server(address)], Vec::new()),
            None => resolv_conf(&std::fs::read(RESOLV_CONF).unwrap_or_default()),
        };
        let config = ResolverConfig::from_parts(None, search, servers);
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        // The host of a URL is a whole name. In a pod, ndots:5 would ask for it in each search
        // domain first.
        options.ndots = 1;
        options.timeout = ATTEMPT_TIMEOUT;
        options.attempts = RETRIES;
        // Kept in `answers`, by name and with bounds of its own.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.max_active_requests = 2 * MAX_LOOKUPS;
        let resolver = builder.build().map_err(|error| error.to_string())?;
        let hosts = Hosts::from_system().unwrap_or_default();
        Ok(Self { files_changed, hosts, resolver })
    }

    /// A name in the hosts file is not asked for elsewhere.
    fn in_hosts_file(&self, name: &str) -> Option<Arc<[IpAddr]>> {
        let name = Name::from_utf8(name).ok()?;
        let found: Vec<IpAddr> = [RecordType::A, RecordType::AAAA]
            .into_iter()
            .filter_map(|kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind)))
            .flat_map(|found| {
                found
                    .answers()
                    .iter()
                    .filter_map(|record| record.data.ip_addr())
                    .collect::<Vec<_>>()
            })
            .collect();
        (!found.is_empty()).then(|| found.into())
    }
}

impl Answer {
    fn found(addresses: impl Iterator<Item = IpAddr>, ttl: Duration) -> Self {
        let addresses: Vec<_> = addresses.take(MAX_ADDRESSES).collect();
        if addresses.is_empty() {
            return Self::failed(Unresolved::NoAddress, None);
        }
        Self { outcome: Ok(reachable(addresses).into()), ttl: ttl.clamp(SHORTEST_TTL, LONGEST_TTL) }
    }

    fn failed(why: Unresolved, ttl: Option<u32>) -> Self {
        let ttl = ttl.map_or(SHORTEST_FAILED_TTL, |seconds| Duration::from_secs(seconds.into()));
        Self { outcome: Err(why), ttl: ttl.clamp(SHORTEST_FAILED_TTL, LONGEST_FAILED_TTL) }
    }

    fn without(none: &NoRecords) -> Self {
        match none.response_code {
            ResponseCode::NXDomain | ResponseCode::NoError => {
                Self::failed(Unresolved::NoAddress, none.negative_ttl)
            }
            _ => Self::failed(Unresolved::NoAnswer, None),
        }
    }

    /// Bytes, roughly.
    fn weight(&self, name: &str) -> u32 {
        let addresses = self.outcome.as_ref().map_or(0, |addresses| addresses.len());
        let bytes = ENTRY_OVERHEAD + name.len() + addresses * size_of::<IpAddr>();
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

struct ByTtl;

impl Expiry<String, Answer> for ByTtl {
    fn expire_after_create(&self, _: &String, answer: &Answer, _: Instant) -> Option<Duration> {
        Some(answer.ttl)
    }

    fn expire_after_update(
        &self,
        _: &String,
        answer: &Answer,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(answer.ttl)
    }
}

/// Without the IPv6 addresses that no route of this machine leads to, unless there are no others: the
/// failure to dial one must not stand for the failure of the IPv4 address. Sends nothing.
pub(super) fn reachable(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let has_route = |address: &IpAddr| {
        let probe = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0));
        probe.and_then(|probe| probe.connect((*address, DISCARD_PORT))).is_ok()
    };
    let (v4, v6): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv4);
    if v4.is_empty() {
        return v6;
    }
    v4.into_iter().chain(v6.into_iter().filter(has_route)).collect()
}

/// The name servers and search domains of a resolv.conf. Lines that can't be read are left out, and
/// without a name server this machine is asked, both as glibc has it.
fn resolv_conf(file: &[u8]) -> (Vec<NameServerConfig>, Vec<Name>) {
    let (conf, _) = resolv_conf::Config::parse_with_errors(file);
    let search = conf.get_last_search_or_domain();
    let search = search.filter_map(|domain| Name::from_str_relaxed(domain).ok()).collect();
    let mut servers: Vec<IpAddr> = conf.nameservers.iter().map(IpAddr::from).collect();
    if servers.is_empty() {
        servers.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    (servers.into_iter().map(|ip| server(SocketAddr::new(ip, DNS_PORT))).collect(), search)
}

/// By UDP, and by TCP for an answer that UDP truncates.
fn server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.to_vec())
}

fn files_changed() -> [Option<SystemTime>; 2] {
    [RESOLV_CONF, HOSTS_FILE]
        .map(|file| std::fs::metadata(file).and_then(|file| file.modified()).ok())
}

/// One name, with all attempts.
pub(super) const LOOKUP_DEADLINE: Duration = Duration::from_secs(3);
/// One question to one or two name servers, and how often it is repeated.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1200);
const RETRIES: usize = 1;
/// Names that are looked up at once, each with up to four sockets.
const MAX_LOOKUPS: usize = 128;
/// Of names that had no answer in the last [`DOUBTFUL_FOR`].
const MAX_DOUBTFUL_LOOKUPS: usize = 32;
const DOUBTFUL_FOR: Duration = Duration::from_secs(10 * 60);
const MAX_DOUBTFUL_NAMES: u64 = 10_000;
const MAX_ADDRESSES: usize = 32;
/// Bytes of all cached answers.
const MAX_CACHE: u64 = 4 * 1024 * 1024;
const ENTRY_OVERHEAD: usize = 200;
/// How long an answer is used, whatever it says of itself.
const SHORTEST_TTL: Duration = Duration::from_secs(5);
const LONGEST_TTL: Duration = Duration::from_secs(5 * 60);
const SHORTEST_FAILED_TTL: Duration = Duration::from_secs(2);
const LONGEST_FAILED_TTL: Duration = Duration::from_secs(30);
const DNS_PORT: u16 = 53;
const DISCARD_PORT: u16 = 9;
const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS_FILE: &str = "/etc/hosts";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_glibc_reads_it() {
        let file = b"nameserver 10.0.0.10\nnonsense\nnameserver fd00::a\n\
            search a.svc.cluster.local cluster.local\noptions ndots:5\n";
        let (servers, search) = resolv_conf(file);
        let ips: Vec<String> = servers.iter().map(|server| server.ip.to_string()).collect();
        assert_eq!(ips, ["10.0.0.10", "fd00::a"]);
        let search: Vec<String> = search.iter().map(ToString::to_string).collect();
        assert_eq!(search, ["a.svc.cluster.local", "cluster.local"]);
        assert_eq!(resolv_conf(b"").0[0].ip, IpAddr::V4(Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn answers_are_used_for_a_bounded_time() {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let seconds = Duration::from_secs;
        for (ttl, expected) in [(0, 5), (5, 5), (60, 60), (86_400, 300)] {
            let found = Answer::found([address].into_iter(), seconds(ttl));
            assert_eq!(found.ttl, seconds(expected), "{ttl}");
        }
        for (ttl, expected) in [(None, 2), (Some(0), 2), (Some(10), 10), (Some(86_400), 30)] {
            let failed = Answer::failed(Unresolved::NoAddress, ttl);
            assert_eq!(failed.ttl, seconds(expected), "{ttl:?}");
        }
        let many = Answer::found(std::iter::repeat_n(address, 1000), seconds(60));
        assert_eq!(many.outcome.expect("addresses").len(), MAX_ADDRESSES);
        let none = Answer::found(std::iter::empty(), seconds(60));
        assert_eq!(none.outcome, Err(Unresolved::NoAddress));
    }
}
