//! Every setting: a flag and an environment variable each, documented and defaulted. All that is wrong with them is
//! reported at once. Secrets are read here and nowhere else, and shown nowhere.

use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::SecretString;
use tracing_subscriber::EnvFilter;
use url::{Host, Url};

use crate::entropy::SystemEntropy;
use crate::model::address::AddressPolicy;
use crate::model::rate::Rate;
use crate::store::redis::url::RedisUrl;
use crate::store::seal::{Keyring, MasterKey};
use crate::telemetry::LogFormat;

/// The settings as they are given: text, unchecked.
#[derive(Args)]
pub struct Settings {
    /// Where LoginService listens, for the web tier: IP address and port.
    #[arg(long, env = "SSO_LISTEN", value_name = "ADDR:PORT", default_value = DEFAULT_LISTEN)]
    pub listen: String,
    /// Where ConnectionService listens, for support: IP address and port.
    #[arg(long, env = "SSO_ADMIN_LISTEN", value_name = "ADDR:PORT", default_value = DEFAULT_ADMIN_LISTEN)]
    pub admin_listen: String,
    /// Origin of the URIs that customers register at their IdP: {origin}/app/accounts/oidc/{slug}/login/ and
    /// .../login/callback/. https, or http at localhost.
    #[arg(long, env = "SSO_PUBLIC_URL", value_name = "ORIGIN", default_value = DEFAULT_PUBLIC_URL)]
    pub public_url: String,
    /// What all commands need that read the database.
    #[command(flatten)]
    pub sealed: SealedSettings,
    /// Where pending logins are kept: redis://USER:PASSWORD@HOST:PORT/DB,
    /// redis+sentinel://USER:PASSWORD@HOST:PORT,.../SERVICE/DB?sentinel_username=...&sentinel_password=..., or
    /// redis+cluster://USER:PASSWORD@HOST:PORT,...; rediss in place of redis: over TLS. Unset: in this process's memory,
    /// which is for one replica alone.
    #[arg(long, env = "SSO_REDIS_URL", value_name = "URL", hide_env_values = true)]
    pub redis_url: Option<String>,
    /// File that holds the Redis URL.
    #[arg(long, env = "SSO_REDIS_URL_FILE", value_name = "FILE")]
    pub redis_url_file: Option<PathBuf>,
    /// PEM file of the CAs of Redis's certificate. Default: the operating system's.
    #[arg(long, env = "SSO_REDIS_CA_FILE", value_name = "FILE")]
    pub redis_ca_file: Option<PathBuf>,
    /// How long a person has between the begin and the end of a login: 1m to 24h.
    #[arg(long, env = "SSO_STATE_TTL", value_name = "DURATION", default_value = DEFAULT_STATE_TTL)]
    pub state_ttl: String,
    /// Refuse a BeginLogin without browser_binding. Default: true unless SSO_LISTEN is loopback.
    #[arg(long, env = "SSO_REQUIRE_BROWSER_BINDING", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub require_browser_binding: Option<String>,
    /// Origins beside the public one to which return_to may lead, comma separated.
    #[arg(long, env = "SSO_ALLOWED_RETURN_ORIGINS", value_name = "ORIGIN,...", default_value = "")]
    pub allowed_return_origins: String,
    /// How many logins one network (client_key) may begin: a count and a period of 1s to 1h.
    #[arg(long, env = "SSO_BEGIN_RATE_PER_CLIENT", value_name = "N/PERIOD", default_value = DEFAULT_BEGIN_RATE_PER_CLIENT)]
    pub begin_rate_per_client: String,
    /// How many logins may begin at one account; high, since it only protects the store's memory.
    #[arg(long, env = "SSO_BEGIN_RATE", value_name = "N/PERIOD", default_value = DEFAULT_BEGIN_RATE)]
    pub begin_rate: String,
    /// How many pending logins memory holds at most, where no Redis is set: 1 to 10000000.
    #[arg(long, env = "SSO_MEMORY_PENDING_LOGINS", value_name = "N", default_value = DEFAULT_MEMORY_PENDING_LOGINS)]
    pub memory_pending_logins: String,
    /// How many connections and IdPs are remembered at most: 1 to 10000000.
    #[arg(long, env = "SSO_KNOWN_CONNECTIONS", value_name = "N", default_value = DEFAULT_KNOWN_CONNECTIONS)]
    pub known_connections: String,
    /// For development and tests: call IdPs over plain http and at private addresses too. TLS is verified all the same.
    #[arg(long, env = "SSO_ALLOW_INSECURE_PROVIDERS", value_name = "BOOL", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub allow_insecure_providers: String,
    /// Networks of IdPs on premises, comma separated CIDRs (10.20.0.0/16): the only private addresses that are called.
    #[arg(long, env = "SSO_ALLOWED_PROVIDER_CIDRS", value_name = "CIDR,...", default_value = "")]
    pub allowed_provider_cidrs: String,
    /// PEM file of CAs to trust for IdPs, beside the operating system's.
    #[arg(long, env = "SSO_PROVIDER_CA_FILE", value_name = "FILE")]
    pub provider_ca_file: Option<PathBuf>,
    /// PEM certificate chain of both listeners, read again when it changes. Needs SSO_TLS_KEY_FILE.
    #[arg(long, env = "SSO_TLS_CERT_FILE", value_name = "FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// PEM private key of that certificate.
    #[arg(long, env = "SSO_TLS_KEY_FILE", value_name = "FILE")]
    pub tls_key_file: Option<PathBuf>,
    /// PEM file of the CAs that sign callers' certificates. Callers are asked for one; who needs one says SSO_CALLERS_FILE.
    #[arg(long, env = "SSO_TLS_CLIENT_CA_FILE", value_name = "FILE")]
    pub tls_client_ca_file: Option<PathBuf>,
    /// TOML file of the programs that may call, read again when it changes: per caller a name, roles (login,
    /// identity, admin), and token_sha256 (hex, several while a token is changed) or san (DNS names or URIs of its
    /// certificate). Unset: everybody who reaches the listeners may call.
    #[arg(long, env = "SSO_CALLERS_FILE", value_name = "FILE")]
    pub callers_file: Option<PathBuf>,
    /// Offer gRPC server reflection, to everybody. Default: true where both listeners are loopback.
    #[arg(long, env = "SSO_REFLECTION", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub reflection: Option<String>,
    /// How many calls may be in flight at once; further ones are refused with OVERLOADED: 1 to 10000000.
    #[arg(long, env = "SSO_MAX_IN_FLIGHT", value_name = "N", default_value = DEFAULT_MAX_IN_FLIGHT)]
    pub max_in_flight: String,
    /// Listen on a non-loopback address without TLS or without callers: behind a service mesh.
    #[arg(long, env = "SSO_ALLOW_INSECURE_LISTEN", value_name = "BOOL", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub allow_insecure_listen: String,
    /// For whom CompleteLogin issues identity tokens: their `aud`, 1 to 256 visible ASCII characters. Unset: none are issued.
    #[arg(long, env = "SSO_IDENTITY_AUDIENCE", value_name = "AUDIENCE")]
    pub identity_audience: Option<String>,
    /// How long an identity token is valid: 1m to 24h.
    #[arg(long, env = "SSO_IDENTITY_TTL", value_name = "DURATION", default_value = DEFAULT_IDENTITY_TTL)]
    pub identity_ttl: String,
    /// How long a key signs identity tokens before the next one does: 1d to 366d.
    #[arg(long, env = "SSO_IDENTITY_KEY_LIFETIME", value_name = "DURATION", default_value = DEFAULT_IDENTITY_KEY_LIFETIME)]
    pub identity_key_lifetime: String,
    /// Where /metrics (Prometheus), /livez and /readyz answer over plain HTTP. Unset: nowhere.
    #[arg(long, env = "SSO_METRICS_LISTEN", value_name = "ADDR:PORT")]
    pub metrics_listen: Option<String>,
    /// How many accounts have a metrics label of their own, the first that are seen; all others share one.
    #[arg(long, env = "SSO_METRICS_ACCOUNTS", value_name = "N", default_value = DEFAULT_METRICS_ACCOUNTS)]
    pub metrics_accounts: String,
    /// Collector of traces: OTLP over gRPC, such as http://localhost:4317. Unset: no span is made. The other OTEL_... variables
    /// (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS, OTEL_BSP_...) hold too.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otel_exporter_otlp_endpoint: Option<String>,
    /// Tell IdPs in which trace a call is (W3C Trace Context).
    #[arg(long, env = "SSO_TRACE_PROVIDERS", value_name = "BOOL", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub trace_providers: String,
    /// How long calls in flight have to finish after SIGTERM: 1s to 10m.
    #[arg(long, env = "SSO_DRAIN_TIMEOUT", value_name = "DURATION", default_value = DEFAULT_DRAIN_TIMEOUT)]
    pub drain_timeout: String,
    /// text or json, on standard error.
    #[arg(long, env = "SSO_LOG_FORMAT", value_name = "FORMAT", default_value = DEFAULT_LOG_FORMAT)]
    pub log_format: String,
    /// What is logged: a level (error, warn, info, debug, trace), or directives such as peerpanda_sso=debug,info.
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", default_value = DEFAULT_LOG_FILTER)]
    pub log_filter: String,
}

/// Where connections are kept, and what opens them.
#[derive(Args)]
pub struct SealedSettings {
    /// Where connections are kept: sqlite://FILE (created where it isn't; sqlite:///abs/file.db is absolute) or
    /// postgres://USER:PASSWORD@HOST/DATABASE.
    #[arg(long, env = "SSO_DATABASE_URL", value_name = "URL", default_value = DEFAULT_DATABASE_URL, hide_env_values = true)]
    pub database_url: String,
    /// File that holds the database URL.
    #[arg(long, env = "SSO_DATABASE_URL_FILE", value_name = "FILE")]
    pub database_url_file: Option<PathBuf>,
    /// Keys that protect client secrets and pending logins: base64 of 32 random bytes each (openssl rand -base64 32),
    /// comma separated; the first seals, all open. With SQLite and memory a key file is made beside the database where
    /// none is given; with PostgreSQL or Redis they are required.
    #[arg(long, env = "SSO_ENCRYPTION_KEYS", value_name = "KEY,...", hide_env_values = true)]
    pub encryption_keys: Option<String>,
    /// File that holds the keys, comma or line separated.
    #[arg(long, env = "SSO_ENCRYPTION_KEYS_FILE", value_name = "FILE")]
    pub encryption_keys_file: Option<PathBuf>,
}

/// What there is to know about one setting.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The environment variable.
    pub variable: String,
    /// The flag, with its dashes.
    pub flag: String,
    /// Where it has one that doesn't depend on others.
    pub default: Option<String>,
    /// What it is for.
    pub help: String,
}

impl Setting {
    /// Every setting, in the order of the help.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let command = Settings::augment_args(clap::Command::new("serve"));
        let arguments = command.get_arguments().filter_map(|argument| {
            let default = argument
                .get_default_values()
                .first()
                .map(|value| value.to_string_lossy().into_owned());
            let help = argument
                .get_long_help()
                .or(argument.get_help())
                .map(ToString::to_string)
                .unwrap_or_default();
            Some(Self {
                variable: argument.get_env()?.to_string_lossy().into_owned(),
                flag: format!("--{}", argument.get_long()?),
                default: default.filter(|default| !default.is_empty()),
                help,
            })
        });
        arguments.collect()
    }
}

/// The settings, checked.
#[derive(Debug)]
pub struct Config {
    /// LoginService.
    pub listen: SocketAddr,
    /// ConnectionService.
    pub admin_listen: SocketAddr,
    /// Scheme, host and port, without a slash at the end.
    pub public_origin: String,
    /// Where connections are kept.
    pub database: Database,
    /// Where pending logins are kept; `None`: in memory.
    pub redis_url: Option<RedisUrl>,
    /// PEM of the CAs of Redis's certificate; `None`: the operating system's.
    pub redis_ca: Option<Vec<u8>>,
    /// What seals.
    pub keyring: Keyring,
    /// Between begin and complete.
    pub state_ttl: Duration,
    /// Whether begin needs a browser binding.
    pub require_browser_binding: bool,
    /// Where `return_to` may lead beside the public origin.
    pub allowed_return_origins: Vec<String>,
    /// How many logins one network may begin.
    pub begin_rate_per_client: Rate,
    /// How many logins may begin at one account.
    pub begin_rate: Rate,
    /// Bound of the store in memory.
    pub memory_pending_logins: usize,
    /// Bound of the caches.
    pub known_connections: u64,
    /// Where IdPs may be.
    pub provider_addresses: AddressPolicy,
    /// Private CAs for IdPs.
    pub provider_cas: Vec<CertificateDer<'static>>,
    /// Of both listeners; `None`: plain.
    pub tls: Option<TlsFiles>,
    /// Who may call; `None`: everybody.
    pub callers_file: Option<PathBuf>,
    /// Whether server reflection is offered.
    pub reflection: bool,
    /// Calls at once.
    pub max_in_flight: usize,
    /// For whom identity tokens are; `None`: none are issued.
    pub identity_audience: Option<String>,
    /// How long one is valid.
    pub identity_ttl: Duration,
    /// How long a key signs them.
    pub identity_key_lifetime: Duration,
    /// Where metrics and probes answer; `None`: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// How many accounts have a label of their own.
    pub metrics_accounts: usize,
    /// Where spans are sent; `None`: nowhere.
    pub trace_collector: Option<String>,
    /// Whether IdPs are told in which trace a call is.
    pub trace_providers: bool,
    /// For calls in flight at the end.
    pub drain_timeout: Duration,
}

impl Config {
    /// For a service within another program, such as a test: on loopback at free ports, with memory, and every default.
    #[must_use]
    pub fn local(public_origin: String, database: Database, keyring: Keyring) -> Self {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let rate = |text| {
            Rate::parse(text).unwrap_or(Rate { count: std::num::NonZeroU32::MIN, period: MINUTE })
        };
        let count = |text: &str| text.parse().unwrap_or(1);
        Self {
            listen: anywhere,
            admin_listen: anywhere,
            public_origin,
            database,
            redis_url: None,
            redis_ca: None,
            keyring,
            state_ttl: 15 * MINUTE,
            require_browser_binding: false,
            allowed_return_origins: Vec::new(),
            begin_rate_per_client: rate(DEFAULT_BEGIN_RATE_PER_CLIENT),
            begin_rate: rate(DEFAULT_BEGIN_RATE),
            memory_pending_logins: count(DEFAULT_MEMORY_PENDING_LOGINS),
            known_connections: count(DEFAULT_KNOWN_CONNECTIONS) as u64,
            provider_addresses: AddressPolicy::default(),
            provider_cas: Vec::new(),
            tls: None,
            callers_file: None,
            reflection: true,
            max_in_flight: count(DEFAULT_MAX_IN_FLIGHT),
            identity_audience: None,
            identity_ttl: 60 * MINUTE,
            identity_key_lifetime: 30 * DAY,
            metrics_listen: None,
            metrics_accounts: count(DEFAULT_METRICS_ACCOUNTS),
            trace_collector: None,
            trace_providers: false,
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// Where the listeners' certificate is, all PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// CAs of callers' certificates.
    pub client_ca: Option<PathBuf>,
}

/// Where connections are kept.
#[derive(Debug)]
pub enum Database {
    /// A file.
    Sqlite(PathBuf),
    /// A URL, which can hold a password.
    Postgres(SecretString),
}

/// Everything that is wrong with the settings.
#[derive(Debug)]
pub struct ConfigErrors(Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the settings can't be used:")?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl std::error::Error for ConfigErrors {}

impl Settings {
    /// How to log, which must be known before anything else can be told.
    ///
    /// # Errors
    /// All that is wrong with it.
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
            check.wrong("RUST_LOG", format!("is no log filter: {error}"));
            EnvFilter::default()
        });
        check.done((format, filter))
    }

    /// Checks all settings, and reads the files they name; may make the key file.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn check(&self) -> Result<Config, ConfigErrors> {
        let mut check = Check::default();
        if let Err(ConfigErrors(errors)) = self.logging() {
            check.errors.extend(errors);
        }
        let allow_insecure_listen =
            check.boolean("SSO_ALLOW_INSECURE_LISTEN", &self.allow_insecure_listen);
        let (tls, callers_file) = (self.tls(&mut check), given(self.callers_file.as_deref()));
        let is_closed = tls.is_some() && callers_file.is_some() || allow_insecure_listen;
        let listen =
            check.listen("SSO_LISTEN", or_default(&self.listen, DEFAULT_LISTEN), is_closed);
        let admin_listen = check.listen(
            "SSO_ADMIN_LISTEN",
            or_default(&self.admin_listen, DEFAULT_ADMIN_LISTEN),
            is_closed,
        );
        if listen == admin_listen && listen.port() != 0 {
            check.wrong("SSO_ADMIN_LISTEN", "must differ from SSO_LISTEN".to_owned());
        }
        let public_origin = check.public_origin(or_default(&self.public_url, DEFAULT_PUBLIC_URL));
        let (database, redis_url) = (self.sealed.database(&mut check), self.redis(&mut check));
        let keyring = self.sealed.keyring(&mut check, &database, redis_url.is_some());
        let require_browser_binding = check.boolean_or(
            "SSO_REQUIRE_BROWSER_BINDING",
            self.require_browser_binding.as_deref(),
            !listen.ip().is_loopback(),
        );
        let reflection = check.boolean_or(
            "SSO_REFLECTION",
            self.reflection.as_deref(),
            listen.ip().is_loopback() && admin_listen.ip().is_loopback(),
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
            provider_addresses: AddressPolicy {
                allow_insecure: check
                    .boolean("SSO_ALLOW_INSECURE_PROVIDERS", &self.allow_insecure_providers),
                allowed_networks: check
                    .networks("SSO_ALLOWED_PROVIDER_CIDRS", &self.allowed_provider_cidrs),
            },
            provider_cas: check.cas("SSO_PROVIDER_CA_FILE", self.provider_ca_file.as_deref()),
            tls,
            callers_file,
            reflection,
            max_in_flight: check
                .count("SSO_MAX_IN_FLIGHT", or_default(&self.max_in_flight, DEFAULT_MAX_IN_FLIGHT)),
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
                // Nothing there is secret.
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
            // Checked last, since it makes a file only where all else is right.
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
            (Some(_), None) => {
                check.wrong("SSO_TLS_KEY_FILE", "must be given with SSO_TLS_CERT_FILE".to_owned())
            }
            (None, Some(_)) => {
                check.wrong("SSO_TLS_CERT_FILE", "must be given with SSO_TLS_KEY_FILE".to_owned())
            }
            (None, None) if client_ca.is_some() => {
                check.wrong(
                    "SSO_TLS_CLIENT_CA_FILE",
                    "needs SSO_TLS_CERT_FILE and SSO_TLS_KEY_FILE".to_owned(),
                );
            }
            (None, None) => {}
        }
        None
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

impl SealedSettings {
    /// For a command that works on a database which is there.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn check(&self) -> Result<(Database, Keyring), ConfigErrors> {
        let mut check = Check::default();
        let database = self.database(&mut check);
        if let Database::Sqlite(file) = &database
            && !file.exists()
        {
            check
                .wrong("SSO_DATABASE_URL", format!("names {}, which is not there", file.display()));
        }
        match self.keyring(&mut check, &database, false) {
            Some(keyring) => check.done((database, keyring)),
            None => check.done_without(),
        }
    }

    fn database(&self, check: &mut Check) -> Database {
        let given = Some(self.database_url.as_str()).filter(|url| *url != DEFAULT_DATABASE_URL);
        let url = check.secret("SSO_DATABASE_URL", given, self.database_url_file.as_deref());
        let url = url.unwrap_or_else(|| DEFAULT_DATABASE_URL.to_owned());
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Database::Postgres(url.into());
        }
        let file = url.strip_prefix("sqlite://").unwrap_or_default();
        if file.is_empty() || file.contains(['?', '#']) {
            check.wrong(
                "SSO_DATABASE_URL",
                "must be sqlite://FILE or postgres://USER:PASSWORD@HOST/DATABASE".to_owned(),
            );
        }
        Database::Sqlite(file.into())
    }

    fn keyring(&self, check: &mut Check, database: &Database, has_redis: bool) -> Option<Keyring> {
        const NAME: &str = "SSO_ENCRYPTION_KEYS";
        let given = check.secret(
            NAME,
            self.encryption_keys.as_deref(),
            self.encryption_keys_file.as_deref(),
        );
        let text = match (given, database) {
            (Some(text), _) => text,
            (None, Database::Sqlite(file)) if !has_redis => {
                if !check.errors.is_empty() {
                    return None;
                }
                let key_file = file.with_added_extension("key");
                match key_file_text(&key_file) {
                    Ok(text) => text,
                    Err(error) => {
                        check.wrong(
                            NAME,
                            format!(
                                "is not given, and the key file {} can't be used: {error}",
                                key_file.display()
                            ),
                        );
                        return None;
                    }
                }
            }
            (None, _) => {
                check.wrong(
                    NAME,
                    "must be given with PostgreSQL or Redis: openssl rand -base64 32".to_owned(),
                );
                return None;
            }
        };
        let parts = text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty());
        let keys: Option<Vec<MasterKey>> = parts.map(MasterKey::parse).collect();
        let keyring = keys.and_then(Keyring::new);
        if keyring.is_none() {
            check.wrong(
                NAME,
                "must be base64 of exactly 32 bytes each, comma separated: openssl rand -base64 32"
                    .to_owned(),
            );
        }
        keyring
    }
}

/// Reads the key file; makes it, for its owner's eyes only, where it isn't.
fn key_file_text(file: &Path) -> Result<String, String> {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
    if !file.exists() {
        let key = MasterKey::generate(&SystemEntropy).encoded();
        // Written aside and linked into place: of two processes that start at once both use the first one's key.
        let aside = file.with_added_extension(format!("{}.new", std::process::id()));
        let made = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&aside)
            .and_then(|mut new| {
                writeln!(new, "{}", key.as_str())?;
                new.sync_all()?;
                std::fs::hard_link(&aside, file)
            });
        let _ = std::fs::remove_file(&aside);
        match made {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    let metadata = std::fs::metadata(file).map_err(|error| error.to_string())?;
    if metadata.mode() & 0o077 != 0 {
        return Err(format!(
            "its mode is {:o}, others may read it: chmod 600",
            metadata.mode() & 0o777
        ));
    }
    std::fs::read_to_string(file).map_err(|error| error.to_string())
}

#[derive(Default)]
struct Check {
    errors: Vec<String>,
}

impl Check {
    fn wrong(&mut self, name: &str, what: String) {
        self.errors.push(format!("{name} {what}"));
    }

    fn done<T>(self, checked: T) -> Result<T, ConfigErrors> {
        if self.errors.is_empty() { Ok(checked) } else { Err(ConfigErrors(self.errors)) }
    }

    fn done_without<T>(self) -> Result<T, ConfigErrors> {
        Err(ConfigErrors(self.errors))
    }

    /// A secret, given itself or by a file; its value is in no error.
    fn secret(&mut self, name: &str, value: Option<&str>, file: Option<&Path>) -> Option<String> {
        let value = value.map(str::trim).filter(|value| !value.is_empty());
        match (value, given(file)) {
            (Some(_), Some(_)) => {
                self.wrong(name, format!("and {name}_FILE must not both be given"));
                None
            }
            (Some(value), None) => Some(value.to_owned()),
            (None, Some(file)) => match std::fs::read_to_string(&file) {
                Ok(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
                Ok(_) => {
                    self.wrong(&format!("{name}_FILE"), format!("{} is empty", file.display()));
                    None
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

    fn listen(&mut self, name: &str, text: &str, is_closed: bool) -> SocketAddr {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let Ok(address) = text.parse::<SocketAddr>() else {
            self.wrong(
                name,
                format!("must be an IP address and a port such as 127.0.0.1:50051, not {text:?}"),
            );
            return nowhere;
        };
        if !address.ip().is_loopback() && !is_closed {
            self.wrong(
                name,
                format!("is {address}, which others can reach: give SSO_TLS_CERT_FILE, SSO_TLS_KEY_FILE and SSO_CALLERS_FILE, or SSO_ALLOW_INSECURE_LISTEN=true if a service mesh guards it"),
            );
        }
        address
    }

    fn boolean(&mut self, name: &str, text: &str) -> bool {
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => true,
            "false" | "0" | "no" | "off" | "" => false,
            _ => {
                self.wrong(name, format!("must be true or false, not {text:?}"));
                false
            }
        }
    }

    /// For a setting whose default depends on others.
    fn boolean_or(&mut self, name: &str, text: Option<&str>, default: bool) -> bool {
        match text.map(str::trim) {
            None | Some("") => default,
            Some(text) => self.boolean(name, text),
        }
    }

    fn duration(
        &mut self,
        name: &str,
        text: &str,
        range: std::ops::RangeInclusive<Duration>,
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

    fn rate(&mut self, name: &str, text: &str) -> Rate {
        Rate::parse(text).unwrap_or_else(|| {
            self.wrong(
                name,
                format!("must be a count and a period of 1s to 1h such as 120/1m, not {text:?}"),
            );
            Rate { count: std::num::NonZeroU32::MIN, period: MINUTE }
        })
    }

    fn count(&mut self, name: &str, text: &str) -> usize {
        match text.parse() {
            Ok(count @ 1..=10_000_000) => count,
            _ => {
                self.wrong(name, format!("must be 1 to 10000000, not {text:?}"));
                1
            }
        }
    }

    fn audience(&mut self, name: &str, text: Option<&str>) -> Option<String> {
        let text = text.map(str::trim).filter(|text| !text.is_empty())?;
        if text.len() > 256 || !text.bytes().all(|b| b.is_ascii_graphic()) {
            self.wrong(name, "must be 1 to 256 visible ASCII characters".to_owned());
        }
        Some(text.to_owned())
    }

    fn collector(&mut self, name: &str, text: Option<&str>) -> Option<String> {
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

    fn public_origin(&mut self, text: &str) -> String {
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

    fn origins(&mut self, name: &str, text: &str) -> Vec<String> {
        let mut origins = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match origin(part) {
                Some((origin, true)) => origins.push(origin),
                _ => self.wrong(name, format!("must be https origins (http only at localhost) without a path, not {part:?}")),
            }
        }
        origins
    }

    fn networks(&mut self, name: &str, text: &str) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.parse::<IpNet>() {
                Ok(network) if network == network.trunc() => networks.push(network),
                Ok(network) => {
                    self.wrong(name, format!("has {part}, whose network is {}", network.trunc()))
                }
                Err(_) => {
                    self.wrong(name, format!("must be CIDRs such as 10.20.0.0/16, not {part:?}"))
                }
            }
        }
        networks
    }

    fn cas(&mut self, name: &str, file: Option<&Path>) -> Vec<CertificateDer<'static>> {
        let Some(pem) = self.pem(name, file) else { return Vec::new() };
        CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect()
    }

    /// A PEM file of certificates.
    fn pem(&mut self, name: &str, file: Option<&Path>) -> Option<Vec<u8>> {
        let file = given(file)?;
        let read = std::fs::read(&file).map_err(|error| error.to_string()).and_then(|pem| {
            let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
            match certificates {
                Ok(certificates) if certificates.is_empty() => {
                    Err("it holds no certificate".to_owned())
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

/// An origin, and whether it is safe to send people to: https, or this machine.
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

/// A file that is named; an empty name counts as none.
fn given(file: Option<&Path>) -> Option<PathBuf> {
    file.filter(|file| !file.as_os_str().is_empty()).map(Path::to_owned)
}

/// An environment variable that is set to nothing counts as unset.
fn or_default<'a>(text: &'a str, default: &'a str) -> &'a str {
    match text.trim() {
        "" => default,
        text => text,
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const DEFAULT_LISTEN: &str = "127.0.0.1:50051";
const DEFAULT_ADMIN_LISTEN: &str = "127.0.0.1:50052";
const DEFAULT_PUBLIC_URL: &str = "http://localhost:8080";
const DEFAULT_DATABASE_URL: &str = "sqlite://peerpanda-sso.db";
const DEFAULT_STATE_TTL: &str = "15m";
const DEFAULT_BEGIN_RATE_PER_CLIENT: &str = "120/1m";
const DEFAULT_BEGIN_RATE: &str = "6000/1m";
const DEFAULT_MEMORY_PENDING_LOGINS: &str = "100000";
const DEFAULT_KNOWN_CONNECTIONS: &str = "20000";
const DEFAULT_MAX_IN_FLIGHT: &str = "4096";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const DEFAULT_IDENTITY_TTL: &str = "1h";
const DEFAULT_IDENTITY_KEY_LIFETIME: &str = "30d";
const DEFAULT_METRICS_ACCOUNTS: &str = "500";
const DEFAULT_DRAIN_TIMEOUT: &str = "25s";
const DEFAULT_LOG_FORMAT: &str = "text";
const DEFAULT_LOG_FILTER: &str = "info";
