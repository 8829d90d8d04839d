//! Pending logins in Redis, shared by all replicas: `SET key value NX PX ttl` to put, `GETDEL` to take,
//! always one key, so that Cluster works. Reconnects by itself to the current master, and answers or
//! fails within a second. Must never repeat the URL or a key in an error.

pub mod url;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::redis::aio::{ConnectionLike, MultiplexedConnection};
use ::redis::cluster::ClusterClient;
use ::redis::cluster_async::ClusterConnection;
use ::redis::io::tcp::TcpSettings;
use ::redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue,
    IntoConnectionInfo, RedisConnectionInfo, RedisError, RedisResult, ServerErrorKind,
    TlsCertificates, TlsMode,
};
use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use secrecy::ExposeSecret;

use crate::store::redis::url::{RedisKind, RedisUrl};
use crate::store::{PendingKey, PendingLogins, StoreError};
use crate::telemetry::store_failed;

/// [`PendingLogins`] in Redis.
pub struct RedisPendingLogins {
    inner: Arc<Inner>,
}

struct Inner {
    source: Source,
    /// The connection in use. All commands share it (it is multiplexed).
    link: ArcSwapOption<Link>,
    /// The attempt to connect that is under way; there is at most one.
    connecting: Mutex<Option<Connecting>>,
}

/// Where connections come from.
enum Source {
    Single(Client),
    /// Asked again for each connection, since the master changes.
    Sentinel(tokio::sync::Mutex<SentinelClient>),
    Cluster(Box<ClusterClient>),
}

#[derive(Clone)]
enum Link {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

type Connecting = Shared<BoxFuture<'static, Result<Arc<Link>, RedisError>>>;

impl RedisPendingLogins {
    /// Connects at the first command, so Redis need not be up yet. `ca`: PEM of the CAs that sign its
    /// certificate; `None`: the operating system's.
    ///
    /// # Errors
    /// See [`RedisSetupError`].
    pub fn lazy(url: &RedisUrl, ca: Option<Vec<u8>>) -> Result<Self, RedisSetupError> {
        let source = source(url, ca).map_err(|error| RedisSetupError(safe_text(&error)))?;
        let inner = Inner { source, link: ArcSwapOption::empty(), connecting: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Runs a command, and runs it again over a new connection if the current one is broken or its server
    /// is not a master.
    async fn run<T: FromRedisValue>(
        &self,
        command: impl Fn(Attempt) -> Cmd,
    ) -> Result<T, StoreError> {
        let unavailable = |detail| {
            store_failed("redis");
            StoreError::Unavailable { store: "redis", detail }
        };
        let both = async {
            let first = self.inner.attempt(&command(Attempt::First)).await;
            match first {
                Err((error, link)) if needs_new_connection(&error) => {
                    self.inner.forget(link.as_ref());
                    // The first attempt may have been executed although its answer was lost, so the
                    // command depends on the attempt.
                    self.inner.attempt(&command(Attempt::Second)).await.map_err(|(error, _)| error)
                }
                Err((error, _)) => Err(error),
                Ok(answer) => Ok(answer),
            }
        };
        let answer: ::redis::Value = match tokio::time::timeout(COMMAND_DEADLINE, both).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(unavailable(safe_text(&error))),
            Err(_) => return Err(unavailable(format!("no answer within {COMMAND_DEADLINE:?}"))),
        };
        ::redis::from_redis_value(answer)
            .map_err(|_| unavailable("unexpected type of answer".to_owned()))
    }
}

/// Why Redis can't be used as configured: the TLS certificates or the address are invalid.
#[derive(Debug, thiserror::Error)]
#[error("invalid Redis configuration: {0}")]
pub struct RedisSetupError(String);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Attempt {
    First,
    Second,
}

impl Inner {
    async fn attempt(
        self: &Arc<Self>,
        command: &Cmd,
    ) -> Result<::redis::Value, (RedisError, Option<Arc<Link>>)> {
        let link = self.link().await.map_err(|error| (error, None))?;
        let answer = match &*link {
            Link::One(connection) => connection.clone().req_packed_command(command).await,
            Link::Cluster(connection) => connection.clone().req_packed_command(command).await,
        };
        answer.and_then(::redis::Value::extract_error).map_err(|error| (error, Some(link)))
    }

    /// The connection in use, or a new one. Concurrent callers wait for the same attempt to connect.
    async fn link(self: &Arc<Self>) -> RedisResult<Arc<Link>> {
        if let Some(link) = self.link.load_full() {
            return Ok(link);
        }
        let connecting = {
            let mut slot = self.connecting.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(link) = self.link.load_full() {
                return Ok(link);
            }
            slot.get_or_insert_with(|| {
                let inner = Arc::clone(self);
                // In a task of its own, since callers time out sooner than a Sentinel may need.
                let task = tokio::spawn(async move {
                    let link = inner.connect().await.map(Arc::new);
                    if let Ok(link) = &link {
                        inner.link.store(Some(Arc::clone(link)));
                    }
                    *inner.connecting.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    link
                });
                let failed =
                    |_| RedisError::from((ErrorKind::Io, "the attempt to connect was cancelled"));
                async move { task.await.unwrap_or_else(|error| Err(failed(error))) }
                    .boxed()
                    .shared()
            })
            .clone()
        };
        connecting.await
    }

    async fn connect(&self) -> RedisResult<Link> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let connected = async {
            Ok(match &self.source {
                Source::Single(client) => {
                    Link::One(client.get_multiplexed_async_connection_with_config(&config).await?)
                }
                Source::Sentinel(client) => {
                    Link::One(client.lock().await.get_async_connection_with_config(&config).await?)
                }
                Source::Cluster(client) => Link::Cluster(client.get_async_connection().await?),
            })
        };
        let too_slow = |_| RedisError::from((ErrorKind::Io, "the attempt to connect timed out"));
        tokio::time::timeout(CONNECT_DEADLINE, connected)
            .await
            .unwrap_or_else(|elapsed| Err(too_slow(elapsed)))
    }

    /// Drops a connection, so that the next command makes a new one.
    fn forget(&self, link: Option<&Arc<Link>>) {
        if let Some(link) = link {
            let current = self.link.load();
            if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, link)) {
                self.link.compare_and_swap(&current, None);
            }
        }
    }
}

#[async_trait]
impl PendingLogins for RedisPendingLogins {
    async fn put(&self, key: &PendingKey, value: &[u8], ttl: Duration) -> Result<(), StoreError> {
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let was_set: Option<String> = self
            .run(|attempt| {
                let mut command = ::redis::cmd("SET");
                command.arg(redis_key(key)).arg(value);
                // The first attempt may already have stored the same value.
                if attempt == Attempt::First {
                    command.arg("NX");
                }
                command.arg("PX").arg(millis);
                command
            })
            .await?;
        was_set.map(|_| ()).ok_or_else(|| StoreError::Unavailable {
            store: "redis",
            detail: "the key is in use".to_owned(),
        })
    }

    async fn take(&self, key: &PendingKey) -> Result<Option<Vec<u8>>, StoreError> {
        self.run(|_| {
            let mut command = ::redis::cmd("GETDEL");
            command.arg(redis_key(key));
            command
        })
        .await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        // Not PING, which a replica and a Cluster node without slots also answer.
        self.run::<u64>(|_| {
            let mut command = ::redis::cmd("DEL");
            command.arg(PING_KEY);
            command
        })
        .await
        .map(|_| ())
    }
}

fn source(url: &RedisUrl, ca: Option<Vec<u8>>) -> RedisResult<Source> {
    let tcp = || TcpSettings::default().set_nodelay(true);
    let certificates = || TlsCertificates { client_tls: None, root_cert: ca.clone() };
    let info = |(host, port): &(String, u16)| -> RedisResult<ConnectionInfo> {
        let addr = if url.tls {
            ConnectionAddr::TcpTls {
                host: host.clone(),
                port: *port,
                insecure: false,
                tls_params: None,
            }
        } else {
            ConnectionAddr::Tcp(host.clone(), *port)
        };
        let mut settings = RedisConnectionInfo::default().set_db(url.db);
        if let Some(username) = &url.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &url.password {
            settings = settings.set_password(password.expose_secret());
        }
        Ok(addr.into_connection_info()?.set_redis_settings(settings).set_tcp_settings(tcp()))
    };
    let infos = url.nodes.iter().map(info).collect::<RedisResult<Vec<_>>>()?;
    Ok(match &url.kind {
        RedisKind::Single => {
            let first =
                infos.into_iter().next().ok_or((ErrorKind::InvalidClientConfig, "no host"))?;
            Source::Single(if url.tls {
                Client::build_with_tls(first, certificates())?
            } else {
                Client::open(first)?
            })
        }
        RedisKind::Cluster => {
            let mut builder = ClusterClient::builder(infos)
                .connection_timeout(CONNECT_TIMEOUT)
                .response_timeout(RESPONSE_TIMEOUT)
                .tcp_settings(tcp())
                .retries(CLUSTER_RETRIES)
                .min_retry_wait(20)
                .max_retry_wait(100);
            if url.tls {
                builder = builder.tls(TlsMode::Secure).certs(certificates());
            }
            Source::Cluster(Box::new(builder.build()?))
        }
        RedisKind::Sentinel { service, username, password } => {
            let addrs = infos.iter().map(|info| info.addr().clone());
            let mut builder =
                SentinelClientBuilder::new(addrs, service, SentinelServerType::Master)?
                    .set_client_to_redis_db(url.db)
                    .set_client_to_redis_tcp_settings(tcp())
                    .set_client_to_sentinel_tcp_settings(tcp());
            if let Some(username) = &url.username {
                builder = builder.set_client_to_redis_username(username);
            }
            if let Some(password) = &url.password {
                builder = builder.set_client_to_redis_password(password.expose_secret());
            }
            if let Some(username) = username {
                builder = builder.set_client_to_sentinel_username(username);
            }
            if let Some(password) = password {
                builder = builder.set_client_to_sentinel_password(password.expose_secret());
            }
            if url.tls {
                builder = builder
                    .set_client_to_redis_tls_mode(TlsMode::Secure)
                    .set_client_to_redis_certificates(certificates())
                    .set_client_to_sentinel_tls_mode(TlsMode::Secure)
                    .set_client_to_sentinel_certificates(certificates());
            }
            Source::Sentinel(tokio::sync::Mutex::new(builder.build()?))
        }
    })
}

/// Whether a new connection may help: the current one is broken, or its server is not a master.
fn needs_new_connection(error: &RedisError) -> bool {
    let is_not_master = matches!(
        error.kind(),
        ErrorKind::Server(
            ServerErrorKind::ReadOnly
                | ServerErrorKind::MasterDown
                | ServerErrorKind::BusyLoading
                | ServerErrorKind::ClusterDown
        )
    );
    is_not_master || error.is_io_error() || error.is_connection_dropped() || error.is_timeout()
}

fn redis_key(key: &PendingKey) -> String {
    format!("{KEY_PREFIX}{}", key.as_str())
}

/// The server's error code or the kind of error. The driver's own text can quote parts of the URL.
fn safe_text(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), _) => format!("the server answered {code}"),
        (None, Some(_)) if !error.is_io_error() => format!("{:?}", error.kind()),
        _ => error.to_string(),
    }
}

const KEY_PREFIX: &str = "sso:login:";
/// Never set. Deleting it shows whether the server accepts writes.
const PING_KEY: &str = "sso:ping";
const CONNECT_TIMEOUT: Duration = Duration::from_millis(400);
/// For connecting, including the questions to several Sentinels or the slots of a Cluster.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(800);
const COMMAND_DEADLINE: Duration = Duration::from_millis(900);
const CLUSTER_RETRIES: u32 = 3;
