//! What support does with the accounts' connections: a verb is a file. Only a check calls the IdP.
//! Never gives a client secret out.

mod activate;
mod attempts;
mod automatic;
mod changes;
mod check;
mod create;
mod guide;
mod page;
mod restore;
mod update;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::model::Violation;
use crate::model::address::AddressPolicy;
use crate::model::cause::Cause;
use crate::model::change::ChangeRecord;
use crate::model::check::CheckRecord;
use crate::model::connection::Connection;
use crate::model::slug::Slug;
use crate::model::unreadable::{StoredConnection, readable, slug_of};
use crate::oidc::providers::Providers;
use crate::rate_limit::RateLimiter;
use crate::store::cache::ConnectionCache;
use crate::store::{
    ChangeDetails, ChangeError, Connections, DeferredStore, LoginAttempts, StoreError, StoredChange,
};

pub use attempts::{AttemptList, ListedAttempt, Logins, Suspicion};
pub use automatic::AutomaticChanges;
pub use check::{CheckRequest, CheckTarget, Proposal};
pub use create::NewConnection;
pub use page::Page;
use page::Pager;
pub use restore::Restoration;
pub use update::{ConnectionEdit, Updated};

/// The verbs; one for the process.
pub struct ConnectionAdmin {
    store: Arc<DeferredStore<dyn Connections>>,
    attempts: Arc<DeferredStore<dyn LoginAttempts>>,
    cache: Arc<ConnectionCache>,
    providers: Arc<Providers>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    public_origin: String,
    check_rate: RateLimiter<Slug>,
}

impl ConnectionAdmin {
    /// Joins the verbs with the parts that they use.
    #[must_use]
    pub fn new(
        store: Arc<DeferredStore<dyn Connections>>,
        attempts: Arc<DeferredStore<dyn LoginAttempts>>,
        cache: Arc<ConnectionCache>,
        providers: Arc<Providers>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        public_origin: String,
    ) -> Self {
        let check_rate = RateLimiter::new(check::RATE, Arc::clone(&clock));
        Self { store, attempts, cache, providers, clock, entropy, public_origin, check_rate }
    }

    /// Which addresses the connection of an account may name. `None`: the slug is invalid.
    #[must_use]
    pub fn addresses(&self, account: Option<&Slug>) -> &AddressPolicy {
        self.providers.http().of(account).addresses()
    }

    /// One connection, as stored now.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn get(&self, slug: &Slug) -> Result<Connection, ConnectionError> {
        let stored = self.stored(slug).await?;
        stored.map_err(|unreadable| StoreError::from(unreadable).into())
    }

    /// One connection, whether or not it can be read.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn stored(&self, slug: &Slug) -> Result<StoredConnection, ConnectionError> {
        let found = self.store.call(|store| store.get(slug)).await?;
        found.ok_or(ConnectionError::NotFound)
    }

    /// One connection to be changed; those of its secrets that can't be opened are missing.
    async fn editable(&self, slug: &Slug) -> Result<Connection, ConnectionError> {
        self.stored(slug).await?.or_else(|mut unreadable| {
            let rest = unreadable.without_secrets.take();
            rest.ok_or_else(|| StoreError::from(unreadable).into())
        })
    }

    /// Connections by slug, after `after`.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn list(
        &self,
        after: Option<Slug>,
        size: u32,
    ) -> Result<Page<StoredConnection, Slug>, ConnectionError> {
        let describe = |stored: &StoredConnection| {
            let size = readable(stored).map_or(0, |it| it.settings.size());
            (size, slug_of(stored).clone())
        };
        let mut pager = Pager::new(after, size);
        while let Some(limit) = pager.wanted() {
            let found = self.store.call(|store| store.list(pager.after(), limit)).await?;
            pager.take(found, describe);
        }
        Ok(pager.done())
    }

    /// What was changed, newest first, before `before`.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn changes(
        &self,
        slug: &Slug,
        before: Option<i64>,
        size: u32,
    ) -> Result<Page<Changed, i64>, ConnectionError> {
        let kept = self.store.call(|store| store.earlier_revisions(slug)).await?;
        let mut pager = Pager::new(before, size);
        while let Some(limit) = pager.wanted() {
            let before = pager.after().copied();
            let found = self.store.call(|store| store.changes_of(slug, before, limit)).await?;
            pager.take(found, |change| (change.record.size(), change.id));
        }
        let Page { items, next } = pager.done();
        let changed = |StoredChange { record, .. }: StoredChange| Changed {
            can_restore: !record.is_check() && kept.contains(&record.revision),
            record,
        };
        Ok(Page { items: items.into_iter().map(changed).collect(), next })
    }

    /// Deletes a connection.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn delete(
        &self,
        slug: &Slug,
        revision: u64,
        actor: &str,
    ) -> Result<(), ConnectionError> {
        let details = ChangeDetails::new(actor, "delete", Vec::new());
        let deleted = self.store.call(|store| store.delete(slug, revision, &details)).await;
        self.cache.forget(slug).await;
        Ok(deleted?)
    }
}

/// A recorded change.
#[derive(Debug)]
pub struct Changed {
    /// What changed.
    pub record: ChangeRecord,
    /// Whether its revision can be restored.
    pub can_restore: bool,
}

/// Whether nothing failed when the connection as it is was last checked: a test login decides what a
/// check can't.
fn is_checked(connection: &Connection) -> bool {
    let check = connection.check_of(&connection.settings, &connection.secrets.active);
    check.is_some_and(CheckRecord::has_not_failed)
}

/// Why support's call was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// Fields are missing or malformed.
    #[error("the connection is malformed")]
    Invalid(Vec<Violation>),
    /// The account has a connection.
    #[error("the account already has a connection")]
    Exists,
    /// The account has none.
    #[error("no connection is set up for this account")]
    NotFound,
    /// The connection changed since it was read.
    #[error("the connection changed since it was read: its revision is {current}")]
    Conflict {
        /// The current revision.
        current: u64,
    },
    /// Only an activation makes a connection ACTIVE.
    #[error("a connection becomes ACTIVE only by peerpanda-sso connection activate")]
    ActivationRequired,
    /// A check or a test login is missing.
    #[error("missing: {0}")]
    ProofMissing(MissingProof),
    /// An update of an ACTIVE connection whose settings have not passed a check.
    #[error(
        "{0}; check the change first (peerpanda-sso connection check with the same flags), set the state \
         to TESTING with it (--state testing), or use --force"
    )]
    ChangeUnproven(changes::Effect),
    /// Too many checks.
    #[error("too many checks of this account")]
    RateLimited {
        /// How long to wait.
        retry_after: Duration,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is missing before a connection is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MissingProof {
    /// A check.
    #[error("a check of these settings in which nothing fails (peerpanda-sso connection check)")]
    Check,
    /// A test login.
    #[error("a test login with these settings")]
    TestLogin,
    /// Both.
    #[error(
        "a check of these settings in which nothing fails (peerpanda-sso connection check), and a test \
         login with them"
    )]
    Both,
}

impl ConnectionError {
    /// What exactly happened. For [`ConnectionError::Invalid`] the server derives it from the fields.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Invalid(_) => Cause::FieldInvalid,
            Self::Exists => Cause::ConnectionExists,
            Self::NotFound => Cause::ConnectionNotSetUp,
            Self::Conflict { .. } => Cause::RevisionConflict,
            Self::ActivationRequired => Cause::ActivationRequired,
            Self::ProofMissing(_) => Cause::ProofMissing,
            Self::ChangeUnproven(_) => Cause::ChangeUnproven,
            Self::RateLimited { .. } => Cause::CheckRate,
            Self::Store(error) => error.cause(),
        }
    }
}

impl From<ChangeError> for ConnectionError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Exists => Self::Exists,
            ChangeError::NotFound => Self::NotFound,
            ChangeError::Conflict { current } => Self::Conflict { current },
            ChangeError::Store(error) => Self::Store(error),
        }
    }
}
