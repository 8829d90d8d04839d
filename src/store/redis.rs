//! Pending logins in Redis, shared by all replicas. One command to put (`SET key value NX PX ttl`), one to take
//! (`GETDEL`), single keys only. Reconnects by itself; answers or fails within a second.

use std::time::Duration;

use ::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use ::redis::io::tcp::TcpSettings;
use ::redis::{AsyncCommands, Client, ExistenceCheck, IntoConnectionInfo, RedisResult, SetExpiry, SetOptions};
use async_trait::async_trait;

use super::{PendingKey, PendingLogins, StoreError};

/// The store; see [`PendingLogins`] for its law.
pub struct RedisPendingLogins {
    connection: ConnectionManager,
}

impl RedisPendingLogins {
    /// Prepares a connection, made at the first command: Redis needn't be up yet.
    ///
    /// # Errors
    /// The URL isn't one of Redis; the text doesn't repeat it, since it can hold a password.
    pub fn lazy(url: &str) -> Result<Self, String> {
        let info = url.into_connection_info().map_err(|error| safe_text(&error))?;
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(50))
            .set_max_delay(Duration::from_millis(200));
        let connection = Client::open(info)
            .and_then(|client| ConnectionManager::new_lazy_with_config(client, config))
            .map_err(|error| safe_text(&error))?;
        Ok(Self { connection })
    }

    async fn within_deadline<T>(&self, command: impl Future<Output = RedisResult<T>> + Send) -> Result<T, StoreError> {
        let unavailable = |detail| StoreError::Unavailable { store: "redis", detail };
        match tokio::time::timeout(COMMAND_DEADLINE, command).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(unavailable(safe_text(&error))),
            Err(_) => Err(unavailable(format!("no answer within {COMMAND_DEADLINE:?}"))),
        }
    }
}

#[async_trait]
impl PendingLogins for RedisPendingLogins {
    async fn put(&self, key: &PendingKey, value: &[u8], ttl: Duration) -> Result<(), StoreError> {
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let options = SetOptions::default().conditional_set(ExistenceCheck::NX).with_expiration(SetExpiry::PX(millis));
        let mut connection = self.connection.clone();
        let was_set: Option<String> =
            self.within_deadline(async move { connection.set_options(redis_key(key), value, options).await }).await?;
        was_set.map(|_| ()).ok_or_else(|| StoreError::Unavailable { store: "redis", detail: "the key is in use".to_owned() })
    }

    async fn take(&self, key: &PendingKey) -> Result<Option<Vec<u8>>, StoreError> {
        let mut connection = self.connection.clone();
        self.within_deadline(async move { connection.get_del(redis_key(key)).await }).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let mut connection = self.connection.clone();
        self.within_deadline(async move { connection.ping::<()>().await }).await
    }
}

fn redis_key(key: &PendingKey) -> String {
    format!("{KEY_PREFIX}{}", key.as_str())
}

/// The server's error line or the kind of error; the crate's own text can quote arguments of a URL.
fn safe_text(error: &::redis::RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), _) => format!("the server answered {code}"),
        (None, Some(_)) if !error.is_io_error() => format!("{:?}", error.kind()),
        _ => error.to_string(),
    }
}

const KEY_PREFIX: &str = "sso:login:";
const CONNECT_TIMEOUT: Duration = Duration::from_millis(400);
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(800);
const COMMAND_DEADLINE: Duration = Duration::from_millis(900);
