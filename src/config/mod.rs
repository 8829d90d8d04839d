//! Checks the settings and makes the configuration of them; all problems are reported at once.
//! Called by `main`. Secrets are read here and never shown.

mod key_file;
mod parsing;
mod sealed;
mod settings;
mod variables;
mod weakness;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use secrecy::SecretString;
use tracing_subscriber::EnvFilter;

use crate::model::address::AddressPolicy;
use crate::model::limits::ListenerLimits;
use crate::model::rate::Rate;
use crate::model::slug::Slug;
use crate::oidc::clients::AccountTrust;
use crate::oidc::proxy::Proxy;
use crate::store::redis::url::RedisUrl;
use crate::store::seal::Keyring;
use crate::telemetry::LogFormat;
use parsing::{Check, given, or_default};
use settings::*;
pub use settings::{SealedSettings, Setting, Settings};
pub use variables::{refuse_unknown_variables, secret_flag, without_empty_variables};
pub use weakness::Weakness;

/// The checked settings.
#[derive(Debug)]
pub struct Config {
    /// Address of LoginService.
    pub listen: SocketAddr,
    /// Address of ConnectionService.
    pub admin_listen: SocketAddr,
    /// Scheme, host and port, without a trailing slash.
    pub public_origin: String,
    /// Where connections are kept.
    pub database: Database,
    /// Where pending logins are kept; `None`: in memory.
    pub redis_url: Option<RedisUrl>,
    /// PEM of the CAs of Redis's certificate; `None`: the operating system's.
    pub redis_ca: Option<Vec<u8>>,
    /// Seals client secrets and pending logins.
    pub keyring: Keyring,
    /// Between the begin and the completion of a login.
    pub state_ttl: Duration,
    /// How long the answer of a login is kept for the same callback; zero: not at all.
    pub answer_ttl: Duration,
    /// Whether BeginLogin requires a browser binding.
    pub require_browser_binding: bool,
    /// Where `return_to` may lead, in addition to the public origin.
    pub allowed_return_origins: Vec<String>,
    /// Logins that one network may begin.
    pub begin_rate_per_client: Rate,
    /// Logins that may begin at one account.
    pub begin_rate: Rate,
    /// Pending logins in memory.
    pub memory_pending_logins: usize,
    /// Cached connections and IdPs.
    pub known_connections: u64,
    /// How long cached connections are used while the database doesn't answer.
    pub known_connections_max_age: Duration,
    /// The addresses that IdPs may have.
    pub provider_addresses: AddressPolicy,
    /// The proxy through which IdPs are called.
    pub provider_proxy: Option<Proxy>,
    /// A variable that names a proxy for other programs, and that has no effect here, though no proxy
    /// is set.
    pub unread_proxy_variable: Option<&'static str>,
    /// Asked for the addresses of IdPs in place of the machine's name servers. Not a setting: for tests.
    pub provider_name_server: Option<SocketAddr>,
    /// CAs for IdPs, in addition to the operating system's.
    pub provider_cas: Vec<CertificateDer<'static>>,
    /// Networks and CAs for the IdP of one account alone.
    pub account_trust: BTreeMap<Slug, AccountTrust>,
    /// TLS of both gRPC listeners; `None`: plaintext.
    pub tls: Option<TlsFiles>,
    /// Who may call; `None`: everybody.
    pub callers_file: Option<PathBuf>,
    /// Whether server reflection is offered.
    pub reflection: bool,
    /// Calls in flight.
    pub max_in_flight: usize,
    /// Connections of each gRPC listener. Not a setting: a test lowers it.
    pub listener_limits: ListenerLimits,
    /// `aud` of identity tokens; `None`: none are issued.
    pub identity_audience: Option<String>,
    /// How long an identity token is valid.
    pub identity_ttl: Duration,
    /// How long a key signs identity tokens.
    pub identity_key_lifetime: Duration,
    /// Address of metrics and probes; `None`: not served.
    pub metrics_listen: Option<SocketAddr>,
    /// Accounts with a metrics label of their own.
    pub metrics_accounts: usize,
    /// OTLP URL of the trace collector; `None`: no traces are sent.
    pub trace_collector: Option<String>,
    /// Whether IdPs get the trace context.
    pub trace_providers: bool,
    /// For calls in flight at shutdown.
    pub drain_timeout: Duration,
    /// How often background tasks run.
    pub intervals: Intervals,
}

/// How often background tasks run. Not settings: a test shortens them so that it needn't wait.
#[derive(Clone, Copy, Debug)]
pub struct Intervals {
    /// Probing the stores and applying changes of other replicas: one small query, whatever the
    /// number of accounts.
    pub store_probe: Duration,
    /// Looking for changed certificates and callers.
    pub reload: Duration,
    /// Reading the keys that sign identity tokens.
    pub identity_keys_read: Duration,
    /// Deleting old login attempts and counting secrets that expire.
    pub maintenance: Duration,
    /// How long a login attempt may wait to be written together with others.
    pub attempts_write: Duration,
    /// Before a background task that failed is restarted.
    pub restart_pause: Duration,
}

impl Default for Intervals {
    fn default() -> Self {
        Self {
            store_probe: Duration::from_secs(2),
            reload: Duration::from_secs(2),
            identity_keys_read: Duration::from_secs(30),
            maintenance: MINUTE,
            attempts_write: Duration::from_millis(500),
            restart_pause: Duration::from_secs(1),
        }
    }
}

impl Config {
    /// For a service within another program, such as a test: on free loopback ports, with pending
    /// logins in memory and defaults for everything else.
    #[must_use]
    pub fn local(public_origin: String, database: Database, keyring: Keyring) -> Self {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let rate = |text| {
            Rate::parse(text).unwrap_or(Rate { count: std::num::NonZeroU32::MIN, period: MINUTE })
        };
        let count = |text: &str| text.parse().unwrap_or(1);
        Self {
            listen: any_port,
            admin_listen: any_port,
            public_origin,
            database,
            redis_url: None,
            redis_ca: None,
            keyring,
            state_ttl: 15 * MINUTE,
            answer_ttl: MINUTE / 2,
            require_browser_binding: false,
            allowed_return_origins: Vec::new(),
            begin_rate_per_client: rate(DEFAULT_BEGIN_RATE_PER_CLIENT),
            begin_rate: rate(DEFAULT_BEGIN_RATE),
            memory_pending_logins: count(DEFAULT_MEMORY_PENDING_LOGINS),
            known_connections: count(DEFAULT_KNOWN_CONNECTIONS) as u64,
            known_connections_max_age: DAY,
            provider_addresses: AddressPolicy::default(),
            provider_proxy: None,
            unread_proxy_variable: None,
            provider_name_server: None,
            provider_cas: Vec::new(),
            account_trust: BTreeMap::new(),
            tls: None,
            callers_file: None,
            reflection: true,
            max_in_flight: count(DEFAULT_MAX_IN_FLIGHT),
            listener_limits: ListenerLimits::default(),
            identity_audience: None,
            identity_ttl: 60 * MINUTE,
            identity_key_lifetime: 30 * DAY,
            metrics_listen: None,
            metrics_accounts: count(DEFAULT_METRICS_ACCOUNTS),
            trace_collector: None,
            trace_providers: false,
            drain_timeout: Duration::from_secs(5),
            intervals: Intervals::default(),
        }
    }
}

impl Config {
    /// The open files that the limits permit: connections of both listeners, a connection to an IdP for
    /// each call, and what else is open.
    #[must_use]
    pub fn open_files(&self) -> u64 {
        let connections = 2 * self.listener_limits.connections + self.max_in_flight;
        u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHER_OPEN_FILES)
    }
}

/// PEM files for the listeners.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate chain, leaf first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// CAs of callers' certificates; `None`: none are requested.
    pub client_ca: Option<PathBuf>,
}

/// Where connections are kept.
#[derive(Debug)]
pub enum Database {
    /// The file, created if missing.
    Sqlite(PathBuf),
    /// The URL, which can contain a password.
    Postgres(SecretString),
}

/// All problems of the settings.
#[derive(Debug)]
pub struct ConfigErrors(Vec<String>);

impl ConfigErrors {
    /// The problems of both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid settings:")?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl std::error::Error for ConfigErrors {}

impl Settings {
    /// How to log. Apart from [`Settings::check`], since logs must work first.
    ///
    /// # Errors
    /// All problems of these settings.
    pub fn logging(&self) -> Result<(LogFormat, EnvFilter), ConfigErrors> {
        let mut check = Check::default();
        let format = match or_default(&self.log_format, DEFAULT_LOG_FORMAT) {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            other => {
                check.wrong("SSO_LOG_FORMAT", format!("must be text or json, not {other:?}"));
                LogFormat::Text
            }
        };
        let filter = EnvFilter::try_new(or_default(&self.log_filter, DEFAULT_LOG_FILTER));
        let filter = filter.unwrap_or_else(|error| {
            check.wrong("RUST_LOG", format!("is not a valid log filter: {error}"));
            EnvFilter::default()
        });
        check.done((format, filter))
    }

    /// Checks all settings and reads the files that they name. May create the key file.
    ///
    /// # Errors
    /// All problems of all settings.
    pub fn check(&self) -> Result<Config, ConfigErrors> {
        let mut check = Check::default();
        if let Err(ConfigErrors(errors)) = self.logging() {
            check.errors.extend(errors);
        }
        let allow_insecure_listen =
            check.boolean("SSO_ALLOW_INSECURE_LISTEN", &self.allow_insecure_listen);
        let (tls, callers_file) = (self.tls(&mut check), given(self.callers_file.as_deref()));
        let is_protected = tls.is_some() && callers_file.is_some() || allow_insecure_listen;
        let listen =
            check.listen("SSO_LISTEN", or_default(&self.listen, DEFAULT_LISTEN), is_protected);
        let admin_listen = check.listen(
            "SSO_ADMIN_LISTEN",
            or_default(&self.admin_listen, DEFAULT_ADMIN_LISTEN),
            is_protected,
        );
        if listen == admin_listen && listen.port() != 0 {
            check.wrong("SSO_ADMIN_LISTEN", "must differ from SSO_LISTEN".to_owned());
        }
        let public_origin = check.public_origin(or_default(&self.public_url, DEFAULT_PUBLIC_URL));
        let (database, redis_url) = (self.sealed.database(&mut check), self.redis(&mut check));
        let keyring = self.sealed.keyring(&mut check, &database, redis_url.is_some());
        let is_local = listen.ip().is_loopback() && admin_listen.ip().is_loopback();
        let provider_addresses = self.provider_addresses(&mut check, is_local);
        let require_browser_binding = check.boolean_or(
            "SSO_REQUIRE_BROWSER_BINDING",
            self.require_browser_binding.as_deref(),
            !listen.ip().is_loopback(),
        );
        let reflection = check.boolean_or("SSO_REFLECTION", self.reflection.as_deref(), is_local);
        let provider_proxy = check.proxy(
            "SSO_PROVIDER_PROXY",
            self.provider_proxy.as_deref(),
            self.provider_proxy_file.as_deref(),
        );
        let config = Config {
            listen,
            admin_listen,
            public_origin,
            database,
            redis_url,
            redis_ca: check.pem("SSO_REDIS_CA_FILE", self.redis_ca_file.as_deref()),
            state_ttl: check.duration(
                "SSO_STATE_TTL",
                or_default(&self.state_ttl, DEFAULT_STATE_TTL),
                MINUTE..=1440 * MINUTE,
            ),
            answer_ttl: check.duration(
                "SSO_ANSWER_TTL",
                or_default(&self.answer_ttl, DEFAULT_ANSWER_TTL),
                Duration::ZERO..=2 * MINUTE,
            ),
            require_browser_binding,
            allowed_return_origins: check
                .origins("SSO_ALLOWED_RETURN_ORIGINS", &self.allowed_return_origins),
            begin_rate_per_client: check.rate(
                "SSO_BEGIN_RATE_PER_CLIENT",
                or_default(&self.begin_rate_per_client, DEFAULT_BEGIN_RATE_PER_CLIENT),
            ),
            begin_rate: check
                .rate("SSO_BEGIN_RATE", or_default(&self.begin_rate, DEFAULT_BEGIN_RATE)),
            memory_pending_logins: check.count(
                "SSO_MEMORY_PENDING_LOGINS",
                or_default(&self.memory_pending_logins, DEFAULT_MEMORY_PENDING_LOGINS),
            ),
            known_connections: check.count(
                "SSO_KNOWN_CONNECTIONS",
                or_default(&self.known_connections, DEFAULT_KNOWN_CONNECTIONS),
            ) as u64,
            known_connections_max_age: check.duration(
                "SSO_KNOWN_CONNECTIONS_MAX_AGE",
                or_default(&self.known_connections_max_age, DEFAULT_KNOWN_CONNECTIONS_MAX_AGE),
                MINUTE..=30 * DAY,
            ),
            provider_addresses,
            unread_proxy_variable: parsing::unread_proxy_variable()
                .filter(|_| provider_proxy.is_none()),
            provider_proxy,
            provider_name_server: None,
            provider_cas: check.cas("SSO_PROVIDER_CA_FILE", self.provider_ca_file.as_deref()),
            account_trust: check.account_trust(
                ("SSO_ACCOUNT_PROVIDER_CIDRS", &self.account_provider_cidrs),
                ("SSO_ACCOUNT_PROVIDER_CAS", &self.account_provider_cas),
            ),
            tls,
            callers_file,
            reflection,
            max_in_flight: check
                .count("SSO_MAX_IN_FLIGHT", or_default(&self.max_in_flight, DEFAULT_MAX_IN_FLIGHT)),
            listener_limits: ListenerLimits::default(),
            identity_audience: check
                .audience("SSO_IDENTITY_AUDIENCE", self.identity_audience.as_deref()),
            identity_ttl: check.duration(
                "SSO_IDENTITY_TTL",
                or_default(&self.identity_ttl, DEFAULT_IDENTITY_TTL),
                MINUTE..=1440 * MINUTE,
            ),
            identity_key_lifetime: check.duration(
                "SSO_IDENTITY_KEY_LIFETIME",
                or_default(&self.identity_key_lifetime, DEFAULT_IDENTITY_KEY_LIFETIME),
                DAY..=366 * DAY,
            ),
            metrics_listen: self
                .metrics_listen
                .as_deref()
                .map(str::trim)
                .filter(|text| !text.is_empty())
                // It serves nothing secret.
                .map(|text| check.listen("SSO_METRICS_LISTEN", text, true)),
            metrics_accounts: check.count(
                "SSO_METRICS_ACCOUNTS",
                or_default(&self.metrics_accounts, DEFAULT_METRICS_ACCOUNTS),
            ),
            trace_collector: check.collector(
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                self.otel_exporter_otlp_endpoint.as_deref(),
            ),
            trace_providers: check.boolean("SSO_TRACE_PROVIDERS", &self.trace_providers),
            drain_timeout: check.duration(
                "SSO_DRAIN_TIMEOUT",
                or_default(&self.drain_timeout, DEFAULT_DRAIN_TIMEOUT),
                Duration::from_secs(1)..=10 * MINUTE,
            ),
            intervals: Intervals::default(),
            // Checked last: a key file is only created if everything else is valid.
            keyring: match keyring {
                Some(keyring) => keyring,
                None => return check.done_without(),
            },
        };
        check.done(config)
    }

    fn tls(&self, check: &mut Check) -> Option<TlsFiles> {
        let client_ca = given(self.tls_client_ca_file.as_deref());
        match (given(self.tls_cert_file.as_deref()), given(self.tls_key_file.as_deref())) {
            (Some(cert), Some(key)) => return Some(TlsFiles { cert, key, client_ca }),
            (Some(_), None) => check
                .wrong("SSO_TLS_KEY_FILE", "must be set if SSO_TLS_CERT_FILE is set".to_owned()),
            (None, Some(_)) => check
                .wrong("SSO_TLS_CERT_FILE", "must be set if SSO_TLS_KEY_FILE is set".to_owned()),
            (None, None) if client_ca.is_some() => {
                check.wrong(
                    "SSO_TLS_CLIENT_CA_FILE",
                    "requires SSO_TLS_CERT_FILE and SSO_TLS_KEY_FILE".to_owned(),
                );
            }
            (None, None) => {}
        }
        None
    }

    fn provider_addresses(&self, check: &mut Check, is_local: bool) -> AddressPolicy {
        const INSECURE: &str = "SSO_ALLOW_INSECURE_PROVIDERS";
        let allow_insecure = check.boolean(INSECURE, &self.allow_insecure_providers);
        if allow_insecure && !is_local {
            check.wrong(
                INSECURE,
                "must not be true if other machines can reach SSO_LISTEN or SSO_ADMIN_LISTEN: allow IdPs in a private network by SSO_ACCOUNT_PROVIDER_CIDRS and SSO_ACCOUNT_PROVIDER_CAS"
                    .to_owned(),
            );
        }
        let allowed_networks =
            check.networks("SSO_ALLOWED_PROVIDER_CIDRS", &self.allowed_provider_cidrs);
        AddressPolicy { allow_insecure, allowed_networks }
    }

    fn redis(&self, check: &mut Check) -> Option<RedisUrl> {
        let url = check.secret(
            "SSO_REDIS_URL",
            self.redis_url.as_deref(),
            self.redis_url_file.as_deref(),
        )?;
        match RedisUrl::parse(&url) {
            Ok(url) => Some(url),
            Err(error) => {
                check.errors.push(format!("SSO_REDIS_URL: {error}"));
                None
            }
        }
    }
}

/// Connections of the metrics listener, to Redis, SQL and the collector of traces, and kept ones to IdPs.
const OTHER_OPEN_FILES: u64 = 512;
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
