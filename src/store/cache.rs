//! The connections that this replica knows: a login reads them from memory, without SQL. What another replica changes
//! is seen within [`POLL_INTERVAL`] and a bit; while SQL is away, what is known goes on being used.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::future::Cache;

use super::{
    ChangeError, ChangeNote, ConnectionChange, Connections, DeferredStore, StoreError, with_timeout,
};
use crate::clock::Clock;
use crate::model::connection::{ClientSecrets, Connection, ConnectionSettings, Issuer};
use crate::model::proving::{ChangeRecord, CheckRecord};
use crate::model::slug::Slug;

/// Connections with a memory in front of them.
pub struct KnownConnections {
    stored: DeferredStore<dyn Connections>,
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
            stored: DeferredStore::new("connections"),
            clock,
            known: Cache::new(limit),
            seen: AtomicU64::new(UNREAD),
            generation: AtomicU64::new(0),
        }
    }

    /// Takes the store that could be opened; the first one stays.
    pub fn open(&self, stored: Arc<dyn Connections>) {
        self.stored.open(stored);
    }

    /// The connection; `None`: there is none.
    ///
    /// # Errors
    /// It isn't known yet, and the store is unreachable.
    pub async fn get(&self, slug: &Slug) -> Result<Option<Arc<Connection>>, StoreError> {
        match self.known.get(slug).await {
            Some(Known::There(connection)) => return Ok(Some(connection)),
            Some(Known::Absent(since)) if self.clock.unix_millis() < since + ABSENT_FOR_MILLIS => {
                return Ok(None);
            }
            _ => {}
        }
        let generation = self.generation.load(Ordering::Acquire);
        let found = with_timeout("connections", self.stored.get()?.get(slug)).await?.map(Arc::new);
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
        secrets: &ClientSecrets,
        note: &ChangeNote,
    ) -> Result<Connection, ChangeError> {
        let created =
            with_timeout("connections", self.stored.get()?.create(slug, settings, secrets, note))
                .await;
        self.forget(slug).await;
        created
    }

    /// Changes a connection; see [`Connections::update`].
    ///
    /// # Errors
    /// As there.
    pub async fn update(&self, change: &ConnectionChange<'_>) -> Result<Connection, ChangeError> {
        let updated = with_timeout("connections", self.stored.get()?.update(change)).await;
        self.forget(change.slug).await;
        updated
    }

    /// Deletes a connection; see [`Connections::delete`].
    ///
    /// # Errors
    /// As there.
    pub async fn delete(
        &self,
        slug: &Slug,
        revision: u64,
        note: &ChangeNote,
    ) -> Result<(), ChangeError> {
        let deleted =
            with_timeout("connections", self.stored.get()?.delete(slug, revision, note)).await;
        self.forget(slug).await;
        deleted
    }

    /// What is stored, not what is known: for support, who must see the latest.
    ///
    /// # Errors
    /// As [`Connections::get`].
    pub async fn read(&self, slug: &Slug) -> Result<Option<Connection>, StoreError> {
        with_timeout("connections", self.stored.get()?.get(slug)).await
    }

    /// See [`Connections::list`].
    ///
    /// # Errors
    /// As there.
    pub async fn list(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Connection>, StoreError> {
        with_timeout("connections", self.stored.get()?.list(after, limit)).await
    }

    /// Keeps the issuer named at first use; see [`Connections::pin_issuer`]. Answers with the connection as it stands
    /// afterwards, pinned by this replica or by another.
    ///
    /// # Errors
    /// The store is unreachable.
    pub async fn pin_issuer(
        &self,
        connection: &Connection,
        issuer: &Issuer,
    ) -> Result<Option<Arc<Connection>>, StoreError> {
        let was = (ISSUER_FIELD.to_owned(), String::new(), issuer.to_string());
        let note = ChangeNote {
            actor: THE_SERVICE.to_owned(),
            action: "pin_issuer",
            fields: vec![was],
            ..ChangeNote::default()
        };
        with_timeout(
            "connections",
            self.stored.get()?.pin_issuer(&connection.slug, connection.revision, issuer, &note),
        )
        .await?;
        self.forget(&connection.slug).await;
        self.get(&connection.slug).await
    }

    /// Has the other secret of this connection, whose client the IdP has rejected, take its place: for the next login.
    ///
    /// # Errors
    /// The store is unreachable.
    pub async fn switch_secret(&self, connection: &Connection) -> Result<bool, StoreError> {
        let Some(standby) = &connection.secrets.standby else { return Ok(false) };
        let millis = u64::try_from(SWITCH_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        let not_since = self.clock.unix_millis().saturating_sub(millis);
        let fields = vec![(
            "client_secret".to_owned(),
            connection.secrets.active.fingerprint(),
            standby.fingerprint(),
        )];
        let note = ChangeNote {
            actor: THE_SERVICE.to_owned(),
            action: "switch_secret",
            fields,
            ..ChangeNote::default()
        };
        let switch = self.stored.get()?.switch_secret(
            &connection.slug,
            connection.revision,
            not_since,
            &note,
        );
        let has_switched = with_timeout("connections", switch).await?;
        self.forget(&connection.slug).await;
        Ok(has_switched)
    }

    /// See [`Connections::record_check`].
    ///
    /// # Errors
    /// As there.
    pub async fn record_check(
        &self,
        slug: &Slug,
        incarnation: u64,
        check: &CheckRecord,
        is_proposal: bool,
    ) -> Result<(), StoreError> {
        with_timeout(
            "connections",
            self.stored.get()?.record_check(slug, incarnation, check, is_proposal),
        )
        .await
    }

    /// See [`Connections::changes_of`].
    ///
    /// # Errors
    /// As there.
    pub async fn changes_of(
        &self,
        slug: &Slug,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<(i64, ChangeRecord)>, StoreError> {
        with_timeout("connections", self.stored.get()?.changes_of(slug, before, limit)).await
    }

    /// See [`Connections::secrets_expiring_before`].
    ///
    /// # Errors
    /// As there.
    pub async fn secrets_expiring_before(&self, time: u64) -> Result<u64, StoreError> {
        with_timeout("connections", self.stored.get()?.secrets_expiring_before(time)).await
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
            let latest = with_timeout("connections", self.stored.get()?.latest_change()).await?;
            self.seen.store(latest, Ordering::Release);
            return Ok(());
        }
        let mut seen = seen;
        loop {
            let changes =
                with_timeout("connections", self.stored.get()?.changes_since(seen)).await?;
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
        let latest = match with_timeout("connections", self.stored.get()?.get(slug)).await {
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

/// How often the two secrets of a connection may change places by themselves.
pub const SWITCH_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// Who changes what nobody asked for.
const THE_SERVICE: &str = "the service";
const ISSUER_FIELD: &str = "issuer";
const ABSENT_FOR_MILLIS: u64 = 2_000;
const UNREAD: u64 = u64::MAX;
