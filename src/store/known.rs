//! The connections that this replica knows: a login reads them from memory, without SQL. What another replica changes
//! is seen within [`POLL_INTERVAL`] and a bit; while SQL is away, what is known goes on being used.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use moka::future::Cache;

use super::{ChangeError, ConnectionChange, Connections, StoreError, in_time};
use crate::ambient::Clock;
use crate::model::connection::{ClientSecret, Connection, ConnectionSettings, Issuer};
use crate::model::slug::Slug;

/// Connections with a memory in front of them.
pub struct KnownConnections {
    /// Empty until the store could be opened.
    stored: OnceLock<Arc<dyn Connections>>,
    clock: Arc<dyn Clock>,
    known: Cache<Slug, Known>,
    /// The latest change that has been taken over into `known`; `UNREAD` until the first look.
    seen: AtomicU64,
    /// Grows with every change taken over, so that a row read before it isn't remembered after it.
    generation: AtomicU64,
}

#[derive(Clone)]
enum Known {
    There(Arc<Connection>),
    /// No such connection, as of this time (Unix milliseconds).
    Absent(u64),
}

impl KnownConnections {
    /// Remembers at most `limit` connections, of a store that is still to be opened.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, limit: u64) -> Self {
        Self {
            stored: OnceLock::new(),
            clock,
            known: Cache::new(limit),
            seen: AtomicU64::new(UNREAD),
            generation: AtomicU64::new(0),
        }
    }

    /// Takes the store that could be opened; the first one stays.
    pub fn open(&self, stored: Arc<dyn Connections>) {
        let _ = self.stored.set(stored);
    }

    fn stored(&self) -> Result<&Arc<dyn Connections>, StoreError> {
        let detail = || "it could not be opened since the start".to_owned();
        self.stored.get().ok_or_else(|| StoreError::Unavailable { store: "connections", detail: detail() })
    }

    /// The connection; `None`: there is none.
    ///
    /// # Errors
    /// It isn't known yet, and the store is unreachable.
    pub async fn get(&self, slug: &Slug) -> Result<Option<Arc<Connection>>, StoreError> {
        match self.known.get(slug).await {
            Some(Known::There(connection)) => return Ok(Some(connection)),
            Some(Known::Absent(since)) if self.clock.unix_millis() < since + ABSENT_FOR_MILLIS => return Ok(None),
            _ => {}
        }
        let generation = self.generation.load(Ordering::Acquire);
        let found = in_time("connections", self.stored()?.get(slug)).await?.map(Arc::new);
        // Until a poll has succeeded nobody would tell that a remembered row has changed.
        if self.was_read() {
            self.remember(slug, found.clone()).await;
            // Looked at after the row was put in: a change that was taken over meanwhile has either replaced it, or
            // shows here.
            if self.generation.load(Ordering::Acquire) != generation {
                self.known.invalidate(slug).await;
            }
        }
        Ok(found)
    }

    /// Adds a connection; see [`Connections::create`].
    ///
    /// # Errors
    /// As there.
    pub async fn create(
        &self,
        slug: &Slug,
        settings: &ConnectionSettings,
        secret: &ClientSecret,
    ) -> Result<Connection, ChangeError> {
        let created = in_time("connections", self.stored()?.create(slug, settings, secret)).await;
        self.forget(slug).await;
        created
    }

    /// Changes a connection; see [`Connections::update`].
    ///
    /// # Errors
    /// As there.
    pub async fn update(&self, change: &ConnectionChange<'_>) -> Result<Connection, ChangeError> {
        let updated = in_time("connections", self.stored()?.update(change)).await;
        self.forget(change.slug).await;
        updated
    }

    /// Deletes a connection; see [`Connections::delete`].
    ///
    /// # Errors
    /// As there.
    pub async fn delete(&self, slug: &Slug, revision: u64) -> Result<(), ChangeError> {
        let deleted = in_time("connections", self.stored()?.delete(slug, revision)).await;
        self.forget(slug).await;
        deleted
    }

    /// What is stored, not what is known: for support, who must see the latest.
    ///
    /// # Errors
    /// As [`Connections::get`].
    pub async fn read(&self, slug: &Slug) -> Result<Option<Connection>, StoreError> {
        in_time("connections", self.stored()?.get(slug)).await
    }

    /// See [`Connections::list`].
    ///
    /// # Errors
    /// As there.
    pub async fn list(&self, after: Option<&str>, limit: u32) -> Result<Vec<Connection>, StoreError> {
        in_time("connections", self.stored()?.list(after, limit)).await
    }

    /// Keeps the issuer named at first use; see [`Connections::pin_issuer`]. Answers with the connection as it stands
    /// afterwards, pinned by this replica or by another.
    ///
    /// # Errors
    /// The store is unreachable.
    pub async fn pin_issuer(&self, connection: &Connection, issuer: &Issuer) -> Result<Option<Arc<Connection>>, StoreError> {
        in_time("connections", self.stored()?.pin_issuer(&connection.slug, connection.revision, issuer)).await?;
        self.forget(&connection.slug).await;
        self.get(&connection.slug).await
    }

    /// Takes over what changed since the last look: to be called every [`POLL_INTERVAL`].
    ///
    /// # Errors
    /// The store is unreachable; what is known stays.
    pub async fn poll(&self) -> Result<(), StoreError> {
        self.take_changes_over().await
    }

    /// Whether the store answered at least once.
    #[must_use]
    pub fn was_read(&self) -> bool {
        self.seen.load(Ordering::Acquire) != UNREAD
    }

    async fn take_changes_over(&self) -> Result<(), StoreError> {
        let seen = self.seen.load(Ordering::Acquire);
        if seen == UNREAD {
            let latest = in_time("connections", self.stored()?.latest_change()).await?;
            self.seen.store(latest, Ordering::Release);
            return Ok(());
        }
        let mut seen = seen;
        loop {
            let changes = in_time("connections", self.stored()?.changes_since(seen)).await?;
            let Some((latest, _)) = changes.last() else { return Ok(()) };
            seen = *latest;
            for (change, slug) in changes {
                self.take_change_over(&slug).await?;
                self.seen.store(change, Ordering::Release);
            }
        }
    }

    async fn take_change_over(&self, slug: &Slug) -> Result<(), StoreError> {
        self.generation.fetch_add(1, Ordering::AcqRel);
        if !self.known.contains_key(slug) {
            return Ok(());
        }
        // Read before the old is dropped: if SQL goes away just now, the old one goes on being used.
        let latest = match in_time("connections", self.stored()?.get(slug)).await {
            Ok(latest) => latest,
            // One row that can't be read must not hold up all that changed after it.
            Err(StoreError::Unreadable(detail)) => {
                tracing::error!(account.slug = %slug, detail, "a changed connection can't be read; it is unknown from now on");
                None
            }
            Err(error) => return Err(error),
        };
        self.remember(slug, latest.map(Arc::new)).await;
        Ok(())
    }

    async fn remember(&self, slug: &Slug, found: Option<Arc<Connection>>) {
        let known = found.map_or_else(|| Known::Absent(self.clock.unix_millis()), Known::There);
        self.known.insert(slug.clone(), known).await;
    }

    async fn forget(&self, slug: &Slug) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.known.invalidate(slug).await;
    }
}

/// How often changes of other replicas are looked for; one small query each time, whatever the number of accounts.
pub const POLL_INTERVAL: Duration = Duration::from_secs(2);

const ABSENT_FOR_MILLIS: u64 = 2_000;
const UNREAD: u64 = u64::MAX;
