//! What the service remembers: pending logins (Redis or memory) and connections (PostgreSQL or SQLite). The traits stand
//! here with their laws; which implementation runs is chosen once, in `app.rs`. Must never import a room above it.

pub mod cache;
pub mod memory;
pub mod redis;
pub mod seal;
pub mod sql;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::model::attempt::{Attempt, LoginSummary, TestLogin};
use crate::model::cause::Cause;
use crate::model::change::{ChangeRecord, FieldChange};
use crate::model::check::CheckRecord;
use crate::model::connection::{Connection, ConnectionSettings, Issuer};
use crate::model::secret::ClientSecrets;
use crate::model::slug::Slug;
use crate::model::time::{UnixMillis, UnixSeconds};
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
    async fn create(
        &self,
        slug: &Slug,
        settings: &ConnectionSettings,
        secrets: &ClientSecrets,
        details: &ChangeDetails,
    ) -> Result<Connection, ChangeError>;

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

    /// Replaces settings and secrets of exactly this revision.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`], [`ChangeError::Conflict`], or the store is unreachable.
    async fn update(&self, change: &ConnectionChange<'_>) -> Result<Connection, ChangeError>;

    /// Deletes exactly this revision.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`], [`ChangeError::Conflict`], or the store is unreachable.
    async fn delete(
        &self,
        slug: &Slug,
        revision: u64,
        details: &ChangeDetails,
    ) -> Result<(), ChangeError>;

    /// Has the two secrets of exactly this revision change places, unless there is one alone or they did so after
    /// `not_since` (milliseconds since the Unix epoch). Whether they have.
    ///
    /// # Errors
    /// The store is unreachable.
    async fn switch_secret(
        &self,
        slug: &Slug,
        revision: u64,
        not_since: UnixMillis,
        details: &ChangeDetails,
    ) -> Result<bool, StoreError>;

    /// Keeps what a check of this incarnation, or of a change that was proposed of it, found. No change: nobody's login is
    /// different for it.
    ///
    /// # Errors
    /// The store is unreachable.
    async fn record_check(
        &self,
        slug: &Slug,
        incarnation: u64,
        check: &CheckRecord,
        is_proposal: bool,
    ) -> Result<(), StoreError>;

    /// The changes of an account's connection, newest first, before `before` (of an earlier page), at most `limit`.
    ///
    /// # Errors
    /// The store is unreachable, or holds something else.
    async fn changes_of(
        &self,
        slug: &Slug,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<StoredChange>, StoreError>;

    /// Of how many connections a secret expires before this time (milliseconds since the Unix epoch).
    ///
    /// # Errors
    /// The store is unreachable.
    async fn secrets_expiring_before(&self, time: UnixMillis) -> Result<u64, StoreError>;

    /// Keeps the issuer that the metadata named at first use, unless one is kept already. The connection's revision
    /// stays, since nobody changed it; the change is told all the same.
    ///
    /// # Errors
    /// The store is unreachable.
    async fn pin_issuer(
        &self,
        slug: &Slug,
        revision: u64,
        issuer: &Issuer,
        details: &ChangeDetails,
    ) -> Result<(), StoreError>;

    /// Where the changes stand now.
    ///
    /// # Errors
    /// The store is unreachable.
    async fn latest_change(&self) -> Result<u64, StoreError>;

    /// The slugs that changed after `seen`, each with its latest change, oldest first.
    ///
    /// # Errors
    /// The store is unreachable.
    async fn changes_since(&self, seen: u64) -> Result<Vec<SlugChange>, StoreError>;
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
    pub created_at: UnixSeconds,
    /// The private key (RFC 5958).
    pub pkcs8: Zeroizing<Vec<u8>>,
}

/// Keeps what became of each account's latest logins.
///
/// The law: the latest [`ATTEMPTS_KEPT`] of each account, and what is counted.
#[async_trait]
pub trait LoginAttempts: Send + Sync {
    /// Adds what is in the batch, and forgets what is too much by then.
    ///
    /// # Errors
    /// The store is unreachable; nothing of the batch is kept then.
    async fn add_attempts(&self, batch: &AttemptBatch) -> Result<(), StoreError>;

    /// An account's attempts, newest first, at most `limit`.
    ///
    /// # Errors
    /// The store is unreachable, or holds something else.
    async fn attempts(&self, slug: &Slug, limit: u32) -> Result<Vec<Attempt>, StoreError>;

    /// How logins went at the accounts from `first` to `last`, failures of the time since `since` (milliseconds since the Unix
    /// epoch). An account without any has no entry.
    ///
    /// # Errors
    /// The store is unreachable.
    async fn login_summaries(
        &self,
        first: &Slug,
        last: &Slug,
        since: UnixMillis,
    ) -> Result<HashMap<Slug, LoginSummary>, StoreError>;

    /// Forgets attempts that ended before this time (milliseconds since the Unix epoch).
    ///
    /// # Errors
    /// The store is unreachable.
    async fn forget_attempts_before(&self, time: UnixMillis) -> Result<(), StoreError>;
}

/// What became of some logins.
#[derive(Debug, Default)]
pub struct AttemptBatch {
    /// Finished logins.
    pub attempts: Vec<AccountAttempt>,
    /// Callbacks whose state was not ours, by account.
    pub unrecognized: HashMap<Slug, u64>,
    /// Completed test logins.
    pub tested: Vec<ProvenLogin>,
}

/// One account's finished login.
#[derive(Debug)]
pub struct AccountAttempt {
    /// The account.
    pub slug: Slug,
    /// The login.
    pub attempt: Attempt,
}

/// A completed test login, to be kept with the connection that it proves.
#[derive(Debug)]
pub struct ProvenLogin {
    /// The account.
    pub slug: Slug,
    /// Of the connection.
    pub incarnation: u64,
    /// What it proves, and when.
    pub test_login: TestLogin,
}

impl AttemptBatch {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.attempts.is_empty() && self.unrecognized.is_empty() && self.tested.is_empty()
    }
}

/// How many attempts of an account are kept.
pub const ATTEMPTS_KEPT: u32 = 200;

/// What is recorded of a change, apart from what the store itself knows: time and revision.
#[derive(Clone, Debug)]
pub struct ChangeDetails {
    /// The calling program, and the person who used it if it said so.
    pub actor: String,
    /// See [`ChangeRecord::action`].
    pub action: &'static str,
    /// What changed.
    pub fields: Vec<FieldChange>,
    /// Whether a check was skipped.
    pub is_forced: bool,
}

impl ChangeDetails {
    /// A change for which no check was skipped.
    #[must_use]
    pub fn new(actor: &str, action: &'static str, fields: Vec<FieldChange>) -> Self {
        Self { actor: actor.to_owned(), action, fields, is_forced: false }
    }
}

/// A recorded change, with its place in the log.
#[derive(Debug)]
pub struct StoredChange {
    /// Grows with every change.
    pub id: i64,
    /// What changed.
    pub record: ChangeRecord,
}

/// That a slug's connection changed.
#[derive(Debug)]
pub struct SlugChange {
    /// The number of the change; see [`Connections::latest_change`].
    pub change: u64,
    /// The account.
    pub slug: Slug,
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
    /// The new secrets.
    pub secrets: &'a ClientSecrets,
    /// What to record of it.
    pub details: &'a ChangeDetails,
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

impl StoreError {
    /// What exactly happened.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Unavailable { .. } => Cause::StoreUnavailable,
            Self::Full { .. } => Cause::PendingLoginsFull,
            Self::Unreadable(_) => Cause::StoredValueUnreadable,
        }
    }
}

/// A store that may be opened some time after the start. The first one that is given stays.
pub struct DeferredStore<T: ?Sized> {
    name: &'static str,
    opened: OnceLock<Arc<T>>,
}

impl<T: ?Sized> DeferredStore<T> {
    /// Not opened yet. `name`: for errors and metrics.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, opened: OnceLock::new() }
    }

    /// Takes the store that could be opened.
    pub fn open(&self, store: Arc<T>) {
        let _ = self.opened.set(store);
    }

    /// Calls the store, within a deadline: a server that is paused neither answers nor breaks the
    /// connection.
    ///
    /// # Errors
    /// The store isn't open yet, doesn't answer in time, or its own error.
    pub async fn call<'a, R, E, F>(&'a self, call: impl FnOnce(&'a T) -> F) -> Result<R, E>
    where
        E: From<StoreError>,
        F: Future<Output = Result<R, E>>,
    {
        let unavailable = |detail| StoreError::Unavailable { store: self.name, detail };
        let store = self.opened.get();
        let store = store.ok_or_else(|| unavailable("not opened since the start".to_owned()))?;
        tokio::time::timeout(SQL_DEADLINE, call(store)).await.unwrap_or_else(|_| {
            store_failed(self.name);
            Err(unavailable(format!("no answer within {SQL_DEADLINE:?}")).into())
        })
    }
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
