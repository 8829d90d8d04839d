//! The flags and environment variables of `serve`, with their documentation and defaults. The help,
//! the `settings` command and the reference documentation are made from them.

use std::path::PathBuf;

use clap::Args;

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
    /// or redis+cluster://USER:PASSWORD@HOST:PORT,...; with rediss instead of redis for TLS. If
    /// unset, they are kept in this process's memory, which works for a single replica only.
    #[arg(long, env = "SSO_REDIS_URL", value_name = "URL", hide = true, hide_env_values = true)]
    pub redis_url: Option<String>,
    /// Read SSO_REDIS_URL from this file.
    #[arg(long, env = "SSO_REDIS_URL_FILE", value_name = "FILE")]
    pub redis_url_file: Option<PathBuf>,
    /// Verify Redis's certificate by the CAs in this PEM file. Default: the operating system's CAs.
    #[arg(long, env = "SSO_REDIS_CA_FILE", value_name = "FILE")]
    pub redis_ca_file: Option<PathBuf>,
    /// Limit the time between the begin and the completion of a login: 1m to 24h.
    #[arg(long, env = "SSO_STATE_TTL", value_name = "DURATION", default_value = DEFAULT_STATE_TTL)]
    pub state_ttl: String,
    /// Give a callback that arrives again within this time from the same browser the same answer, instead
    /// of STATE_USED: 0s (never) to 2m.
    #[arg(long, env = "SSO_ANSWER_TTL", value_name = "DURATION", default_value = DEFAULT_ANSWER_TTL)]
    pub answer_ttl: String,
    /// Refuse a BeginLogin without browser_binding. Default: true unless SSO_LISTEN is a loopback
    /// address.
    #[arg(long, env = "SSO_REQUIRE_BROWSER_BINDING", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub require_browser_binding: Option<String>,
    /// Allow return_to to lead to these origins in addition to the public one, comma separated.
    #[arg(long, env = "SSO_ALLOWED_RETURN_ORIGINS", value_name = "ORIGIN,...", default_value = "")]
    pub allowed_return_origins: String,
    /// Limit the logins that one network (client_key) may begin: a count and a period of 1s to 1h.
    #[arg(long, env = "SSO_BEGIN_RATE_PER_CLIENT", value_name = "N/PERIOD", default_value = DEFAULT_BEGIN_RATE_PER_CLIENT)]
    pub begin_rate_per_client: String,
    /// Limit the logins that may begin at one account. It only protects the store's memory, so keep
    /// it high.
    #[arg(long, env = "SSO_BEGIN_RATE", value_name = "N/PERIOD", default_value = DEFAULT_BEGIN_RATE)]
    pub begin_rate: String,
    /// Limit the pending logins in memory if SSO_REDIS_URL is unset: 1 to 10000000.
    #[arg(long, env = "SSO_MEMORY_PENDING_LOGINS", value_name = "N", default_value = DEFAULT_MEMORY_PENDING_LOGINS)]
    pub memory_pending_logins: String,
    /// Limit the connections, and the IdPs, that are cached: 1 to 10000000.
    #[arg(long, env = "SSO_KNOWN_CONNECTIONS", value_name = "N", default_value = DEFAULT_KNOWN_CONNECTIONS)]
    pub known_connections: String,
    /// Limit how long cached connections are used while the database doesn't answer: 1m to 30d. Until
    /// then a replica that is cut off from the database may accept logins of a connection that was
    /// disabled or deleted in the meantime.
    #[arg(long, env = "SSO_KNOWN_CONNECTIONS_MAX_AGE", value_name = "DURATION", default_value = DEFAULT_KNOWN_CONNECTIONS_MAX_AGE)]
    pub known_connections_max_age: String,
    /// Allow IdPs with plain http and at private addresses, for development and tests, while both
    /// listeners are loopback addresses. TLS certificates are still verified.
    #[arg(long, env = "SSO_ALLOW_INSECURE_PROVIDERS", value_name = "BOOL", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub allow_insecure_providers: String,
    /// Allow the IdPs of all accounts at private addresses in these networks: comma separated CIDRs
    /// (10.20.0.0/16).
    #[arg(long, env = "SSO_ALLOWED_PROVIDER_CIDRS", value_name = "CIDR,...", default_value = "")]
    pub allowed_provider_cidrs: String,
    /// Allow the IdP of one account at private addresses in these networks: comma separated
    /// (acme=10.20.0.0/16,acme=10.30.0.0/16).
    #[arg(
        long,
        env = "SSO_ACCOUNT_PROVIDER_CIDRS",
        value_name = "ACCOUNT=CIDR,...",
        default_value = ""
    )]
    pub account_provider_cidrs: String,
    /// Trust the CAs in this PEM file for the IdPs of all accounts, in addition to the operating
    /// system's CAs.
    #[arg(long, env = "SSO_PROVIDER_CA_FILE", value_name = "FILE")]
    pub provider_ca_file: Option<PathBuf>,
    /// Trust the CAs in these PEM files for the IdP of one account: comma separated
    /// (acme=/etc/acme.pem,globex=/etc/globex.pem).
    #[arg(
        long,
        env = "SSO_ACCOUNT_PROVIDER_CAS",
        value_name = "ACCOUNT=FILE,...",
        default_value = ""
    )]
    pub account_provider_cas: String,
    /// Call IdPs through this proxy, by CONNECT: http://USER:PASSWORD@HOST:PORT. It resolves their
    /// names, so it must refuse private addresses itself. If unset, IdPs are called directly; HTTPS_PROXY
    /// is not read.
    #[arg(long, env = "SSO_PROVIDER_PROXY", value_name = "URL", hide_env_values = true)]
    pub provider_proxy: Option<String>,
    /// Read the proxy's URL from this file.
    #[arg(long, env = "SSO_PROVIDER_PROXY_FILE", value_name = "FILE")]
    pub provider_proxy_file: Option<PathBuf>,
    /// Serve both listeners over TLS with this PEM certificate chain. It is reloaded when it
    /// changes. Requires SSO_TLS_KEY_FILE.
    #[arg(long, env = "SSO_TLS_CERT_FILE", value_name = "FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// Read the private key of that certificate from this PEM file.
    #[arg(long, env = "SSO_TLS_KEY_FILE", value_name = "FILE")]
    pub tls_key_file: Option<PathBuf>,
    /// Verify callers' certificates by the CAs in this PEM file. A certificate is requested but not
    /// required; SSO_CALLERS_FILE says which callers are identified by one.
    #[arg(long, env = "SSO_TLS_CLIENT_CA_FILE", value_name = "FILE")]
    pub tls_client_ca_file: Option<PathBuf>,
    /// Read the programs that may call from this TOML file. It is reloaded when it changes. Each
    /// caller has a name, roles (login, identity, admin), and token_sha256 (hex; several during a
    /// rotation) or san (DNS names or URIs of its certificate). If unset, everybody who reaches the
    /// listeners may call.
    #[arg(long, env = "SSO_CALLERS_FILE", value_name = "FILE")]
    pub callers_file: Option<PathBuf>,
    /// Offer gRPC server reflection to everybody. Default: true if both listeners are loopback
    /// addresses.
    #[arg(long, env = "SSO_REFLECTION", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub reflection: Option<String>,
    /// Limit the open calls of LoginService; further ones are refused with OVERLOADED. Half as many may
    /// be open of IdentityService, and a sixteenth, at least 16, of ConnectionService: 1 to 10000000.
    #[arg(long, env = "SSO_MAX_IN_FLIGHT", value_name = "N", default_value = DEFAULT_MAX_IN_FLIGHT)]
    pub max_in_flight: String,
    /// Allow a non-loopback address without TLS or without SSO_CALLERS_FILE, for use behind a
    /// service mesh.
    #[arg(long, env = "SSO_ALLOW_INSECURE_LISTEN", value_name = "BOOL", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub allow_insecure_listen: String,
    /// Issue identity tokens at CompleteLogin with this `aud`: 1 to 256 visible ASCII characters.
    /// If unset, none are issued.
    #[arg(long, env = "SSO_IDENTITY_AUDIENCE", value_name = "AUDIENCE")]
    pub identity_audience: Option<String>,
    /// Set how long an identity token is valid: 1m to 24h.
    #[arg(long, env = "SSO_IDENTITY_TTL", value_name = "DURATION", default_value = DEFAULT_IDENTITY_TTL)]
    pub identity_ttl: String,
    /// Set how long a key signs identity tokens before the next key does: 1d to 366d.
    #[arg(long, env = "SSO_IDENTITY_KEY_LIFETIME", value_name = "DURATION", default_value = DEFAULT_IDENTITY_KEY_LIFETIME)]
    pub identity_key_lifetime: String,
    /// Serve /metrics (Prometheus), /livez and /readyz here over plain HTTP. If unset, they are not
    /// served.
    #[arg(long, env = "SSO_METRICS_LISTEN", value_name = "ADDR:PORT")]
    pub metrics_listen: Option<String>,
    /// Limit the accounts that have a metrics label of their own: the first ones to log in. All
    /// others share a label.
    #[arg(long, env = "SSO_METRICS_ACCOUNTS", value_name = "N", default_value = DEFAULT_METRICS_ACCOUNTS)]
    pub metrics_accounts: String,
    /// Send traces to this collector: OTLP over gRPC, such as http://localhost:4317. If unset, none
    /// are sent. The other OTEL_... variables (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
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
    /// Log events of at least this level (error, warn, info, debug, trace), or those that match
    /// directives such as peerpanda_sso=debug,info.
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", default_value = DEFAULT_LOG_FILTER)]
    pub log_filter: String,
}

/// Where connections are kept, and the keys that seal them.
#[derive(Args)]
pub struct SealedSettings {
    /// Keep connections in this database: sqlite://FILE (created if missing; sqlite:///abs/file.db
    /// is absolute) or postgres://USER:PASSWORD@HOST/DATABASE?sslmode=verify-full, with &pgbouncer=true
    /// if a pooler is in between that shares sessions between transactions.
    #[arg(long, env = "SSO_DATABASE_URL", value_name = "URL", default_value = DEFAULT_DATABASE_URL, hide = true, hide_env_values = true)]
    pub database_url: String,
    /// Read SSO_DATABASE_URL from this file.
    #[arg(long, env = "SSO_DATABASE_URL_FILE", value_name = "FILE")]
    pub database_url_file: Option<PathBuf>,
    /// Protect client secrets and pending logins by these keys: base64 of 32 random bytes each
    /// (openssl rand -base64 32), comma separated. The first seals, all open. If unset, a key file
    /// is created next to the SQLite database; with PostgreSQL or Redis the keys are required.
    #[arg(
        long,
        env = "SSO_ENCRYPTION_KEYS",
        value_name = "KEY,...",
        hide = true,
        hide_env_values = true
    )]
    pub encryption_keys: Option<String>,
    /// Read SSO_ENCRYPTION_KEYS from this file, separated by commas or line breaks.
    #[arg(long, env = "SSO_ENCRYPTION_KEYS_FILE", value_name = "FILE")]
    pub encryption_keys_file: Option<PathBuf>,
}

/// The documentation of one setting.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The environment variable.
    pub variable: String,
    /// The flag, with its dashes; `None`: it is a secret.
    pub flag: Option<String>,
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
                flag: argument
                    .get_long()
                    .filter(|_| !argument.is_hide_env_values_set())
                    .map(|flag| format!("--{flag}")),
                default: default.filter(|default| !default.is_empty()),
                help,
            })
        });
        arguments.collect()
    }
}

pub(super) const DEFAULT_LISTEN: &str = "127.0.0.1:50051";
pub(super) const DEFAULT_ADMIN_LISTEN: &str = "127.0.0.1:50052";
pub(super) const DEFAULT_PUBLIC_URL: &str = "http://localhost:8080";
pub(super) const DEFAULT_DATABASE_URL: &str = "sqlite://peerpanda-sso.db";
pub(super) const DEFAULT_STATE_TTL: &str = "15m";
pub(super) const DEFAULT_ANSWER_TTL: &str = "30s";
pub(super) const DEFAULT_BEGIN_RATE_PER_CLIENT: &str = "120/1m";
pub(super) const DEFAULT_BEGIN_RATE: &str = "6000/1m";
pub(super) const DEFAULT_MEMORY_PENDING_LOGINS: &str = "100000";
pub(super) const DEFAULT_KNOWN_CONNECTIONS: &str = "20000";
pub(super) const DEFAULT_KNOWN_CONNECTIONS_MAX_AGE: &str = "24h";
pub(super) const DEFAULT_MAX_IN_FLIGHT: &str = "4096";
pub(super) const DEFAULT_IDENTITY_TTL: &str = "1h";
pub(super) const DEFAULT_IDENTITY_KEY_LIFETIME: &str = "30d";
pub(super) const DEFAULT_METRICS_ACCOUNTS: &str = "500";
pub(super) const DEFAULT_DRAIN_TIMEOUT: &str = "25s";
pub(super) const DEFAULT_LOG_FORMAT: &str = "text";
pub(super) const DEFAULT_LOG_FILTER: &str = "info";
