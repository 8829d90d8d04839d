//! The composition root: Config in, a running service out. The only file that names a backend.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Database};
use crate::connections::{AutomaticChanges, ConnectionAdmin};
use crate::entropy::{Entropy, SystemEntropy};
use crate::identity_token::{IdentityTokenPolicy, IdentityTokens, READ_INTERVAL};
use crate::login::attempts::AttemptLog;
use crate::login::{Login, LoginPolicy};
use crate::model::return_to::ReturnRule;
use crate::model::secret::EXPIRES_SOON;
use crate::oidc::http::{CallPolicy, HttpClient};
use crate::oidc::providers::Providers;
use crate::server::grpc::auth::{Callers, WatchedCallers};
use crate::server::http;
use crate::server::tls::{self, WatchedTls};
use crate::server::{Health, Server, ServerConfig, Support};
use crate::store::cache::{ConnectionCache, POLL_INTERVAL};
use crate::store::memory::MemoryPendingLogins;
use crate::store::redis::RedisPendingLogins;
use crate::store::seal::Keyring;
use crate::store::sql::postgres::PostgresConnections;
use crate::store::sql::rows::RowCodec;
use crate::store::sql::sqlite::SqliteConnections;
use crate::store::{
    Connections, DeferredStore, LoginAttempts, PendingLogins, Reseal, Resealed, SigningKeys,
};
use crate::telemetry::traces::Traces;
use crate::telemetry::{Metrics, secrets_expiring};

/// Time and chance for the whole service.
#[derive(Clone)]
pub struct Environment {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Gives what nobody can foresee.
    pub entropy: Arc<dyn Entropy>,
}

impl Default for Environment {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), entropy: Arc::new(SystemEntropy) }
    }
}

/// A running service. Dropping it without [`App::shut_down`] leaves it running.
pub struct App {
    login_addr: SocketAddr,
    admin_addr: SocketAddr,
    server: Server,
    watch: JoinHandle<()>,
    maintenance: JoinHandle<()>,
    attempts: Arc<AttemptLog>,
    attempts_writer: JoinHandle<()>,
    /// Metrics and probes.
    operations: Option<JoinHandle<()>>,
    /// What waits for the database, where it was away at the start.
    opening: Option<JoinHandle<()>>,
    traces: Option<Traces>,
}

impl App {
    /// Starts the service: when this returns, both listeners answer.
    ///
    /// # Errors
    /// An address can't be listened on, the database can't be opened, or the Redis URL is none.
    pub async fn start(config: Config, environment: Environment) -> Result<Self, String> {
        // First, so that nothing goes uncounted.
        let metrics =
            config.metrics_listen.map(|_| Metrics::start(config.metrics_accounts)).transpose()?;
        let (tls, callers) = open_listener_security(&config)?;
        let traces = config.trace_collector.as_deref().map(Traces::start).transpose()?;
        let listener = |address: SocketAddr| async move {
            TcpListener::bind(address)
                .await
                .map_err(|error| format!("can't listen on {address}: {error}"))
        };
        // First, so that whoever reaches the others finds the probes there too.
        let metrics_listener = match config.metrics_listen {
            Some(address) => Some(listener(address).await?),
            None => None,
        };
        let (login_listener, admin_listener) =
            (listener(config.listen).await?, listener(config.admin_listen).await?);
        let address =
            |listener: &TcpListener| listener.local_addr().map_err(|error| error.to_string());
        let (login_addr, admin_addr) = (address(&login_listener)?, address(&admin_listener)?);

        let pending = open_pending_logins(&config, &environment)?;
        let sql = Sql::default();
        let clock = &environment.clock;
        let connections = Arc::new(ConnectionCache::new(
            Arc::clone(&sql.connections),
            Arc::clone(clock),
            config.known_connections,
        ));
        let identity_tokens = config.identity_audience.clone().map(|audience| {
            let policy = IdentityTokenPolicy {
                issuer: config.public_origin.clone(),
                audience,
                ttl: config.identity_ttl,
                key_lifetime: config.identity_key_lifetime,
                read_interval: READ_INTERVAL,
            };
            Arc::new(IdentityTokens::new(
                policy,
                Arc::clone(&sql.signing_keys),
                Arc::clone(clock),
                Arc::clone(&environment.entropy),
            ))
        });
        let (attempts, writer) = AttemptLog::new(Arc::clone(clock), Arc::clone(&sql.attempts));
        let (attempts, attempts_writer) = (Arc::new(attempts), tokio::spawn(writer));
        let opening = open_sql(&config, &environment, sql.clone()).await?;
        let http = HttpClient::new(&CallPolicy {
            addresses: config.provider_addresses.clone(),
            extra_cas: config.provider_cas.clone(),
            propagate_trace_context: config.trace_providers,
        })?;
        let admin = ConnectionAdmin::new(
            Arc::clone(&sql.connections),
            Arc::clone(&sql.attempts),
            Arc::clone(&connections),
            http.clone(),
            Arc::clone(&environment.clock),
            Arc::clone(&environment.entropy),
            config.public_origin.clone(),
        );
        let providers = Providers::new(
            http,
            Arc::clone(&environment.clock),
            config.public_origin.clone(),
            config.known_connections,
        );
        let login = Login::new(
            LoginPolicy {
                begin_rate_per_client: config.begin_rate_per_client,
                begin_rate: config.begin_rate,
                state_ttl: config.state_ttl,
                require_browser_binding: config.require_browser_binding,
                return_rule: ReturnRule::new(
                    config.public_origin.clone(),
                    config.allowed_return_origins.clone(),
                ),
                public_origin: config.public_origin.clone(),
            },
            &config.keyring,
            Arc::clone(&connections),
            Arc::new(AutomaticChanges::new(
                Arc::clone(&sql.connections),
                Arc::clone(&connections),
                Arc::clone(clock),
            )),
            Arc::clone(&attempts),
            Arc::clone(&pending),
            Arc::new(providers),
            Arc::clone(&environment.clock),
            Arc::clone(&environment.entropy),
        );

        let health = Health::new();
        let operations = metrics_listener.zip(metrics).map(|(listener, metrics)| {
            http::serve(listener, metrics, health.readiness(), identity_tokens.clone())
        });
        let mut stores = Stores {
            health: health.clone(),
            identity_tokens: identity_tokens.clone(),
            ..Stores::default()
        };
        let maintenance = Maintenance {
            store: Arc::clone(&sql.connections),
            attempts: Arc::clone(&attempts),
            clock: Arc::clone(&environment.clock),
        };
        let maintenance = tokio::spawn(run_maintenance(maintenance));
        stores.probe_stores(&connections, pending.as_ref()).await;
        let login = Arc::new(login);
        let watch = tokio::spawn(watch_stores(stores, connections, pending, Arc::clone(&login)));
        let server_config = ServerConfig {
            login_listener,
            admin_listener,
            tls,
            callers,
            reflection: config.reflection,
            max_in_flight: config.max_in_flight,
            drain_timeout: config.drain_timeout,
        };
        let support = Support {
            admin: Arc::new(admin),
            attempts: Arc::clone(&attempts),
            public_origin: config.public_origin,
        };
        let server = Server::start(server_config, login, identity_tokens, support, health);
        tracing::info!(login.address = %login_addr, admin.address = %admin_addr, "peerpanda-sso serves");
        Ok(Self {
            login_addr,
            admin_addr,
            server,
            watch,
            maintenance,
            operations,
            opening,
            traces,
            attempts,
            attempts_writer,
        })
    }

    /// Where LoginService answers.
    #[must_use]
    pub fn login_addr(&self) -> SocketAddr {
        self.login_addr
    }

    /// Where ConnectionService answers.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Says NOT_SERVING, takes no more calls, and waits for those in flight, at most the drain timeout.
    pub async fn shut_down(self) {
        self.watch.abort();
        self.maintenance.abort();
        if let Some(opening) = self.opening {
            opening.abort();
        }
        self.server.shutdown().await;
        self.attempts.flush().await;
        self.attempts_writer.abort();
        if let Some(operations) = self.operations {
            operations.abort();
        }
        if let Some(traces) = self.traces {
            traces.stop().await;
        }
        tracing::info!("peerpanda-sso has stopped");
    }
}

/// Puts all that is sealed in the database under the newest key, while others serve.
///
/// # Errors
/// The database can't be opened, or fails.
pub async fn reseal(
    database: &Database,
    keyring: Keyring,
    environment: &Environment,
) -> Result<Resealed, String> {
    let codec = codec(keyring, environment);
    let store: Box<dyn Reseal> = match database {
        Database::Sqlite(file) => Box::new(open_sqlite(file, codec).await?),
        Database::Postgres(url) => {
            let options = PostgresConnections::options(url.expose_secret())
                .map_err(|error| error.to_string())?;
            Box::new(
                PostgresConnections::open(options, codec)
                    .await
                    .map_err(|error| error.to_string())?,
            )
        }
    };
    store.reseal().await.map_err(|error| error.to_string())
}

async fn open_sqlite(file: &Path, codec: RowCodec) -> Result<SqliteConnections, String> {
    SqliteConnections::open(file, codec)
        .await
        .map_err(|error| format!("{}: {error}", file.display()))
}

fn codec(keyring: Keyring, environment: &Environment) -> RowCodec {
    RowCodec {
        keyring: Arc::new(keyring),
        entropy: Arc::clone(&environment.entropy),
        clock: Arc::clone(&environment.clock),
    }
}

type ListenerSecurity = (Option<Arc<WatchedTls>>, Option<Arc<WatchedCallers>>);

/// The listeners' certificate, and who may call.
fn open_listener_security(config: &Config) -> Result<ListenerSecurity, String> {
    let tls = config
        .tls
        .clone()
        .map(|files| tls::open(files.cert, files.key, files.client_ca))
        .transpose()?;
    let callers = config.callers_file.clone().map(|file| {
        let callers = Callers::open(file.clone()).map_err(|error| format!("SSO_CALLERS_FILE {}: {error}", file.display()))?;
        let has_client_cas = config.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        if callers.current().need_certificates() && !has_client_cas {
            return Err("SSO_CALLERS_FILE knows callers by certificate (san): that needs SSO_TLS_CLIENT_CA_FILE".to_owned());
        }
        Ok(callers)
    });
    Ok((tls.map(Arc::new), callers.transpose()?.map(Arc::new)))
}

/// The stores in SQL, which may be opened some time after the start.
#[derive(Clone)]
struct Sql {
    connections: Arc<DeferredStore<dyn Connections>>,
    signing_keys: Arc<DeferredStore<dyn SigningKeys>>,
    attempts: Arc<DeferredStore<dyn LoginAttempts>>,
}

impl Default for Sql {
    fn default() -> Self {
        Self {
            connections: Arc::new(DeferredStore::new("connections")),
            signing_keys: Arc::new(DeferredStore::new("signing keys")),
            attempts: Arc::new(DeferredStore::new("login attempts")),
        }
    }
}

impl Sql {
    fn open<S: Connections + SigningKeys + LoginAttempts + 'static>(&self, opened: S) {
        let opened = Arc::new(opened);
        self.attempts.open(Arc::clone(&opened) as Arc<dyn LoginAttempts>);
        self.signing_keys.open(Arc::clone(&opened) as Arc<dyn SigningKeys>);
        self.connections.open(opened);
    }
}

/// Opens SQLite at once, or not at all. PostgreSQL may be away: then it is waited for, by the task that is given.
async fn open_sql(
    config: &Config,
    environment: &Environment,
    sql: Sql,
) -> Result<Option<JoinHandle<()>>, String> {
    let codec = codec(config.keyring.clone(), environment);
    match &config.database {
        Database::Sqlite(file) => {
            sql.open(open_sqlite(file, codec).await?);
            Ok(None)
        }
        Database::Postgres(url) => {
            let options = PostgresConnections::options(url.expose_secret())
                .map_err(|error| error.to_string())?;
            let mut opening = tokio::spawn(async move {
                let mut pause = OPEN_PAUSE_AT_FIRST;
                loop {
                    match PostgresConnections::open(options.clone(), codec.clone()).await {
                        Ok(opened) => return sql.open(opened),
                        Err(error) => {
                            tracing::warn!(%error, "the database can't be opened yet; trying again in {pause:?}")
                        }
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(OPEN_PAUSE_AT_MOST);
                }
            });
            // Where it is there, the service serves from its first moment.
            let is_open = tokio::time::timeout(OPEN_PATIENCE, &mut opening).await.is_ok();
            Ok((!is_open).then_some(opening))
        }
    }
}

fn open_pending_logins(
    config: &Config,
    environment: &Environment,
) -> Result<Arc<dyn PendingLogins>, String> {
    Ok(match &config.redis_url {
        Some(url) => Arc::new(
            RedisPendingLogins::lazy(url, config.redis_ca.clone())
                .map_err(|error| error.to_string())?,
        ),
        None => Arc::new(MemoryPendingLogins::new(
            Arc::clone(&environment.clock),
            config.memory_pending_logins,
        )),
    })
}

/// What was seen of the stores at the last look, so that a change is told once.
#[derive(Default)]
struct Stores {
    health: Health,
    identity_tokens: Option<Arc<IdentityTokens>>,
    connections_away: Option<String>,
    pending_away: Option<String>,
    keys_away: Option<String>,
}

impl Stores {
    /// Looks for changes of other replicas, and whether the stores answer.
    async fn probe_stores(&mut self, connections: &ConnectionCache, pending: &dyn PendingLogins) {
        let (polled, pinged) = tokio::join!(with_timeout(connections.poll()), pending.ping());
        let pinged = pinged.map_err(|error| error.to_string());
        let kept = match &self.identity_tokens {
            Some(identity_tokens) => with_timeout(identity_tokens.keep_keys()).await,
            None => Ok(()),
        };
        let can_sign = self
            .identity_tokens
            .as_ref()
            .is_none_or(|identity_tokens| identity_tokens.ready().is_ok());
        self.health.set(pinged.is_ok() && connections.was_read() && can_sign, polled.is_ok()).await;
        log_transition("signing keys", &mut self.keys_away, kept.err());
        log_transition("connections", &mut self.connections_away, polled.err());
        log_transition("pending logins", &mut self.pending_away, pinged.err());
    }
}

async fn with_timeout<E: Display>(look: impl Future<Output = Result<(), E>>) -> Result<(), String> {
    let looked = tokio::time::timeout(PROBE_DEADLINE, look).await;
    looked
        .map_err(|_| format!("no answer within {PROBE_DEADLINE:?}"))?
        .map_err(|error| error.to_string())
}

fn log_transition(store: &str, before: &mut Option<String>, now: Option<String>) {
    match (&before, &now) {
        (None, Some(error)) => tracing::warn!(store, error, "a store does not answer"),
        (Some(_), None) => tracing::info!(store, "a store answers again"),
        _ => {}
    }
    *before = now;
}

async fn watch_stores(
    mut stores: Stores,
    connections: Arc<ConnectionCache>,
    pending: Arc<dyn PendingLogins>,
    login: Arc<Login>,
) {
    let mut ticks = tokio::time::interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        login.forget_idle();
        stores.probe_stores(&connections, pending.as_ref()).await;
    }
}

/// What is done now and then.
struct Maintenance {
    store: Arc<DeferredStore<dyn Connections>>,
    attempts: Arc<AttemptLog>,
    clock: Arc<dyn Clock>,
}

async fn run_maintenance(maintenance: Maintenance) {
    let mut ticks = tokio::time::interval(MAINTENANCE_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // SQL may be away: the next time is soon enough.
        if let Err(error) = maintenance.attempts.forget_old().await {
            tracing::debug!(%error, "old login attempts could not be forgotten");
        }
        let soon = maintenance.clock.unix_millis().after(EXPIRES_SOON);
        let expiring = maintenance.store.call(|store| store.secrets_expiring_before(soon));
        if let Ok(count) = expiring.await {
            secrets_expiring(count);
        }
    }
}

const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(60);
const PROBE_DEADLINE: Duration = Duration::from_secs(3);
const OPEN_PAUSE_AT_FIRST: Duration = Duration::from_millis(250);
const OPEN_PAUSE_AT_MOST: Duration = Duration::from_secs(5);
/// How long the start waits for the database, before it goes on without.
const OPEN_PATIENCE: Duration = Duration::from_secs(2);
