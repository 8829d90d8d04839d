//! Wires the service together: configuration in, running service out. The only place that names a
//! storage backend. Called by `main`, tests and the quickstart.

mod documents;
mod health;
mod maintenance;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Database};
use crate::connections::{AutomaticChanges, ConnectionAdmin};
use crate::entropy::{Entropy, SystemEntropy};
use crate::identity_token::{IdentityTokenPolicy, IdentityTokens};
use crate::login::attempts::AttemptLog;
use crate::login::{Login, LoginPolicy};
use crate::model::return_to::ReturnRule;
use crate::oidc::clients::HttpClients;
use crate::oidc::http::CallPolicy;
use crate::oidc::providers::Providers;
use crate::server::grpc::auth::{Callers, WatchedCallers};
use crate::server::grpc::routes::Services;
use crate::server::reload::{FileError, spawn_reload};
use crate::server::tls::{self, WatchedTls};
use crate::server::{Health, Server, ServerConfig, http};
use crate::store::cache::ConnectionCache;
use crate::store::memory::MemoryPendingLogins;
use crate::store::redis::RedisPendingLogins;
use crate::store::seal::Keyring;
use crate::store::sql::postgres::{PostgresConnections, PostgresUrl};
use crate::store::sql::rows::RowCodec;
use crate::store::sql::sqlite::SqliteConnections;
use crate::store::{
    Connections, DeferredStore, KeptDocuments, LoginAttempts, PendingLogins, Reseal, Resealed,
    SigningKeys, StoreError,
};
use crate::tasks::{TaskFailure, Tasks};
use crate::telemetry::{BackgroundTask, Metrics, TelemetryError};
use documents::StoredDocuments;
use health::{Failing, StoreWatch};
use maintenance::Maintenance;

/// Where the service gets time and random bytes from.
#[derive(Clone)]
pub struct Environment {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Unpredictable bytes.
    pub entropy: Arc<dyn Entropy>,
}

impl Default for Environment {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), entropy: Arc::new(SystemEntropy) }
    }
}

/// Why the service can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The metrics recorder.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// An address is in use or isn't this machine's.
    #[error("failed to listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The operating system's error.
        error: io::Error,
    },
    /// The files of the listeners' TLS.
    #[error(transparent)]
    Tls(FileError),
    /// The callers file.
    #[error("SSO_CALLERS_FILE: {0}")]
    Callers(FileError),
    /// A caller is identified by its certificate, which no CA verifies.
    #[error("SSO_CALLERS_FILE identifies callers by certificate (san): set SSO_TLS_CLIENT_CA_FILE")]
    ClientCaMissing,
    /// The SQLite file.
    #[error("failed to open the database {}: {error}", .file.display())]
    Sqlite {
        /// The file.
        file: PathBuf,
        /// The store's error.
        error: String,
    },
    /// PostgreSQL's URL, or the database itself.
    #[error("failed to open the database: {0}")]
    Postgres(String),
    /// Redis's URL or its CAs.
    #[error("failed to set up Redis: {0}")]
    Redis(String),
    /// The CAs that IdPs are verified by.
    #[error("failed to set up the HTTP client: {0}")]
    HttpClient(String),
}

/// A running service. Dropping it without [`App::shut_down`] leaves it running.
pub struct App {
    login_addr: SocketAddr,
    admin_addr: SocketAddr,
    metrics_addr: Option<SocketAddr>,
    server: Server,
    attempts: Arc<AttemptLog>,
    /// Ends before the listeners do, so that it doesn't report SERVING while they drain.
    store_watch: Tasks,
    tasks: Tasks,
}

impl App {
    /// Starts the service: when this returns, the listeners answer.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config, environment: Environment) -> Result<Self, StartError> {
        if let Some(variable) = config.unread_proxy_variable {
            tracing::warn!(
                variable,
                "IdPs are called without a proxy: set SSO_PROVIDER_PROXY to use one"
            );
        }
        let intervals = config.intervals;
        let tasks = Tasks::new(intervals.restart_pause);
        // Before everything that counts.
        let metrics =
            config.metrics_listen.map(|_| Metrics::start(config.metrics_accounts)).transpose()?;
        let (tls, callers) = open_listener_security(&config)?;
        // Bound before the others: a client that reaches those finds the probes, too.
        let metrics_listener = match config.metrics_listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let metrics_addr = metrics_listener.as_ref().map(|(_, address)| *address);
        let (login_listener, login_addr) = listen(config.listen).await?;
        let (admin_listener, admin_addr) = listen(config.admin_listen).await?;

        let pending = open_pending_logins(&config, &environment)?;
        let sql = Sql::default();
        let clock = &environment.clock;
        let connections = Arc::new(ConnectionCache::new(
            Arc::clone(&sql.connections),
            Arc::clone(clock),
            config.known_connections,
            config.known_connections_max_age,
        ));
        let identity_tokens = open_identity_tokens(&config, &environment, &sql);
        let attempts = Arc::new(AttemptLog::new(
            Arc::clone(clock),
            Arc::clone(&sql.attempts),
            intervals.attempts_write,
        ));
        open_sql(&config, &environment, &sql, &tasks).await?;
        let policy = CallPolicy {
            addresses: config.provider_addresses.clone(),
            extra_cas: config.provider_cas.clone(),
            proxy: config.provider_proxy.clone(),
            name_server: config.provider_name_server,
            propagate_trace_context: config.trace_providers,
        };
        let http = HttpClients::new(&policy, &config.account_trust)
            .map_err(|error| StartError::HttpClient(error.to_string()))?;
        let providers = Arc::new(Providers::new(
            http,
            tasks.clone(),
            Arc::clone(clock),
            config.public_origin.clone(),
            Arc::new(StoredDocuments::new(Arc::clone(&sql.documents))),
            config.known_connections,
        ));
        let admin = ConnectionAdmin::new(
            Arc::clone(&sql.connections),
            Arc::clone(&sql.attempts),
            Arc::clone(&connections),
            Arc::clone(&providers),
            Arc::clone(clock),
            Arc::clone(&environment.entropy),
            config.public_origin.clone(),
        );
        let changes = Arc::new(AutomaticChanges::new(
            Arc::clone(&sql.connections),
            Arc::clone(&connections),
            Arc::clone(clock),
        ));
        let login = Arc::new(Login::new(
            login_policy(&config),
            &config.keyring,
            Arc::clone(&connections),
            changes,
            Arc::clone(&attempts),
            Arc::clone(&pending),
            providers,
            Arc::clone(clock),
            Arc::clone(&environment.entropy),
            tasks.clone(),
        ));
        let health = Health::new();
        if let Some(((listener, _), metrics)) = metrics_listener.zip(metrics) {
            http::serve(
                listener,
                metrics,
                health.clone(),
                identity_tokens.clone(),
                Arc::clone(&environment.clock),
                &tasks,
            );
        }
        let writer = Arc::clone(&attempts);
        tasks.spawn_restarting(BackgroundTask::AttemptsWriter, move || {
            let writer = Arc::clone(&writer);
            async move { writer.run_writer().await }
        });
        let maintenance = Arc::new(Maintenance {
            store: Arc::clone(&sql.connections),
            attempts: Arc::clone(&attempts),
            documents: Arc::clone(&sql.documents),
            clock: Arc::clone(clock),
            interval: intervals.maintenance,
        });
        tasks.spawn_restarting(BackgroundTask::Maintenance, move || Arc::clone(&maintenance).run());
        let watch = Arc::new(StoreWatch {
            health: health.clone(),
            identity_tokens: identity_tokens.clone(),
            connections,
            pending,
            login: Arc::clone(&login),
            interval: intervals.store_probe,
            failing: Failing::default().into(),
        });
        watch.probe_stores().await;
        let store_watch = tasks.group();
        store_watch.spawn_restarting(BackgroundTask::StoreWatch, move || Arc::clone(&watch).run());
        spawn_reload(tls.clone(), callers.clone(), clock, intervals.reload, &tasks);
        let server_config = ServerConfig {
            login_listener,
            admin_listener,
            tls,
            callers,
            reflection: config.reflection,
            max_in_flight: config.max_in_flight,
            limits: config.listener_limits,
            drain_timeout: config.drain_timeout,
            clock: Arc::clone(&environment.clock),
        };
        let services = Services {
            login,
            identity_tokens,
            admin: Arc::new(admin),
            attempts: Arc::clone(&attempts),
            public_origin: config.public_origin,
        };
        let server = Server::start(server_config, services, health, &tasks);
        tracing::info!(
            login.address = %login_addr,
            admin.address = %admin_addr,
            metrics.address = metrics_addr.map(tracing::field::display),
            "listening"
        );
        Ok(Self { login_addr, admin_addr, metrics_addr, server, attempts, store_watch, tasks })
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

    /// Where metrics and probes answer; `None`: nowhere.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// Waits until a part without which the service can't go on has failed, such as a listener.
    /// Then the process should shut down and exit with an error.
    pub async fn wait_for_failure(&self) -> TaskFailure {
        self.tasks.failed().await
    }

    /// Reports NOT_SERVING, accepts no more calls, and waits for those in flight for at most the
    /// drain timeout.
    pub async fn shut_down(self) {
        self.store_watch.shutdown(END_GRACE).await;
        self.server.shutdown().await;
        self.attempts.flush().await;
        self.tasks.shutdown(END_GRACE).await;
        tracing::info!("stopped");
    }
}

fn login_policy(config: &Config) -> LoginPolicy {
    LoginPolicy {
        begin_rate_per_client: config.begin_rate_per_client,
        begin_rate: config.begin_rate,
        state_ttl: config.state_ttl,
        answer_ttl: config.answer_ttl,
        require_browser_binding: config.require_browser_binding,
        return_rule: ReturnRule::new(
            config.public_origin.clone(),
            config.allowed_return_origins.clone(),
        ),
        public_origin: config.public_origin.clone(),
    }
}

/// `None`: no identity tokens are issued.
fn open_identity_tokens(
    config: &Config,
    environment: &Environment,
    sql: &Sql,
) -> Option<Arc<IdentityTokens>> {
    let policy = IdentityTokenPolicy {
        issuer: config.public_origin.clone(),
        audience: config.identity_audience.clone()?,
        ttl: config.identity_ttl,
        key_lifetime: config.identity_key_lifetime,
        read_interval: config.intervals.identity_keys_read,
    };
    let (clock, entropy) = (Arc::clone(&environment.clock), Arc::clone(&environment.entropy));
    Some(Arc::new(IdentityTokens::new(policy, Arc::clone(&sql.signing_keys), clock, entropy)))
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |error| StartError::Listen { address, error };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Seals every sealed value of the database under the newest key. The service may run meanwhile.
///
/// # Errors
/// The database can't be opened, or fails.
pub async fn reseal(
    database: &Database,
    keyring: Keyring,
    environment: &Environment,
) -> Result<Resealed, StartError> {
    let codec = codec(keyring, environment);
    let failed = |error: StoreError| StartError::Postgres(error.to_string());
    match database {
        Database::Sqlite(file) => {
            let store = open_sqlite(file, codec).await?;
            store.reseal().await.map_err(|error| sqlite_failed(file, error))
        }
        Database::Postgres(url) => {
            let store =
                PostgresConnections::open(postgres_url(url)?, codec).await.map_err(failed)?;
            store.reseal().await.map_err(failed)
        }
    }
}

async fn open_sqlite(file: &Path, codec: RowCodec) -> Result<SqliteConnections, StartError> {
    SqliteConnections::open(file, codec).await.map_err(|error| sqlite_failed(file, error))
}

fn sqlite_failed(file: &Path, error: impl ToString) -> StartError {
    StartError::Sqlite { file: file.to_owned(), error: error.to_string() }
}

fn codec(keyring: Keyring, environment: &Environment) -> RowCodec {
    RowCodec {
        keyring: Arc::new(keyring),
        entropy: Arc::clone(&environment.entropy),
        clock: Arc::clone(&environment.clock),
    }
}

type ListenerSecurity = (Option<Arc<WatchedTls>>, Option<Arc<WatchedCallers>>);

fn open_listener_security(config: &Config) -> Result<ListenerSecurity, StartError> {
    let tls = config
        .tls
        .clone()
        .map(|files| tls::open(files.cert, files.key, files.client_ca))
        .transpose()
        .map_err(StartError::Tls)?;
    let callers =
        config.callers_file.clone().map(Callers::open).transpose().map_err(StartError::Callers)?;
    let has_client_ca = config.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    if callers.as_ref().is_some_and(|callers| callers.current().need_certificates())
        && !has_client_ca
    {
        return Err(StartError::ClientCaMissing);
    }
    Ok((tls.map(Arc::new), callers.map(Arc::new)))
}

/// The stores in SQL. They exist before the database is opened, which can take place after the
/// start.
#[derive(Clone)]
struct Sql {
    connections: Arc<DeferredStore<dyn Connections>>,
    signing_keys: Arc<DeferredStore<dyn SigningKeys>>,
    attempts: Arc<DeferredStore<dyn LoginAttempts>>,
    documents: Arc<DeferredStore<dyn KeptDocuments>>,
}

impl Default for Sql {
    fn default() -> Self {
        Self {
            connections: Arc::new(DeferredStore::new("connections")),
            signing_keys: Arc::new(DeferredStore::new("signing keys")),
            attempts: Arc::new(DeferredStore::new("login attempts")),
            documents: Arc::new(DeferredStore::new("documents of IdPs")),
        }
    }
}

impl Sql {
    fn open<S>(&self, opened: S)
    where
        S: Connections + SigningKeys + LoginAttempts + KeptDocuments + 'static,
    {
        let opened = Arc::new(opened);
        self.documents.open(Arc::clone(&opened) as Arc<dyn KeptDocuments>);
        self.attempts.open(Arc::clone(&opened) as Arc<dyn LoginAttempts>);
        self.signing_keys.open(Arc::clone(&opened) as Arc<dyn SigningKeys>);
        self.connections.open(opened);
    }
}

/// Opens the database. SQLite must open now; PostgreSQL may be unavailable and is then opened by a
/// background task.
async fn open_sql(
    config: &Config,
    environment: &Environment,
    sql: &Sql,
    tasks: &Tasks,
) -> Result<(), StartError> {
    let codec = codec(config.keyring.clone(), environment);
    let url = match &config.database {
        Database::Sqlite(file) => {
            sql.open(open_sqlite(file, codec).await?);
            return Ok(());
        }
        Database::Postgres(url) => url,
    };
    let url = postgres_url(url)?;
    let sql = sql.clone();
    let (done, opened) = oneshot::channel();
    tasks.spawn(BackgroundTask::DatabaseOpening, async move {
        let mut pause = FIRST_OPEN_PAUSE;
        loop {
            match PostgresConnections::open(url.clone(), codec.clone()).await {
                Ok(opened) => break sql.open(opened),
                Err(error) => {
                    tracing::warn!(%error, retry_after = ?pause, "failed to open the database");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_OPEN_PAUSE);
        }
        let _ = done.send(());
    });
    // If the database is available, the service is ready when its listeners answer.
    let _ = tokio::time::timeout(OPEN_TIMEOUT, opened).await;
    Ok(())
}

fn postgres_url(url: &SecretString) -> Result<PostgresUrl, StartError> {
    PostgresUrl::parse(url.expose_secret()).map_err(|error| StartError::Postgres(error.to_string()))
}

fn open_pending_logins(
    config: &Config,
    environment: &Environment,
) -> Result<Arc<dyn PendingLogins>, StartError> {
    Ok(match &config.redis_url {
        Some(url) => Arc::new(
            RedisPendingLogins::lazy(url, config.redis_ca.clone())
                .map_err(|error| StartError::Redis(error.to_string()))?,
        ),
        None => Arc::new(MemoryPendingLogins::new(
            Arc::clone(&environment.clock),
            config.memory_pending_logins,
        )),
    })
}

const FIRST_OPEN_PAUSE: Duration = Duration::from_millis(250);
const MAX_OPEN_PAUSE: Duration = Duration::from_secs(5);
/// How long the start waits for PostgreSQL before it goes on without.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);
/// For tasks that end as soon as the shutdown begins.
const END_GRACE: Duration = Duration::from_secs(1);
