//! Parsers of single settings. Each reports what is wrong with its setting and goes on with a
//! placeholder, so that one run finds all problems. An error names the setting, the problem and,
//! unless it is a secret, the value.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::{Host, Url};

use super::{ConfigErrors, MINUTE};
use crate::model::rate::Rate;
use crate::model::slug::Slug;
use crate::model::text::without_byte_order_mark;
use crate::oidc::clients::AccountTrust;
use crate::oidc::proxy::Proxy;

/// Collects the problems of all settings.
#[derive(Default)]
pub(super) struct Check {
    pub(super) errors: Vec<String>,
}

impl Check {
    pub(super) fn wrong(&mut self, name: &str, what: String) {
        self.errors.push(format!("{name} {what}"));
    }

    pub(super) fn done<T>(self, checked: T) -> Result<T, ConfigErrors> {
        if self.errors.is_empty() { Ok(checked) } else { Err(ConfigErrors(self.errors)) }
    }

    pub(super) fn done_without<T>(self) -> Result<T, ConfigErrors> {
        Err(ConfigErrors(self.errors))
    }

    /// A secret that is set itself or read from a file. No error shows it.
    pub(super) fn secret(
        &mut self,
        name: &str,
        value: Option<&str>,
        file: Option<&Path>,
    ) -> Option<String> {
        let value = value.map(str::trim).filter(|value| !value.is_empty());
        match (value, given(file)) {
            (Some(_), Some(_)) => {
                self.wrong(name, format!("and {name}_FILE must not both be set"));
                None
            }
            (Some(value), None) => Some(value.to_owned()),
            (None, Some(file)) => match std::fs::read_to_string(&file) {
                Ok(text) => {
                    let text = without_byte_order_mark(&text).trim();
                    if text.is_empty() {
                        self.wrong(&format!("{name}_FILE"), format!("{} is empty", file.display()));
                        return None;
                    }
                    Some(text.to_owned())
                }
                Err(error) => {
                    self.wrong(
                        &format!("{name}_FILE"),
                        format!("{} can't be read: {error}", file.display()),
                    );
                    None
                }
            },
            (None, None) => None,
        }
    }

    pub(super) fn proxy(
        &mut self,
        name: &str,
        value: Option<&str>,
        file: Option<&Path>,
    ) -> Option<Proxy> {
        let proxy = Proxy::parse(&self.secret(name, value, file)?);
        if proxy.is_none() {
            self.wrong(
                name,
                "must be http://HOST:PORT or http://USER:PASSWORD@HOST:PORT".to_owned(),
            );
        }
        proxy
    }

    pub(super) fn listen(&mut self, name: &str, text: &str, is_protected: bool) -> SocketAddr {
        let placeholder = SocketAddr::from(([127, 0, 0, 1], 0));
        let Ok(address) = text.parse::<SocketAddr>() else {
            self.wrong(
                name,
                format!("must be an IP address and a port such as 127.0.0.1:50051, not {text:?}"),
            );
            return placeholder;
        };
        if !address.ip().is_loopback() && !is_protected {
            self.wrong(
                name,
                format!(
                    "is {address}, which other machines can reach: set SSO_TLS_CERT_FILE, SSO_TLS_KEY_FILE and SSO_CALLERS_FILE, or SSO_ALLOW_INSECURE_LISTEN=true behind a service mesh"
                ),
            );
        }
        address
    }

    pub(super) fn boolean(&mut self, name: &str, text: &str) -> bool {
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => true,
            "false" | "0" | "no" | "off" | "" => false,
            _ => {
                self.wrong(name, format!("must be true or false, not {text:?}"));
                false
            }
        }
    }

    /// For a setting whose default depends on other settings.
    pub(super) fn boolean_or(&mut self, name: &str, text: Option<&str>, default: bool) -> bool {
        match text.map(str::trim) {
            None | Some("") => default,
            Some(text) => self.boolean(name, text),
        }
    }

    pub(super) fn duration(
        &mut self,
        name: &str,
        text: &str,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        match humantime::parse_duration(text) {
            Ok(duration) if range.contains(&duration) => duration,
            _ => {
                let (min, max) = range.into_inner();
                let (min, max) = (humantime::format_duration(min), humantime::format_duration(max));
                self.wrong(
                    name,
                    format!("must be a duration of {min} to {max} such as 15m, not {text:?}"),
                );
                MINUTE
            }
        }
    }

    pub(super) fn rate(&mut self, name: &str, text: &str) -> Rate {
        Rate::parse(text).unwrap_or_else(|| {
            self.wrong(
                name,
                format!("must be a count and a period of 1s to 1h such as 120/1m, not {text:?}"),
            );
            Rate { count: NonZeroU32::MIN, period: MINUTE }
        })
    }

    pub(super) fn count(&mut self, name: &str, text: &str) -> usize {
        match text.parse() {
            Ok(count @ 1..=10_000_000) => count,
            _ => {
                self.wrong(name, format!("must be 1 to 10000000, not {text:?}"));
                1
            }
        }
    }

    pub(super) fn audience(&mut self, name: &str, text: Option<&str>) -> Option<String> {
        let text = text.map(str::trim).filter(|text| !text.is_empty())?;
        if text.len() > 256 || !text.bytes().all(|b| b.is_ascii_graphic()) {
            self.wrong(name, "must be 1 to 256 visible ASCII characters".to_owned());
        }
        Some(text.to_owned())
    }

    pub(super) fn collector(&mut self, name: &str, text: Option<&str>) -> Option<String> {
        let text = text.map(str::trim).filter(|text| !text.is_empty())?;
        let is_url = Url::parse(text)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !is_url {
            self.wrong(
                name,
                "must be an http or https URL such as http://localhost:4317".to_owned(),
            );
        }
        Some(text.to_owned())
    }

    pub(super) fn public_origin(&mut self, text: &str) -> String {
        match origin(text) {
            Some((origin, true)) => origin,
            _ => {
                self.wrong(
                    "SSO_PUBLIC_URL",
                    format!("must be an https origin (http only at localhost) without a path, not {text:?}"),
                );
                String::new()
            }
        }
    }

    pub(super) fn origins(&mut self, name: &str, text: &str) -> Vec<String> {
        let mut origins = Vec::new();
        for part in listed(text) {
            match origin(part) {
                Some((origin, true)) => origins.push(origin),
                _ => self.wrong(name, format!("must be https origins (http only at localhost) without a path, not {part:?}")),
            }
        }
        origins
    }

    pub(super) fn networks(&mut self, name: &str, text: &str) -> Vec<IpNet> {
        listed(text).filter_map(|part| self.network(name, part)).collect()
    }

    fn network(&mut self, name: &str, text: &str) -> Option<IpNet> {
        match text.parse::<IpNet>() {
            Ok(network) if network == network.trunc() => return Some(network),
            Ok(network) => {
                let right = network.trunc();
                self.wrong(
                    name,
                    format!("must be CIDRs without host bits: write {right} for {text}"),
                );
            }
            Err(_) => {
                self.wrong(name, format!("must be CIDRs such as 10.20.0.0/16, not {text:?}"));
            }
        }
        None
    }

    /// Two settings, each with its name: the networks and the CA files of accounts.
    pub(super) fn account_trust(
        &mut self,
        (cidrs, networks): (&str, &str),
        (cas, files): (&str, &str),
    ) -> BTreeMap<Slug, AccountTrust> {
        let mut accounts = BTreeMap::<Slug, AccountTrust>::new();
        for part in listed(networks) {
            let Some((slug, network)) = self.of_account(cidrs, part) else { continue };
            accounts.entry(slug).or_default().networks.extend(self.network(cidrs, network));
        }
        for part in listed(files) {
            let Some((slug, file)) = self.of_account(cas, part) else { continue };
            accounts.entry(slug).or_default().cas.extend(self.cas(cas, Some(Path::new(file))));
        }
        accounts
    }

    /// `ACCOUNT=VALUE`.
    fn of_account<'t>(&mut self, name: &str, text: &'t str) -> Option<(Slug, &'t str)> {
        let parts = text.split_once('=').map(|(slug, value)| (slug.trim(), value.trim()));
        let parts = parts.filter(|(_, value)| !value.is_empty());
        let parts = parts.and_then(|(slug, value)| Some((Slug::parse(slug)?, value)));
        if parts.is_none() {
            self.wrong(name, format!("must be ACCOUNT=VALUE, comma separated, not {text:?}"));
        }
        parts
    }

    pub(super) fn cas(&mut self, name: &str, file: Option<&Path>) -> Vec<CertificateDer<'static>> {
        let Some(pem) = self.pem(name, file) else { return Vec::new() };
        CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect()
    }

    /// A PEM file of certificates.
    pub(super) fn pem(&mut self, name: &str, file: Option<&Path>) -> Option<Vec<u8>> {
        let file = given(file)?;
        let read = std::fs::read(&file).map_err(|error| error.to_string()).and_then(|pem| {
            let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
            match certificates {
                Ok(certificates) if certificates.is_empty() => {
                    Err("it has no certificate".to_owned())
                }
                Ok(_) => Ok(pem),
                Err(error) => Err(error.to_string()),
            }
        });
        match read {
            Ok(pem) => Some(pem),
            Err(error) => {
                self.wrong(name, format!("{} can't be used: {error}", file.display()));
                None
            }
        }
    }
}

/// The parts of a comma separated list.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// An origin, and whether browsers may be sent there: https, or this machine.
fn origin(text: &str) -> Option<(String, bool)> {
    let url = Url::parse(text).ok()?;
    let is_bare = matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    let is_local = match url.host()? {
        Host::Domain(name) => name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => ip.is_loopback(),
    };
    let is_safe = url.scheme() == "https" || url.scheme() == "http" && is_local;
    is_bare.then(|| (url.origin().ascii_serialization(), is_safe))
}

/// An empty name counts as unset.
pub(super) fn given(file: Option<&Path>) -> Option<PathBuf> {
    file.filter(|file| !file.as_os_str().is_empty()).map(Path::to_owned)
}

/// An environment variable with an empty value counts as unset.
pub(super) fn or_default<'a>(text: &'a str, default: &'a str) -> &'a str {
    match text.trim() {
        "" => default,
        text => text,
    }
}

/// A variable by which other programs learn of a proxy, if one is set.
#[expect(clippy::disallowed_methods, reason = "it is not a setting of this program")]
pub(super) fn unread_proxy_variable() -> Option<&'static str> {
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"].into_iter().find(is_set)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs one parser; gives its value and the errors.
    fn checked<T>(parse: impl FnOnce(&mut Check) -> T) -> (T, Vec<String>) {
        let mut check = Check::default();
        let value = parse(&mut check);
        (value, check.errors)
    }

    fn trust(check: &mut Check, networks: &str, files: &str) -> BTreeMap<Slug, AccountTrust> {
        check.account_trust(("S", networks), ("T", files))
    }

    #[test]
    fn networks_are_collected_for_each_account() {
        let listed = "acme=10.20.0.0/16, globex=10.30.0.0/16,acme=fd00::/8";
        let (accounts, errors) = checked(|check| trust(check, listed, ""));
        let networks = |slug| {
            let trust = &accounts[&Slug::parse(slug).expect("a slug")];
            trust.networks.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(networks("acme"), ["10.20.0.0/16", "fd00::/8"]);
        assert_eq!((networks("globex"), errors.len()), (vec!["10.30.0.0/16".to_owned()], 0));
    }

    #[test]
    fn each_parser_names_the_setting_the_problem_and_the_value() {
        let hour = MINUTE..=60 * MINUTE;
        for (errors, expected) in [
            (
                checked(|check| check.boolean("S", "maybe")).1,
                "S must be true or false, not \"maybe\"",
            ),
            (checked(|check| check.count("S", "0")).1, "S must be 1 to 10000000, not \"0\""),
            (checked(|check| check.rate("S", "5")).1, "not \"5\""),
            (
                checked(|check| check.duration("S", "2h", hour.clone())).1,
                "S must be a duration of 1m to 1h",
            ),
            (
                checked(|check| check.listen("S", "localhost", false)).1,
                "such as 127.0.0.1:50051, not",
            ),
            (
                checked(|check| check.listen("S", "0.0.0.0:1", false)).1,
                "which other machines can reach",
            ),
            (
                checked(|check| check.networks("S", "10.1.2.3/8")).1,
                "write 10.0.0.0/8 for 10.1.2.3/8",
            ),
            (checked(|check| check.networks("S", "10.0.0.0/8, x")).1, "not \"x\""),
            (checked(|check| trust(check, "10.0.0.0/8", "")).1, "S must be ACCOUNT=VALUE"),
            (checked(|check| trust(check, "Acme=10.0.0.0/8", "")).1, "not \"Acme=10.0.0.0/8\""),
            (checked(|check| trust(check, "acme=", "")).1, "not \"acme=\""),
            (checked(|check| trust(check, "acme=10.1.2.3/8", "")).1, "S must be CIDRs without"),
            (checked(|check| trust(check, "", "acme=/nowhere.pem")).1, "T /nowhere.pem can't"),
            (checked(|check| check.origins("S", "https://a.example/x")).1, "without a path"),
            (checked(|check| check.public_origin("http://a.example")).1, "must be an https origin"),
            (checked(|check| check.collector("S", Some("localhost"))).1, "http or https URL"),
            (checked(|check| check.audience("S", Some("a b"))).1, "visible ASCII"),
            (
                checked(|check| check.proxy("S", Some("CANARY:1"), None)).1,
                "must be http://HOST:PORT",
            ),
            (checked(|check| check.pem("S", Some(Path::new("/nowhere.pem")))).1, "S /nowhere.pem"),
        ] {
            assert!(errors.len() == 1 && errors[0].contains(expected), "{expected}: {errors:?}");
        }
    }

    #[test]
    fn valid_settings_are_parsed_and_empty_ones_are_unset() {
        let (value, errors) = checked(|check| {
            assert!(check.boolean("S", "Yes") && !check.boolean("S", ""));
            assert!(check.boolean_or("S", Some(" "), true));
            assert_eq!(check.duration("S", "90s", MINUTE..=60 * MINUTE), MINUTE * 3 / 2);
            assert_eq!(check.networks("S", "").len(), 0);
            assert_eq!(check.audience("S", Some(" ")), None);
            assert_eq!(check.secret("S", Some(" "), Some(Path::new(""))), None);
            check.public_origin("http://app.localhost:8080/")
        });
        assert_eq!((value.as_str(), errors.len()), ("http://app.localhost:8080", 0));
    }

    #[test]
    fn a_secret_is_read_from_one_place_and_never_shown() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("secret");
        std::fs::write(&file, " CANARY\n").expect("written");
        let read = checked(|check| check.secret("S", None, Some(&file)));
        assert_eq!(read, (Some("CANARY".to_owned()), vec![]));
        let (_, errors) = checked(|check| check.secret("S", Some("CANARY"), Some(&file)));
        assert_eq!(errors, ["S and S_FILE must not both be set"]);
        std::fs::write(&file, "\u{feff}CANARY\r\n").expect("written");
        let read = checked(|check| check.secret("S", None, Some(&file)));
        assert_eq!(read, (Some("CANARY".to_owned()), vec![]), "a byte order mark is skipped");
        std::fs::write(&file, "\n").expect("written");
        let (_, errors) = checked(|check| check.secret("S", None, Some(&file)));
        assert!(errors[0].starts_with("S_FILE ") && errors[0].ends_with(" is empty"), "{errors:?}");
    }
}
