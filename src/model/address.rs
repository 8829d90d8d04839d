//! Which addresses the service may call for a customer's IdP. Used when a connection is saved (for a
//! literal address) and when a socket is dialled (for what a name resolved to). Pure: never resolves a
//! name itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use url::{Host, Url};

/// Which addresses the operator allows in addition to those of the public internet.
#[derive(Clone, Debug, Default)]
pub struct AddressPolicy {
    /// For development and tests: allows plain http and every address.
    pub allow_insecure: bool,
    /// Networks of on-premises IdPs. https is still required.
    pub allowed_networks: Vec<IpNet>,
}

impl AddressPolicy {
    /// The kind of a forbidden address; `None`: the address may be called.
    #[must_use]
    pub fn forbidden(&self, address: IpAddr) -> Option<&'static str> {
        let is_allowed = self.allow_insecure
            || self.allowed_networks.iter().any(|network| network.contains(&address));
        if is_allowed { None } else { forbidden(address) }
    }

    /// The kind of a forbidden host as written in the URL; `None`: it may be called, or is a name whose
    /// addresses are checked when it is dialled.
    #[must_use]
    pub fn forbidden_host(&self, url: &Url) -> Option<&'static str> {
        match url.host()? {
            Host::Ipv4(v4) => self.forbidden(v4.into()),
            Host::Ipv6(v6) => self.forbidden(v6.into()),
            Host::Domain(name) => self.forbidden_name(name),
        }
    }

    /// The kind of a forbidden name: one that stands for an internal host wherever it is resolved,
    /// unless one of its addresses is allowed. [`Self::forbidden`] still judges what is dialled.
    #[must_use]
    pub fn forbidden_name(&self, name: &str) -> Option<&'static str> {
        let (kind, addresses): (_, &[IpAddr]) = if is_localhost(name) {
            ("loopback", &LOOPBACK)
        } else if is_under(name, "metadata.google.internal") || is_under(name, "instance-data") {
            ("cloud metadata", &CLOUD_METADATA)
        } else {
            return None;
        };
        addresses.iter().all(|address| self.forbidden(*address).is_some()).then_some(kind)
    }
}

/// Whether a host, as a URL names it, is this machine.
#[must_use]
pub fn is_loopback_host(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn forbidden(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => forbidden_v4(v4),
        IpAddr::V6(v6) => forbidden_v6(v6),
    }
}

/// Whether a name is `localhost` or below it (RFC 6761 6.3): its addresses are those of
/// [`LOOPBACK`], whatever anybody answers.
#[must_use]
pub fn is_localhost(name: &str) -> bool {
    is_under(name, "localhost")
}

fn is_under(name: &str, parent: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == parent || name.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
}

fn forbidden_v4(ip: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = ip.octets();
    Some(match (a, b, c) {
        (0, ..) => "unspecified",
        (127, ..) => "loopback",
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => "private",
        (169, 254, _) => "link-local, where cloud metadata lives",
        (100, 64..=127, _) => "shared (carrier-grade NAT)",
        (168, 63, 129) if ip == AZURE_WIRE_SERVER => "cloud metadata",
        (192, 0, 0) | (192, 0, 2) | (198, 51, 100) | (203, 0, 113) | (192, 88, 99) => "reserved",
        (198, 18..=19, _) => "benchmarking",
        (224..=239, ..) => "multicast",
        (240.., ..) => "reserved or broadcast",
        _ => return None,
    })
}

fn forbidden_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let s = ip.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    Some(match s {
        [0, 0, 0, 0, 0, 0, 0, 0] => "unspecified",
        [0, 0, 0, 0, 0, 0, 0, 1] => "loopback",
        // IPv4-mapped, IPv4-compatible and IPv4-translated: no public IdP has such an address.
        [0, 0, 0, 0, 0, _, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => "an IPv4 address in IPv6 form",
        // NAT64 (RFC 6052, RFC 8215) and 6to4 embed the IPv4 address that is reached: it decides.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => return forbidden_v4(embedded(high, low)),
        [0x64, 0xff9b, ..] => "NAT64 of a private network",
        [0x2002, high, low, ..] => return forbidden_v4(embedded(high, low)),
        [0x2001, 0, ..] => "Teredo",
        [0x2001, 0xdb8, ..] | [0x100, 0, 0, 0, ..] | [0x3fff, ..] => "reserved",
        [0xfe80..=0xfebf, ..] => "link-local",
        [0xfec0..=0xfeff, ..] => "site-local",
        [0xfc00..=0xfdff, ..] => "private",
        [0xff00..=0xffff, ..] => "multicast",
        _ => return None,
    })
}

/// The addresses of `localhost`.
pub const LOOPBACK: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
/// Of Google's and Amazon's metadata servers.
const CLOUD_METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];
const AZURE_WIRE_SERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_inside_a_network_are_forbidden_in_any_spelling() {
        for bad in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.0.0.1/",
            "http://0177.0.0.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:8.8.8.8]/",
            "http://[::127.0.0.1]/",
            "http://10.1.2.3/",
            "http://172.16.0.1/",
            "http://172.31.255.255/",
            "http://192.168.1.1/",
            "http://169.254.169.254/",
            "http://168.63.129.16/",
            "http://100.64.0.1/",
            "http://0.0.0.0/",
            "http://224.0.0.1/",
            "http://255.255.255.255/",
            "http://[64:ff9b::a00:1]/",
            "http://[64:ff9b:1::1]/",
            "http://[2002:7f00:1::]/",
            "http://[fe80::1]/",
            "http://[fd00::1]/",
            "http://[fd00:ec2::254]/",
            "http://[ff02::1]/",
            "http://[::]/",
            "http://localhost/",
            "http://LOCALHOST./",
            "http://a.localhost/",
            "http://metadata.google.internal/",
        ] {
            let url = Url::parse(bad).expect(bad);
            assert!(AddressPolicy::default().forbidden_host(&url).is_some(), "{bad}");
        }
        for good in [
            "http://8.8.8.8/",
            "http://172.32.0.1/",
            "http://100.128.0.1/",
            "http://[2606:4700::1]/",
            "http://[64:ff9b::808:808]/",
            "http://login.example.com/",
            "http://notlocalhost/",
        ] {
            let url = Url::parse(good).expect(good);
            assert_eq!(AddressPolicy::default().forbidden_host(&url), None, "{good}");
        }
    }

    #[test]
    fn a_listed_network_is_allowed_and_no_more() {
        let networks = ["10.20.0.0/16", "fd12::/16"]
            .map(|network| network.parse().expect("a network"))
            .to_vec();
        let policy = AddressPolicy { allowed_networks: networks, ..AddressPolicy::default() };
        let is_forbidden =
            |text: &str| policy.forbidden_host(&Url::parse(text).expect("a URL")).is_some();
        assert!(!is_forbidden("https://10.20.255.1/") && !is_forbidden("https://[fd12::1]/"));
        assert!(
            is_forbidden("https://10.21.0.1/")
                && is_forbidden("https://[::ffff:10.20.0.1]/")
                && is_forbidden("https://127.0.0.1/")
                && is_forbidden("https://localhost/")
        );
    }

    #[test]
    fn an_allowed_address_is_allowed_by_whatever_name_it_is_reached() {
        for (network, name, is_allowed) in [
            ("127.0.0.0/8", "localhost", true),
            ("127.0.0.0/8", "idp.localhost.", true),
            ("::1/128", "LOCALHOST", true),
            ("127.0.0.2/32", "localhost", false),
            ("127.0.0.0/8", "metadata.google.internal", false),
            ("169.254.169.254/32", "metadata.google.internal", true),
        ] {
            let allowed_networks = vec![network.parse().expect("a network")];
            let policy = AddressPolicy { allowed_networks, ..AddressPolicy::default() };
            let url = Url::parse(&format!("https://{name}/")).expect("a URL");
            assert_eq!(policy.forbidden_host(&url).is_none(), is_allowed, "{network} {name}");
        }
    }
}
