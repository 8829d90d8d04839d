//! What of a valid configuration is insecure where others can reach it. `main` logs each at the start.

use std::fmt;

use secrecy::ExposeSecret;

use super::{Config, Database};
use crate::model::address::is_loopback_host;
use crate::store::sql::postgres::PostgresUrl;

/// A choice that is fine on one machine or behind other protection, and a risk without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakness {
    /// A listener beyond loopback, without TLS.
    PlaintextListener,
    /// A listener beyond loopback, without a list of callers.
    NoCallers,
    /// IdPs may use plain http and private addresses.
    InsecureProviders,
    /// A listener beyond loopback, and redirect URIs to localhost.
    LocalPublicUrl,
    /// A listener beyond loopback, and logins that aren't bound to a browser.
    NoBrowserBinding,
    /// PostgreSQL on another machine isn't authenticated.
    UnverifiedDatabase,
    /// Redis on another machine isn't encrypted.
    PlaintextRedis,
    /// Several replicas can share PostgreSQL, but not the pending logins.
    SharedDatabaseWithoutRedis,
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PlaintextListener => {
                "a listener that other machines can reach has no TLS \
                 (SSO_ALLOW_INSECURE_LISTEN): only a service mesh can protect it"
            }
            Self::NoCallers => {
                "everybody who reaches a listener may call it, to change connections too \
                 (SSO_ALLOW_INSECURE_LISTEN without SSO_CALLERS_FILE)"
            }
            Self::InsecureProviders => {
                "IdPs may use plain http and private addresses (SSO_ALLOW_INSECURE_PROVIDERS): for \
                 development only"
            }
            Self::LocalPublicUrl => {
                "other machines can reach a listener, but SSO_PUBLIC_URL is at localhost over http"
            }
            Self::NoBrowserBinding => {
                "a login that somebody else began can be completed in a person's browser \
                 (SSO_REQUIRE_BROWSER_BINDING=false)"
            }
            Self::UnverifiedDatabase => {
                "PostgreSQL on another machine is not authenticated: add sslmode=verify-full to \
                 SSO_DATABASE_URL"
            }
            Self::PlaintextRedis => {
                "the connection to Redis on another machine is not encrypted: use rediss in \
                 SSO_REDIS_URL"
            }
            Self::SharedDatabaseWithoutRedis => {
                "pending logins are kept in memory, since SSO_REDIS_URL is unset: a second replica \
                 at the same database would refuse the logins that begin here"
            }
        })
    }
}

impl Config {
    /// All of them.
    #[must_use]
    pub fn weaknesses(&self) -> Vec<Weakness> {
        let is_local = self.listen.ip().is_loopback() && self.admin_listen.ip().is_loopback();
        let (is_verified, is_shared) = match &self.database {
            Database::Sqlite(_) => (true, false),
            // An invalid URL is an error of its own.
            Database::Postgres(url) => (
                PostgresUrl::parse(url.expose_secret())
                    .map_or(true, |url| url.is_verified() || url.is_local()),
                true,
            ),
        };
        let is_encrypted = self
            .redis_url
            .as_ref()
            .is_none_or(|url| url.tls || url.nodes.iter().all(|(host, _)| is_loopback_host(host)));
        [
            (!is_local && self.tls.is_none(), Weakness::PlaintextListener),
            (!is_local && self.callers_file.is_none(), Weakness::NoCallers),
            (self.provider_addresses.allow_insecure, Weakness::InsecureProviders),
            (!is_local && self.public_origin.starts_with("http://"), Weakness::LocalPublicUrl),
            (!is_local && !self.require_browser_binding, Weakness::NoBrowserBinding),
            (!is_verified, Weakness::UnverifiedDatabase),
            (!is_encrypted, Weakness::PlaintextRedis),
            (is_shared && self.redis_url.is_none(), Weakness::SharedDatabaseWithoutRedis),
        ]
        .into_iter()
        .filter_map(|(applies, weakness)| applies.then_some(weakness))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::TlsFiles;
    use crate::entropy::SystemEntropy;
    use crate::store::redis::url::RedisUrl;
    use crate::store::seal::{Keyring, MasterKey};

    /// The weaknesses of a configuration that has none until it is changed.
    fn weaknesses(change: impl FnOnce(&mut Config)) -> Vec<Weakness> {
        let keyring = Keyring::new(vec![MasterKey::generate(&SystemEntropy)]).expect("a key");
        let database = Database::Sqlite("sso.db".into());
        let mut config = Config::local("https://sso.example".to_owned(), database, keyring);
        config.listen = ([0, 0, 0, 0], 50051).into();
        config.callers_file = Some(PathBuf::from("callers.toml"));
        config.require_browser_binding = true;
        let (cert, key) = (PathBuf::from("crt"), PathBuf::from("key"));
        config.tls = Some(TlsFiles { cert, key, client_ca: None });
        change(&mut config);
        config.weaknesses()
    }

    #[test]
    fn each_weakness_is_found_where_others_reach_the_service() {
        assert_eq!(weaknesses(|_| {}), []);
        let local = |config: &mut Config| {
            config.listen = ([127, 0, 0, 1], 50051).into();
            (config.tls, config.callers_file) = (None, None);
            config.require_browser_binding = false;
        };
        assert_eq!(weaknesses(local), []);
        assert_eq!(weaknesses(|config| config.tls = None), [Weakness::PlaintextListener]);
        assert_eq!(weaknesses(|config| config.callers_file = None), [Weakness::NoCallers]);
        let insecure = |config: &mut Config| config.provider_addresses.allow_insecure = true;
        assert_eq!(weaknesses(insecure), [Weakness::InsecureProviders]);
        let local_url =
            |config: &mut Config| "http://localhost".clone_into(&mut config.public_origin);
        assert_eq!(weaknesses(local_url), [Weakness::LocalPublicUrl]);
        let unbound = |config: &mut Config| config.require_browser_binding = false;
        assert_eq!(weaknesses(unbound), [Weakness::NoBrowserBinding]);
    }

    #[test]
    fn a_store_on_another_machine_needs_tls() {
        use Weakness::{PlaintextRedis, SharedDatabaseWithoutRedis, UnverifiedDatabase};
        let with = |database: &str, redis: Option<&str>| {
            weaknesses(|config| {
                config.database = Database::Postgres(database.to_owned().into());
                config.redis_url = redis.map(|url| RedisUrl::parse(url).expect("a URL"));
            })
        };
        let (safe, local) = ("postgres://db/sso?sslmode=verify-full", "redis://127.0.0.1");
        assert_eq!(with(safe, Some("rediss://redis")), []);
        assert_eq!(with("postgres://localhost/sso", Some(local)), []);
        assert_eq!(with("postgres:///sso?host=/run/postgresql", Some("redis://[::1]:1")), []);
        assert_eq!(with("postgres://db/sso", Some(local)), [UnverifiedDatabase]);
        assert_eq!(with("postgres://db/sso?sslmode=require", Some(local)), [UnverifiedDatabase]);
        assert_eq!(with(safe, Some("redis://redis")), [PlaintextRedis]);
        assert_eq!(with(safe, Some("redis+cluster://127.0.0.1,redis")), [PlaintextRedis]);
        assert_eq!(with(safe, None), [SharedDatabaseWithoutRedis]);
    }
}
