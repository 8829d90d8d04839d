//! Every setting is a flag and an environment variable, with its documentation and default. `main` parses
//! and checks them; all problems are reported at once. Secrets are read here and never shown.

mod key_file;
mod parsing;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use rustls::pki_types::CertificateDer;
use secrecy::SecretString;
use tracing_subscriber::EnvFilter;

use crate::model::address::AddressPolicy;
use crate::model::rate::Rate;
use crate::store::redis::url::RedisUrl;
use crate::store::seal::{Keyring, MasterKey};
use crate::telemetry::LogFormat;
use parsing::{Check, given, or_default};

/// The settings as they were given: unchecked text.
#[derive(Args)]
pub struct Settings {
    /// Listen here for the web tier (LoginService): IP address and port.
    #[arg(long, env = "SSO_LISTEN", value_name = "ADDR:PORT", default_value = DEFAULT_LISTEN)]
    pub listen: String,
    /// Listen here for support (ConnectionService): IP address and port.
    #[arg(long, env = "SSO_ADMIN_LISTEN", value_name = "ADDR:PORT", default_value = DEFAULT_ADMIN_LISTEN)]
    pub admin_listen: String,
    /// Set the origin of the URIs that customers register at their IdP:
    /// {origin}/app/accounts/oidc/{slug}/login/ and .../login/callback/. Must be https, or http at
    /// localhost.
    #[arg(long, env = "SSO_PUBLIC_URL", value_name = "ORIGIN", default_value = DEFAULT_PUBLIC_URL)]
    pub public_url: String,
    /// Shared with the commands that read the database.
    #[command(flatten)]
    pub sealed: SealedSettings,
    /// Keep pending logins in this Redis: redis://USER:PASSWORD@HOST:PORT/DB,
    /// redis+sentinel://USER:PASSWORD@HOST:PORT,.../SERVICE/DB?sentinel_username=...&sentinel_password=...,
    /// or redis+cluster://USER:PASSWORD@HOST:PORT,...; with rediss instead of redis for TLS. If unset,
    /// they are kept in this process's memory, which works for a single replica only.
    #[arg(long, env = "SSO_REDIS_URL", value_name = "URL", hide_env_values = true)]
    pub redis_url: Option<String>,
    /// Read the Redis URL from this file.
    #[arg(long, env = "SSO_REDIS_URL_FILE", value_name = "FILE")]
    pub redis_url_file: Option<PathBuf>,
    /// Verify Redis's certificate by the CAs in this PEM file. Default: the operating system's CAs.
    #[arg(long, env = "SSO_REDIS_CA_FILE", value_name = "FILE")]
    pub redis_ca_file: Option<PathBuf>,
    /// Limit the time between the begin and the completion of a login: 1m to 24h.
    #[arg(long, env = "SSO_STATE_TTL", value_name = "DURATION", default_value = DEFAULT_STATE_TTL)]
    pub state_ttl: String,
    /// Refuse a BeginLogin without browser_binding. Default: true unless SSO_LISTEN is a loopback address.
    #[arg(long, env = "SSO_REQUIRE_BROWSER_BINDING", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub require_browser_binding: Option<String>,
    /// Allow return_to to lead to these origins in addition to the public one, comma separated.
    #[arg(long, env = "SSO_ALLOWED_RETURN_ORIGINS", value_name = "ORIGIN,...", default_value = "")]
    pub allowed_return_origins: String,
    /// Limit the logins that one network (client_key) may begin: a count and a period of 1s to 1h.
    #[arg(long, env = "SSO_BEGIN_RATE_PER_CLIENT", value_name = "N/PERIOD", default_value = DEFAULT_BEGIN_RATE_PER_CLIENT)]
    pub begin_rate_per_client: String,
    /// Limit the logins that may begin at one account. It only protects the store's memory, so keep it
    /// high.
    #[arg(long, env = "SSO_BEGIN_RATE", value_name = "N/PERIOD", default_value = DEFAULT_BEGIN_RATE)]
    pub begin_rate: String,
    /// Limit the pending logins in memory if SSO_REDIS_URL is unset: 1 to 10000000.
    #[arg(long, env = "SSO_MEMORY_PENDING_LOGINS", value_name = "N", default_value = DEFAULT_MEMORY_PENDING_LOGINS)]
    pub memory_pending_logins: String,
    /// Limit the connections, and the IdPs, that are cached: 1 to 10000000.
    #[arg(long, env = "SSO_KNOWN_CONNECTIONS", value_name = "N", default_value = DEFAULT_KNOWN_CONNECTIONS)]
    pub known_connections: String,
    /// Allow IdPs with plain http and at private addresses, for development and tests. TLS certificates
    /// are still verified.
    #[arg(long, env = "SSO_ALLOW_INSECURE_PROVIDERS", value_name = "BOOL", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub allow_insecure_providers: String,
    /// Allow IdPs at private addresses in these networks only: comma separated CIDRs (10.20.0.0/16).
    #[arg(long, env = "SSO_ALLOWED_PROVIDER_CIDRS", value_name = "CIDR,...", default_value = "")]
    pub allowed_provider_cidrs: String,
    /// Trust the CAs in this PEM file for IdPs, in addition to the operating system's CAs.
    #[arg(long, env = "SSO_PROVIDER_CA_FILE", value_name = "FILE")]
    pub provider_ca_file: Option<PathBuf>,
    /// Serve both listeners over TLS with this PEM certificate chain. It is reloaded when it changes.
    /// Requires SSO_TLS_KEY_FILE.
    #[arg(long, env = "SSO_TLS_CERT_FILE", value_name = "FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// Read the private key of that certificate from this PEM file.
    #[arg(long, env = "SSO_TLS_KEY_FILE", value_name = "FILE")]
    pub tls_key_file: Option<PathBuf>,
    /// Verify callers' certificates by the CAs in this PEM file. A certificate is requested but not
    /// required; SSO_CALLERS_FILE says which callers are identified by one.
    #[arg(long, env = "SSO_TLS_CLIENT_CA_FILE", value_name = "FILE")]
    pub tls_client_ca_file: Option<PathBuf>,
    /// Read the programs that may call from this TOML file. It is reloaded when it changes. Each [[caller]]
    /// has a name, roles (login, identity, admin), and token_sha256 (hex; several during a rotation) or
    /// san (DNS names or URIs of its certificate). If unset, everybody who reaches the listeners may call.
    #[arg(long, env = "SSO_CALLERS_FILE", value_name = "FILE")]
    pub callers_file: Option<PathBuf>,
    /// Offer gRPC server reflection to everybody. Default: true if both listeners are loopback addresses.
    #[arg(long, env = "SSO_REFLECTION", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub reflection: Option<String>,
    /// Limit the calls in flight; further ones are refused with OVERLOADED: 1 to 10000000.
    #[arg(long, env = "SSO_MAX_IN_FLIGHT", value_name = "N", default_value = DEFAULT_MAX_IN_FLIGHT)]
    pub max_in_flight: String,
    /// Allow a non-loopback address without TLS or without SSO_CALLERS_FILE, for use behind a service
    /// mesh.
    #[arg(long, env = "SSO_ALLOW_INSECURE_LISTEN", value_name = "BOOL", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub allow_insecure_listen: String,
    /// Issue identity tokens at CompleteLogin with this `aud`: 1 to 256 visible ASCII characters. If unset,
    /// none are issued.
    #[arg(long, env = "SSO_IDENTITY_AUDIENCE", value_name = "AUDIENCE")]
    pub identity_audience: Option<String>,
    /// Set how long an identity token is valid: 1m to 24h.
    #[arg(long, env = "SSO_IDENTITY_TTL", value_name = "DURATION", default_value = DEFAULT_IDENTITY_TTL)]
    pub identity_ttl: String,
    /// Set how long a key signs identity tokens before the next key does: 1d to 366d.
    #[arg(long, env = "SSO_IDENTITY_KEY_LIFETIME", value_name = "DURATION", default_value = DEFAULT_IDENTITY_KEY_LIFETIME)]
    pub identity_key_lifetime: String,
    /// Serve /metrics (Prometheus), /livez and /readyz here over plain HTTP. If unset, they are not served.
    #[arg(long, env = "SSO_METRICS_LISTEN", value_name = "ADDR:PORT")]
    pub metrics_listen: Option<String>,
    /// Limit the accounts that have a metrics label of their own: the first ones to log in. All others
    /// share a label.
    #[arg(long, env = "SSO_METRICS_ACCOUNTS", value_name = "N", default_value = DEFAULT_METRICS_ACCOUNTS)]
    pub metrics_accounts: String,
    /// Send traces to this collector: OTLP over gRPC, such as http://localhost:4317. If unset, none are
    /// sent. The other OTEL_... variables (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
    /// OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS, OTEL_BSP_...) apply, too.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otel_exporter_otlp_endpoint: Option<String>,
    /// Send the trace context of a call to IdPs (W3C Trace Context).
    #[arg(long, env = "SSO_TRACE_PROVIDERS", value_name = "BOOL", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub trace_providers: String,
    /// Wait this long for calls in flight after SIGTERM: 1s to 10m.
    #[arg(long, env = "SSO_DRAIN_TIMEOUT", value_name = "DURATION", default_value = DEFAULT_DRAIN_TIMEOUT)]
    pub drain_timeout: String,
    /// Write log lines to standard error in this format: text or json.
    #[arg(long, env = "SSO_LOG_FORMAT", value_name = "FORMAT", default_value = DEFAULT_LOG_FORMAT)]
    pub log_format: String,
    /// Log events of at least this level (error, warn, info, debug, trace), or those that match directives
    /// such as peerpanda_sso=debug,info.
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", default_value = DEFAULT_LOG_FILTER)]
    pub log_filter: String,
}

/// Where connections are kept, and the keys that seal them.
#[derive(Args)]
pub struct SealedSettings {
    /// Keep connections in this database: sqlite://FILE (created if missing; sqlite:///abs/file.db is
    /// absolute) or postgres://USER:PASSWORD@HOST/DATABASE.
    #[arg(long, env = "SSO_DATABASE_URL", value_name = "URL", default_value = DEFAULT_DATABASE_URL, hide_env_values = true)]
    pub database_url: String,
    /// Read the database URL from this file.
    #[arg(long, env = "SSO_DATABASE_URL_FILE", value_name = "FILE")]
    pub database_url_file: Option<PathBuf>,
    /// Protect client secrets and pending logins by these keys: base64 of 32 random bytes each (openssl
    /// rand -base64 32), comma separated. The first seals, all open. If unset, a key file is created next
    /// to the SQLite database; with PostgreSQL or Redis the keys are required.
    #[arg(long, env = "SSO_ENCRYPTION_KEYS", value_name = "KEY,...", hide_env_values = true)]
    pub encryption_keys: Option<String>,
    /// Read the keys from this file, separated by commas or line breaks.
    #[arg(long, env = "SSO_ENCRYPTION_KEYS_FILE", value_name = "FILE")]
    pub encryption_keys_file: Option<PathBuf>,
}

/// The documentation of one setting.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The environment variable.
    pub variable: String,
    /// The flag, with its dashes.
    pub flag: String,
    /// `None`: there is none, or it depends on other settings.
    pub default: Option<String>,
    /// What it does.
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
    /// The addresses that IdPs may have.
    pub provider_addresses: AddressPolicy,
    /// CAs for IdPs, in addition to the operating system's.
    pub provider_cas: Vec<CertificateDer<'static>>,
    /// TLS of both gRPC listeners; `None`: plaintext.
    pub tls: Option<TlsFiles>,
    /// Who may call; `None`: everybody.
    pub callers_file: Option<PathBuf>,
    /// Whether server reflection is offered.
    pub reflection: bool,
    /// Calls in flight.
    pub max_in_flight: usize,
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
    /// Probing the stores and applying changes of other replicas: one small query, whatever the number
    /// of accounts.
    pub store_probe: Duration,
    /// Looking for changed certificates and callers.
    pub reload: Duration,
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
            maintenance: MINUTE,
            attempts_write: Duration::from_millis(500),
            restart_pause: Duration::from_secs(1),
        }
    }
}

impl Config {
    /// For a service within another program, such as a test: on free loopback ports, with pending logins
    /// in memory and defaults for everything else.
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
            intervals: Intervals::default(),
        }
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
    /// For a command that works on an existing database.
    ///
    /// # Errors
    /// All problems of these settings.
    pub fn check(&self) -> Result<(Database, Keyring), ConfigErrors> {
        let mut check = Check::default();
        let database = self.database(&mut check);
        if let Database::Sqlite(file) = &database
            && !file.exists()
        {
            check.wrong(
                "SSO_DATABASE_URL",
                format!("names {}, which does not exist", file.display()),
            );
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
                match key_file::read_or_create(&key_file) {
                    Ok(text) => text,
                    Err(error) => {
                        let file = key_file.display();
                        check.wrong(NAME, format!("is unset, and the key file {file} {error}"));
                        return None;
                    }
                }
            }
            (None, _) => {
                check.wrong(
                    NAME,
                    "must be set if PostgreSQL or Redis is used: openssl rand -base64 32"
                        .to_owned(),
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
