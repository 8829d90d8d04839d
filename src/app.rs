//! The composition root: Config in, a running service out. The only file that names a backend.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::ambient::{Clock, Entropy, SystemClock, SystemEntropy};
use crate::config::{Config, Database};
use crate::connections::ConnectionDesk;
use crate::login::{Login, LoginPolicy};
use crate::model::return_to::ReturnRule;
use crate::oidc::http::{CallPolicy, HttpClient};
use crate::oidc::providers::Providers;
use crate::rpc::caller::{Callers, WatchedCallers};
use crate::rpc::server::{Door, Entrance, Health};
use crate::rpc::tls::{self, WatchedTls};
use crate::store::known::{KnownConnections, POLL_INTERVAL};
use crate::store::memory::MemoryPendingLogins;
use crate::store::postgres::PostgresConnections;
use crate::store::redis::RedisPendingLogins;
use crate::store::sqlite::{RowCodec, SqliteConnections};
use crate::store::{Connections, PendingLogins};

/// Time and chance for the whole service.
#[derive(Clone)]
pub struct World {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Gives what nobody can foresee.
    pub entropy: Arc<dyn Entropy>,
}

impl Default for World {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), entropy: Arc::new(SystemEntropy) }
    }
}

/// A running service. Dropping it without [`App::shut_down`] leaves it running.
pub struct App {
    login_addr: SocketAddr,
    admin_addr: SocketAddr,
    door: Door,
    watch: JoinHandle<()>,
}

impl App {
    /// Starts the service: when this returns, both listeners answer.
    ///
    /// # Errors
    /// An address can't be listened on, the database can't be opened, or the Redis URL is none.
    pub async fn start(config: Config, world: World) -> Result<Self, String> {
        let (tls, callers) = open_entrance(&config)?;
        let listener = |address: SocketAddr| async move {
            TcpListener::bind(address).await.map_err(|error| format!("can't listen on {address}: {error}"))
        };
        let (login_listener, admin_listener) = (listener(config.listen).await?, listener(config.admin_listen).await?);
        let address = |listener: &TcpListener| listener.local_addr().map_err(|error| error.to_string());
        let (login_addr, admin_addr) = (address(&login_listener)?, address(&admin_listener)?);

        let stored = open_connections(&config, &world).await?;
        let pending = open_pending_logins(&config, &world)?;
        let connections = Arc::new(KnownConnections::new(stored, Arc::clone(&world.clock), config.known_connections));
        let http = HttpClient::new(&CallPolicy {
            addresses: config.provider_addresses.clone(),
            extra_cas: config.provider_cas.clone(),
        })?;
        let providers = Providers::new(http, Arc::clone(&world.clock), config.public_origin.clone(), config.known_connections);
        let login = Login::new(
            LoginPolicy {
                begin_rate_per_client: config.begin_rate_per_client,
                begin_rate: config.begin_rate,
                state_ttl: config.state_ttl,
                require_browser_binding: config.require_browser_binding,
                return_rule: ReturnRule::new(config.public_origin.clone(), config.allowed_return_origins.clone()),
                public_origin: config.public_origin.clone(),
            },
            &config.keyring,
            Arc::clone(&connections),
            Arc::clone(&pending),
            Arc::new(providers),
            world.clock,
            world.entropy,
        );
        let desk = ConnectionDesk::new(Arc::clone(&connections), config.provider_addresses.clone());

        let health = Health::new();
        look(&connections, pending.as_ref(), &health).await;
        let login = Arc::new(login);
        let watch = tokio::spawn(keep_looking(connections, pending, Arc::clone(&login), health.clone()));
        let entrance = Entrance {
            login_listener,
            admin_listener,
            tls,
            callers,
            reflection: config.reflection,
            max_in_flight: config.max_in_flight,
            drain_timeout: config.drain_timeout,
        };
        let door = Door::open(entrance, login, Arc::new(desk), config.public_origin, health);
        tracing::info!(login.address = %login_addr, admin.address = %admin_addr, "peerpanda-sso serves");
        Ok(Self { login_addr, admin_addr, door, watch })
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
        self.door.close().await;
        tracing::info!("peerpanda-sso has stopped");
    }
}

type Guards = (Option<Arc<WatchedTls>>, Option<Arc<WatchedCallers>>);

/// The listeners' certificate, and who may call.
fn open_entrance(config: &Config) -> Result<Guards, String> {
    let tls = config.tls.clone().map(|files| tls::open(files.cert, files.key, files.client_ca)).transpose()?;
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

async fn open_connections(config: &Config, world: &World) -> Result<Arc<dyn Connections>, String> {
    let codec = RowCodec {
        keyring: Arc::new(config.keyring.clone()),
        entropy: Arc::clone(&world.entropy),
        clock: Arc::clone(&world.clock),
    };
    Ok(match &config.database {
        Database::Sqlite(file) => {
            Arc::new(SqliteConnections::open(file, codec).await.map_err(|error| format!("{}: {error}", file.display()))?)
        }
        Database::Postgres(url) => {
            Arc::new(PostgresConnections::open(url.expose_secret(), codec).await.map_err(|error| error.to_string())?)
        }
    })
}

fn open_pending_logins(config: &Config, world: &World) -> Result<Arc<dyn PendingLogins>, String> {
    Ok(match &config.redis_url {
        Some(url) => Arc::new(RedisPendingLogins::lazy(url.expose_secret())?),
        None => Arc::new(MemoryPendingLogins::new(Arc::clone(&world.clock), config.memory_pending_logins)),
    })
}

/// Looks for changes of other replicas, and whether the stores answer.
async fn look(connections: &KnownConnections, pending: &dyn PendingLogins, health: &Health) {
    let (polled, pinged) = tokio::join!(connections.poll(), pending.ping());
    let store_errors = [
        polled.err(),
        pinged
            .as_ref()
            .err()
            .map(ToString::to_string)
            .map(|detail| crate::store::StoreError::Unavailable { store: "pending logins", detail }),
    ];
    for error in store_errors.iter().flatten() {
        tracing::warn!(%error, "a store does not answer");
    }
    health.set(pinged.is_ok() && connections.was_read(), connections.is_reachable()).await;
}

async fn keep_looking(connections: Arc<KnownConnections>, pending: Arc<dyn PendingLogins>, login: Arc<Login>, health: Health) {
    let mut ticks = tokio::time::interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        login.forget_idle();
        let looked = tokio::time::timeout(LOOK_DEADLINE, look(&connections, pending.as_ref(), &health)).await;
        if looked.is_err() {
            tracing::warn!("the stores did not answer within {LOOK_DEADLINE:?}");
            health.set(pending.ping().await.is_ok() && connections.was_read(), false).await;
        }
    }
}

const LOOK_DEADLINE: Duration = Duration::from_secs(3);
