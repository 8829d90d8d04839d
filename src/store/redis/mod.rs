//! Pending logins in Redis, shared by all replicas: `SET key value NX PX ttl` to put, `GETDEL` to take,
//! always one key, so that Cluster works. Servers without GETDEL (before 6.2) take by a transaction.
//! Reconnects by itself to the current master, and answers or fails within a second. Must never repeat
//! the URL or a key in an error.

mod error;
pub mod url;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::redis::aio::{ConnectionLike, MultiplexedConnection};
use ::redis::cluster::ClusterClient;
use ::redis::cluster_async::ClusterConnection;
use ::redis::io::tcp::TcpSettings;
use ::redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue,
    IntoConnectionInfo, Pipeline, RedisConnectionInfo, RedisError, RedisResult, TlsCertificates,
    TlsMode, Value,
};
use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, join_all};
use secrecy::ExposeSecret;

use self::error::{is_unknown_command, needs_new_connection, safe_text};
use self::url::{RedisKind, RedisUrl};
use crate::model::slug::Slug;
use crate::store::{PendingKey, PendingLogins, StoreError};
use crate::telemetry::store_failed;

/// [`PendingLogins`] in Redis.
pub struct RedisPendingLogins {
    inner: Arc<Inner>,
    /// Whether a part of a Cluster refused writes at the last probe, which is logged once.
    is_partly_down: AtomicBool,
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

/// A connection, and what was learned about its server.
struct Link {
    connection: Connection,
    lacks_getdel: AtomicBool,
}

enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// What is sent in one round trip.
enum Request {
    Command(Cmd),
    /// Takes the value of this key. How, depends on the server.
    Take(String),
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
        Ok(Self { inner: Arc::new(inner), is_partly_down: AtomicBool::default() })
    }

    /// Sends a request, and sends it again over a new connection if the current one is broken or its
    /// server is not a master, or over the same one if it was found to lack GETDEL.
    async fn run<T: FromRedisValue>(
        &self,
        request: impl Fn(Attempt) -> Request,
    ) -> Result<T, StoreError> {
        let unavailable = |detail| {
            store_failed("redis");
            StoreError::Unavailable { store: "redis", detail }
        };
        let both = async {
            let (error, link) = match self.inner.attempt(request(Attempt::First)).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            if needs_new_connection(&error) {
                self.inner.forget(link.as_ref());
            } else if is_unknown_command(&error) {
                link.iter().for_each(|link| link.record_missing_getdel());
            } else {
                return Err(error);
            }
            // The first attempt may have been executed although its answer was lost, so the request
            // depends on the attempt.
            self.inner.attempt(request(Attempt::Second)).await.map_err(|(error, _)| error)
        };
        let answer: Value = match tokio::time::timeout(COMMAND_DEADLINE, both).await {
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
        request: Request,
    ) -> Result<Value, (RedisError, Option<Arc<Link>>)> {
        let link = self.link().await.map_err(|error| (error, None))?;
        let answer = match request {
            Request::Command(command) => link.command(&command).await,
            Request::Take(key) => link.take(&key).await,
        };
        answer.and_then(Value::extract_error).map_err(|error| (error, Some(link)))
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
            let connection = match &self.source {
                Source::Single(client) => Connection::One(
                    client.get_multiplexed_async_connection_with_config(&config).await?,
                ),
                Source::Sentinel(client) => Connection::One(
                    client.lock().await.get_async_connection_with_config(&config).await?,
                ),
                Source::Cluster(client) => {
                    Connection::Cluster(client.get_async_connection().await?)
                }
            };
            let link = Link { connection, lacks_getdel: AtomicBool::default() };
            // Any other answer is for the commands to deal with.
            if let Err(error) = link.take(PING_KEY).await.and_then(Value::extract_error)
                && is_unknown_command(&error)
            {
                link.record_missing_getdel();
            }
            Ok(link)
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

impl Link {
    async fn command(&self, command: &Cmd) -> RedisResult<Value> {
        match &self.connection {
            Connection::One(connection) => connection.clone().req_packed_command(command).await,
            Connection::Cluster(connection) => connection.clone().req_packed_command(command).await,
        }
    }

    /// Reads and deletes in one atomic step and one round trip.
    async fn take(&self, key: &str) -> RedisResult<Value> {
        if !self.lacks_getdel.load(Ordering::Relaxed) {
            let mut command = ::redis::cmd("GETDEL");
            command.arg(key);
            return self.command(&command).await;
        }
        let mut transaction = Pipeline::new();
        transaction.atomic().cmd("GET").arg(key).cmd("DEL").arg(key);
        // The answers to MULTI, GET and DEL are only acknowledgements; EXEC's has the values.
        let (acknowledgements, answers) = (transaction.len() + 1, 1);
        let executed = match &self.connection {
            Connection::One(connection) => {
                connection
                    .clone()
                    .req_packed_commands(&transaction, acknowledgements, answers)
                    .await?
            }
            Connection::Cluster(connection) => {
                connection
                    .clone()
                    .req_packed_commands(&transaction, acknowledgements, answers)
                    .await?
            }
        };
        match executed.into_iter().next() {
            Some(Value::Array(values)) => Ok(values.into_iter().next().unwrap_or(Value::Nil)),
            Some(Value::ServerError(error)) => Err(error.into()),
            _ => Err((ErrorKind::UnexpectedReturnType, "EXEC answered without values").into()),
        }
    }

    fn record_missing_getdel(&self) {
        if !self.lacks_getdel.swap(true, Ordering::Relaxed) {
            tracing::info!("Redis has no GETDEL (before 6.2): taking logins by MULTI and EXEC");
        }
    }
}

#[async_trait]
impl PendingLogins for RedisPendingLogins {
    async fn put(
        &self,
        _: &Slug,
        key: &PendingKey,
        value: &[u8],
        ttl: Duration,
    ) -> Result<(), StoreError> {
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
                Request::Command(command)
            })
            .await?;
        was_set.map(|_| ()).ok_or_else(|| StoreError::Unavailable {
            store: "redis",
            detail: "the key is in use".to_owned(),
        })
    }

    async fn take(&self, key: &PendingKey) -> Result<Option<Vec<u8>>, StoreError> {
        let key = redis_key(key);
        self.run(|_| Request::Take(key.clone())).await
    }

    async fn keep_answer(
        &self,
        key: &PendingKey,
        value: &[u8],
        ttl: Duration,
    ) -> Result<(), StoreError> {
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let kept = self.run(|_| {
            let mut command = ::redis::cmd("SET");
            command.arg(answer_key(key)).arg(value).arg("PX").arg(millis);
            Request::Command(command)
        });
        kept.await
    }

    async fn kept_answer(&self, key: &PendingKey) -> Result<Option<Vec<u8>>, StoreError> {
        let read = self.run(|_| {
            let mut command = ::redis::cmd("GET");
            command.arg(answer_key(key));
            Request::Command(command)
        });
        read.await
    }

    /// Writes, since a full server still answers and deletes. In a Cluster it writes to all parts: if
    /// only a minority refuses, the other logins can still begin, which no replica that reports itself
    /// as not ready would improve; that is logged and counted instead.
    async fn ping(&self) -> Result<(), StoreError> {
        let keys = match &self.inner.source {
            Source::Single(_) | Source::Sentinel(_) => vec![PING_KEY.to_owned()],
            Source::Cluster(_) => {
                CLUSTER_PING_KEYS.iter().map(|number| format!("{PING_KEY}:{number}")).collect()
            }
        };
        let write = |key: &String| {
            let mut command = ::redis::cmd("SET");
            command.arg(key).arg(1).arg("PX").arg(PING_TTL_MILLIS);
            Request::Command(command)
        };
        let pings = join_all(keys.iter().map(|key| self.run::<()>(move |_| write(key)))).await;
        let (all, mut refused) = (pings.len(), pings.into_iter().filter_map(Result::err));
        let first = refused.next();
        let failed = refused.count() + usize::from(first.is_some());
        let is_partly_down = failed > 0 && failed * 2 <= all;
        let was_partly_down = self.is_partly_down.swap(is_partly_down, Ordering::Relaxed);
        match first {
            Some(error) if !is_partly_down => return Err(error),
            Some(error) if !was_partly_down => {
                tracing::warn!(failed, all, %error, "a part of the Redis Cluster refuses writes");
            }
            None if was_partly_down => tracing::info!("all of the Redis Cluster accepts writes"),
            Some(_) | None => {}
        }
        Ok(())
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

fn redis_key(key: &PendingKey) -> String {
    format!("{KEY_PREFIX}{}", key.as_str())
}

fn answer_key(key: &PendingKey) -> String {
    format!("{ANSWER_PREFIX}{}", key.as_str())
}

const KEY_PREFIX: &str = "sso:login:";
const ANSWER_PREFIX: &str = "sso:answer:";
/// Written to see whether the server accepts writes.
const PING_KEY: &str = "sso:ping";
/// Milliseconds.
const PING_TTL_MILLIS: u64 = 1;
/// With these numbers after [`PING_KEY`] there is a key in each sixteenth of a Cluster's hash slots.
const CLUSTER_PING_KEYS: [u8; 16] = [20, 11, 1, 60, 21, 10, 0, 61, 22, 13, 3, 62, 23, 12, 2, 63];
const CONNECT_TIMEOUT: Duration = Duration::from_millis(400);
/// For connecting, including the questions to several Sentinels or the slots of a Cluster.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(800);
const COMMAND_DEADLINE: Duration = Duration::from_millis(900);
const CLUSTER_RETRIES: u32 = 3;
