//! The stores: pending logins (Redis or memory), and connections, signing keys, login attempts and
//! what IdPs published (PostgreSQL or SQLite). Every method fails with a [`StoreError`] if the store is unavailable or what it
//! holds can't be read. Each trait states the law that `tests/it/store_suite.rs` proves on every
//! implementation; `app` chooses the implementation. Must never import a layer above it.

mod attempts;
pub mod cache;
mod documents;
mod history;
mod loads;
pub mod memory;
pub mod redis;
pub mod seal;
pub mod sql;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::model::cause::Cause;
use crate::model::change::{ChangeRecord, FieldChange};
use crate::model::check::CheckRecord;
use crate::model::connection::{Connection, ConnectionSettings, Issuer};
use crate::model::secret::ClientSecrets;
use crate::model::slug::Slug;
use crate::model::time::{UnixMillis, UnixSeconds};
use crate::model::unreadable::{StoredConnection, Unreadable, UnreadableConnection};
use crate::telemetry::store_failed;

pub use attempts::{
    ATTEMPTS_KEPT, AccountAttempt, AttemptBatch, LoginAttempts, ProvenLogin, REFUSALS_KEPT,
    TRACES_KEPT,
};
pub use documents::KeptDocuments;
pub use history::{Changes, Position, SlugChange};

/// Stores the values of logins that have begun and are not completed.
///
/// Law: a value is taken at most once, over all replicas and under any race, and never after its time to
/// live. A value can't be read without taking it; the answers of completed logins are kept apart. Every method returns within a second.
#[async_trait]
pub trait PendingLogins: Send + Sync {
    /// Stores `value` under `key` for `ttl`. Fails also if the store or the account's share of it is full,
    /// or the key is in use.
    async fn put(
        &self,
        account: &Slug,
        key: &PendingKey,
        value: &[u8],
        ttl: Duration,
    ) -> Result<(), StoreError>;

    /// Removes the value and returns it. `None`: it was never stored, was taken before, or has expired.
    async fn take(&self, key: &PendingKey) -> Result<Option<Vec<u8>>, StoreError>;

    /// Keeps the answer of a completed login for `ttl`, to be read any number of times. It may be dropped
    /// before.
    async fn keep_answer(
        &self,
        key: &PendingKey,
        value: &[u8],
        ttl: Duration,
    ) -> Result<(), StoreError>;

    /// An answer that was kept.
    async fn kept_answer(&self, key: &PendingKey) -> Result<Option<Vec<u8>>, StoreError>;

    /// Checks that the store accepts writes.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// The key of a pending login. Reveals nothing about the login's state without the service's keys.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PendingKey(String);

impl PendingKey {
    /// Wraps the text of the derived key.
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

/// Stores the accounts' connections.
///
/// Law: every change gets a number that no change of the database's history had before, over all replicas
/// and slugs, in the order in which changes become visible. So a reader of [`Connections::changes_since`]
/// misses no change, and learns of a database that went back to an earlier state.
#[async_trait]
pub trait Connections: Send + Sync {
    /// Adds a connection.
    ///
    /// # Errors
    /// [`ChangeError::Exists`], or the store is unavailable.
    async fn create(
        &self,
        slug: &Slug,
        settings: &ConnectionSettings,
        secrets: &ClientSecrets,
        details: &ChangeDetails,
    ) -> Result<Connection, ChangeError>;

    /// The account's connection, if it has one.
    async fn get(&self, slug: &Slug) -> Result<Option<StoredConnection>, StoreError>;

    /// At most `limit` connections after the slug `after`, in the order of slugs. One that can't be read
    /// keeps nobody from the others.
    async fn list(
        &self,
        after: Option<&Slug>,
        limit: u32,
    ) -> Result<Vec<StoredConnection>, StoreError>;

    /// Replaces the settings and secrets of exactly this revision. Stored settings that this version
    /// doesn't know stay.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`], [`ChangeError::Conflict`], settings of a newer version that would be
    /// lost, or the store is unavailable.
    async fn update(&self, change: &ConnectionChange<'_>) -> Result<Connection, ChangeError>;

    /// The numbers of the earlier revisions of the account's connection that are kept: the latest
    /// [`REVISIONS_KEPT`].
    async fn earlier_revisions(&self, slug: &Slug) -> Result<Vec<u64>, StoreError>;

    /// The settings and secrets of an earlier revision, if it is kept; all else is as it is now.
    async fn earlier_revision(
        &self,
        slug: &Slug,
        revision: u64,
    ) -> Result<Option<StoredConnection>, StoreError>;

    /// Deletes exactly this revision, and the earlier ones.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`], [`ChangeError::Conflict`], or the store is unavailable.
    async fn delete(
        &self,
        slug: &Slug,
        revision: u64,
        details: &ChangeDetails,
    ) -> Result<(), ChangeError>;

    /// Swaps the two secrets of exactly this revision if the standby secret has not expired. Returns whether
    /// it did. The swap is a new revision, so replicas that try at the same time swap once.
    async fn switch_secret(
        &self,
        slug: &Slug,
        revision: u64,
        details: &ChangeDetails,
    ) -> Result<bool, StoreError>;

    /// Stores the last check of this incarnation, or of a proposed change of it, and records it among the
    /// changes. Gets no change number, as it affects no login. Of the records of checks, the latest
    /// [`CHECKS_KEPT`] are kept.
    async fn record_check(
        &self,
        slug: &Slug,
        incarnation: u64,
        check: &CheckRecord,
        is_proposal: bool,
        details: &ChangeDetails,
    ) -> Result<(), StoreError>;

    /// At most `limit` changes of an account's connection, newest first. `before`: the id of the last change
    /// of the previous page.
    async fn changes_of(
        &self,
        slug: &Slug,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<StoredChange>, StoreError>;

    /// The number of connections with a secret that expires before this time.
    async fn secrets_expiring_before(&self, time: UnixMillis) -> Result<u64, StoreError>;

    /// Stores the issuer that the metadata named at first use, unless one is stored already. Keeps the
    /// revision, since the settings stay the same, but gets a change number, so that replicas see it.
    async fn pin_issuer(
        &self,
        slug: &Slug,
        revision: u64,
        issuer: &Issuer,
        details: &ChangeDetails,
    ) -> Result<(), StoreError>;

    /// Where the history of changes ends.
    async fn latest_change(&self) -> Result<Position, StoreError>;

    /// What changed after `seen`, or that `seen` is of another history than the database's.
    async fn changes_since(&self, seen: &Position) -> Result<Changes, StoreError>;
}

/// Stores the keys that sign identity tokens.
///
/// Law: over all replicas, the first key that is added for a generation stays.
#[async_trait]
pub trait SigningKeys: Send + Sync {
    /// All keys, by generation. One that can't be opened keeps nobody from the others.
    async fn signing_keys(&self) -> Result<Vec<SigningKeyEntry>, StoreError>;

    /// Adds a key, unless its generation already has one.
    async fn add_signing_key(&self, key: &StoredSigningKey) -> Result<(), StoreError>;

    /// Deletes a key.
    async fn forget_signing_key(&self, generation: u64) -> Result<(), StoreError>;
}

/// Seals the stored secrets again after a change of keys.
#[async_trait]
pub trait Reseal: Send + Sync {
    /// Seals every value under the newest key and changes nothing else. Safe while the service runs: a
    /// value that is written in the meantime is found again, and never overwritten.
    ///
    /// # Errors
    /// The store is unavailable, or replicas keep sealing values under an older key.
    async fn reseal(&self) -> Result<Resealed, StoreError>;
}

/// The result of [`Reseal::reseal`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// How many values were resealed.
    pub changed: u64,
    /// How many sealed values there are.
    pub all: u64,
    /// The values that no key opens, described by their place. They are left as they are.
    pub unreadable: Vec<String>,
}

/// What is stored of a generation.
pub enum SigningKeyEntry {
    /// Its key.
    Key(StoredSigningKey),
    /// It can't be opened: it was sealed under a key that this service doesn't have, or was changed.
    Unreadable {
        /// Counts up from 1.
        generation: u64,
    },
}

/// A key that signs identity tokens.
pub struct StoredSigningKey {
    /// Counts up from 1.
    pub generation: u64,
    /// When the key was made.
    pub created_at: UnixSeconds,
    /// The private key (RFC 5958).
    pub pkcs8: Zeroizing<Vec<u8>>,
}

/// How many earlier revisions of each connection are kept.
pub const REVISIONS_KEPT: u32 = 20;
/// How many checks of each account stay among its recorded changes.
pub const CHECKS_KEPT: u32 = 50;

/// What is recorded of a change. The store adds time and revision.
#[derive(Clone, Debug)]
pub struct ChangeDetails {
    /// The calling program, and the person on whose behalf it called, if named.
    pub actor: String,
    /// See [`ChangeRecord::action`].
    pub action: &'static str,
    /// The fields that changed.
    pub fields: Vec<FieldChange>,
    /// Whether a required check was skipped.
    pub is_forced: bool,
    /// See [`ChangeRecord::hosts`].
    pub hosts: Vec<String>,
}

impl ChangeDetails {
    /// Details of a change for which no check was skipped.
    #[must_use]
    pub fn new(actor: &str, action: &'static str, fields: Vec<FieldChange>) -> Self {
        Self { actor: actor.to_owned(), action, fields, is_forced: false, hosts: Vec::new() }
    }
}

/// A recorded change.
#[derive(Debug)]
pub struct StoredChange {
    /// The place in the log; grows with every change.
    pub id: i64,
    /// The change.
    pub record: ChangeRecord,
}

/// An update of a connection.
#[derive(Debug)]
pub struct ConnectionChange<'a> {
    /// The account.
    pub slug: &'a Slug,
    /// The revision to which the update applies.
    pub revision: u64,
    /// The new settings.
    pub settings: &'a ConnectionSettings,
    /// The new secrets.
    pub secrets: &'a ClientSecrets,
    /// What is recorded of the change.
    pub details: &'a ChangeDetails,
    /// Whether an issuer that was pinned at first use is kept.
    pub keep_pin: bool,
}

/// Why a call of a store failed. The texts are for the log.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection, a failed statement or command, or no answer in time.
    #[error("{store} is unavailable: {detail}")]
    Unavailable {
        /// The store's name.
        store: &'static str,
        /// The driver's error; never contains a stored value.
        detail: String,
    },
    /// The store in memory is at its limit.
    #[error("the store of pending logins is full: limit {limit}")]
    Full {
        /// The most logins that it holds.
        limit: usize,
    },
    /// The account holds as many logins as the store in memory has left for all others.
    #[error("the account's share of the store of pending logins is full: {held} of {limit}")]
    ShareFull {
        /// The account's logins.
        held: usize,
        /// The most logins that the store holds.
        limit: usize,
    },
    /// A stored value can't be read.
    #[error("failed to read a stored value: {0}")]
    Unreadable(String),
    /// The account's connection can't be read, or not be changed without a loss.
    #[error("{why}: {detail}")]
    ConnectionUnreadable {
        /// What is wrong.
        why: Unreadable,
        /// What exactly.
        detail: String,
    },
}

impl StoreError {
    /// What exactly happened.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Unavailable { .. } => Cause::StoreUnavailable,
            Self::Full { .. } => Cause::PendingLoginsFull,
            Self::ShareFull { .. } => Cause::AccountPendingLoginsFull,
            Self::Unreadable(_) => Cause::StoredValueUnreadable,
            Self::ConnectionUnreadable { why, .. } => why.cause(),
        }
    }
}

impl From<Box<UnreadableConnection>> for StoreError {
    fn from(unreadable: Box<UnreadableConnection>) -> Self {
        Self::ConnectionUnreadable { why: unreadable.why, detail: unreadable.detail }
    }
}

/// A store that may be opened some time after the start.
pub struct DeferredStore<T: ?Sized> {
    name: &'static str,
    opened: OnceLock<Arc<T>>,
}

impl<T: ?Sized> DeferredStore<T> {
    /// A store that is not open yet. `name`: for errors and metrics.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, opened: OnceLock::new() }
    }

    /// Sets the store, once it could be opened. Only the first call has an effect.
    pub fn open(&self, store: Arc<T>) {
        let _ = self.opened.set(store);
    }

    /// Calls the store within a deadline, since a paused server neither answers nor closes the connection.
    ///
    /// # Errors
    /// The store isn't open yet, doesn't answer in time, or fails.
    pub async fn call<'a, R, E, F>(&'a self, call: impl FnOnce(&'a T) -> F) -> Result<R, E>
    where
        E: From<StoreError>,
        F: Future<Output = Result<R, E>>,
    {
        let unavailable = |detail| StoreError::Unavailable { store: self.name, detail };
        let store = self.opened.get();
        let store = store.ok_or_else(|| unavailable("not opened yet".to_owned()))?;
        tokio::time::timeout(SQL_DEADLINE, call(store)).await.unwrap_or_else(|_| {
            store_failed(self.name);
            Err(unavailable(format!("no answer within {SQL_DEADLINE:?}")).into())
        })
    }
}

const SQL_DEADLINE: Duration = Duration::from_secs(6);

/// Why a connection was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The account already has a connection.
    #[error("the account already has a connection")]
    Exists,
    /// The account has no connection.
    #[error("the account has no connection")]
    NotFound,
    /// The connection changed since it was read.
    #[error("the connection's current revision is {current}")]
    Conflict {
        /// The current revision.
        current: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
