//! What the service remembers: pending logins (Redis or memory) and connections (PostgreSQL or SQLite). The traits stand
//! here with their laws; which implementation runs is chosen once, in `app.rs`. Must never import a room above it.

pub mod known;
pub mod memory;
pub mod postgres;
pub mod redis;
mod sql;
pub mod sqlite;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::model::connection::{ClientSecret, Connection, ConnectionSettings, Issuer};
use crate::model::slug::Slug;
use crate::telemetry::store_failed;

/// Holds the values of logins that have begun and not ended.
///
/// The law: a value that was put is taken at most once, over all replicas and whatever races; after its time to live it
/// is gone. There is no way to read a value without taking it.
#[async_trait]
pub trait PendingLogins: Send + Sync {
    /// Keeps `value` under `key` for `ttl`.
    ///
    /// # Errors
    /// The store is unreachable or full, or the key is in use. Tells within a second.
    async fn put(&self, key: &PendingKey, value: &[u8], ttl: Duration) -> Result<(), StoreError>;

    /// Gives the value and forgets it. `None`: it was never put, was taken before, or has expired.
    ///
    /// # Errors
    /// The store is unreachable. Tells within a second.
    async fn take(&self, key: &PendingKey) -> Result<Option<Vec<u8>>, StoreError>;

    /// Whether the store answers.
    ///
    /// # Errors
    /// It doesn't.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// Under which a pending login is kept; tells nothing of its state to who hasn't the service's keys.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PendingKey(String);

impl PendingKey {
    /// Takes the derived key's text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PendingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PendingKey([redacted])")
    }
}

/// Keeps the accounts' connections.
///
/// The law: every change gets a revision that no change had before, over all replicas and slugs, in the order in which
/// changes become visible; so whoever has read [`Connections::changes_since`] `n` misses nothing up to `n`.
#[async_trait]
pub trait Connections: Send + Sync {
    /// Adds a connection.
    ///
    /// # Errors
    /// [`ChangeError::Exists`], or the store is unreachable.
    async fn create(&self, slug: &Slug, settings: &ConnectionSettings, secret: &ClientSecret) -> Result<Connection, ChangeError>;

    /// `None`: there is none.
    ///
    /// # Errors
    /// The store is unreachable, or what it holds can't be opened.
    async fn get(&self, slug: &Slug) -> Result<Option<Connection>, StoreError>;

    /// Connections by slug, after `after`, at most `limit`.
    ///
    /// # Errors
    /// The store is unreachable, or what it holds can't be opened.
    async fn list(&self, after: Option<&str>, limit: u32) -> Result<Vec<Connection>, StoreError>;

    /// Replaces the settings, and the secret where one is given, of exactly this revision. `keep_pin`: whether the
    /// pinned issuer stays.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`], [`ChangeError::Conflict`], or the store is unreachable.
    async fn update(&self, change: &ConnectionChange<'_>) -> Result<Connection, ChangeError>;

    /// Deletes exactly this revision.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`], [`ChangeError::Conflict`], or the store is unreachable.
    async fn delete(&self, slug: &Slug, revision: u64) -> Result<(), ChangeError>;

    /// Keeps the issuer that the metadata named at first use, unless one is kept already. The connection's revision
    /// stays, since nobody changed it; the change is told all the same.
    ///
    /// # Errors
    /// The store is unreachable.
    async fn pin_issuer(&self, slug: &Slug, revision: u64, issuer: &Issuer) -> Result<(), StoreError>;

    /// Where the changes stand now.
    ///
    /// # Errors
    /// The store is unreachable.
    async fn latest_change(&self) -> Result<u64, StoreError>;

    /// The slugs that changed after `seen`, each with its latest change, oldest first.
    ///
    /// # Errors
    /// The store is unreachable.
    async fn changes_since(&self, seen: u64) -> Result<Vec<(u64, Slug)>, StoreError>;
}

/// Keeps the keys that sign identity tokens.
///
/// The law: of two keys of one generation the first that was added is the one, over all replicas.
#[async_trait]
pub trait SigningKeys: Send + Sync {
    /// All of them.
    ///
    /// # Errors
    /// The store is unreachable, or what it holds can't be opened.
    async fn signing_keys(&self) -> Result<Vec<StoredSigningKey>, StoreError>;

    /// Adds a key, unless its generation has one.
    ///
    /// # Errors
    /// The store is unreachable.
    async fn add_signing_key(&self, key: &StoredSigningKey) -> Result<(), StoreError>;

    /// Forgets a key.
    ///
    /// # Errors
    /// The store is unreachable.
    async fn forget_signing_key(&self, generation: u64) -> Result<(), StoreError>;
}

/// Seals anew what a store holds sealed.
#[async_trait]
pub trait Reseal: Send + Sync {
    /// Puts everything under the newest key, also what others change meanwhile under an older one, and changes nothing
    /// else. While the service serves, too: each value is replaced only where it is still the one that was read.
    ///
    /// # Errors
    /// The store is unreachable, or others seal under an older key faster than this gets on.
    async fn reseal(&self) -> Result<Resealed, StoreError>;
}

/// What [`Reseal::reseal`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// So many values are under the newest key now and weren't before.
    pub changed: u64,
    /// So many values are there.
    pub all: u64,
    /// What none of the keys opens, by where it is; left as it is.
    pub unreadable: Vec<String>,
}

/// A key that signs identity tokens.
pub struct StoredSigningKey {
    /// Counts up from 1.
    pub generation: u64,
    /// Seconds since the Unix epoch.
    pub created_at: u64,
    /// The private key (RFC 5958).
    pub pkcs8: Zeroizing<Vec<u8>>,
}

/// What an update replaces.
#[derive(Debug)]
pub struct ConnectionChange<'a> {
    /// The account.
    pub slug: &'a Slug,
    /// The revision that was read.
    pub revision: u64,
    /// The new settings.
    pub settings: &'a ConnectionSettings,
    /// A new secret; `None`: the old one stays.
    pub secret: Option<&'a ClientSecret>,
    /// Whether the issuer pinned at first use stays.
    pub keep_pin: bool,
}

/// Why a store didn't do what was asked. The texts are for the log.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection, an error on it, or no answer in time.
    #[error("{store} is unavailable: {detail}")]
    Unavailable {
        /// Which store.
        store: &'static str,
        /// What its driver said; never holds a value.
        detail: String,
    },
    /// The bound of a store in memory is reached.
    #[error("the store of pending logins is full ({limit} logins)")]
    Full {
        /// The bound.
        limit: usize,
    },
    /// What is stored can't be read back.
    #[error("a stored connection can't be read: {0}")]
    Unreadable(String),
}

/// Bounds a call to SQL: a server that was paused neither answers nor breaks the connection.
pub(crate) async fn in_time<T, E: From<StoreError>>(
    store: &'static str,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    tokio::time::timeout(SQL_DEADLINE, answer).await.unwrap_or_else(|_| {
        store_failed(store);
        Err(StoreError::Unavailable { store, detail: format!("no answer within {SQL_DEADLINE:?}") }.into())
    })
}

const SQL_DEADLINE: Duration = Duration::from_secs(6);

/// Why a connection wasn't changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The account has a connection.
    #[error("the account has a connection already")]
    Exists,
    /// It has none.
    #[error("the account has no connection")]
    NotFound,
    /// The connection changed since it was read.
    #[error("the connection's revision is {current}")]
    Conflict {
        /// The revision in force.
        current: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
