//! Caches connections in memory, so that a login needs no SQL. A change by another replica is seen within
//! [`POLL_INTERVAL`] plus one query. While SQL is unavailable, cached connections stay in use. Caches only
//! [`ConnectionCache::get`]: everything else goes to the store itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::future::Cache;

use super::{Connections, DeferredStore, SlugChange, StoreError};
use crate::clock::Clock;
use crate::model::connection::Connection;
use crate::model::slug::Slug;
use crate::model::time::MonotonicMillis;

/// The cache of one process.
pub struct ConnectionCache {
    stored: Arc<DeferredStore<dyn Connections>>,
    clock: Arc<dyn Clock>,
    entries: Cache<Slug, Entry>,
    /// The number of the latest change that `entries` reflects; `UNREAD` until the first poll.
    seen: AtomicU64,
    /// Incremented by every change that is applied, so that a row that was read before a change isn't
    /// cached after it.
    generation: AtomicU64,
}

#[derive(Clone)]
enum Entry {
    Present(Arc<Connection>),
    /// There was no connection at this time.
    Absent(MonotonicMillis),
}

impl ConnectionCache {
    /// An empty cache for at most `limit` connections.
    #[must_use]
    pub fn new(
        stored: Arc<DeferredStore<dyn Connections>>,
        clock: Arc<dyn Clock>,
        limit: u64,
    ) -> Self {
        let (seen, generation) = (AtomicU64::new(UNREAD), AtomicU64::new(0));
        Self { stored, clock, entries: Cache::new(limit), seen, generation }
    }

    /// The account's connection, if it has one.
    ///
    /// # Errors
    /// It isn't cached, and the store is unavailable.
    pub async fn get(&self, slug: &Slug) -> Result<Option<Arc<Connection>>, StoreError> {
        match self.entries.get(slug).await {
            Some(Entry::Present(connection)) => return Ok(Some(connection)),
            Some(Entry::Absent(since)) if self.clock.monotonic() < since.after(ABSENT_FOR) => {
                return Ok(None);
            }
            _ => {}
        }
        let generation = self.generation.load(Ordering::Acquire);
        let found = self.stored.call(|store| store.get(slug)).await?.map(Arc::new);
        // Before the first successful poll, a change of a cached row would go unnoticed.
        if self.was_read() {
            self.insert(slug, found.clone()).await;
            // Compared after the insertion: a change that was applied in the meantime has either replaced
            // the entry, or changed the generation.
            if self.generation.load(Ordering::Acquire) != generation {
                self.entries.invalidate(slug).await;
            }
        }
        Ok(found)
    }

    /// Drops an account's entry after this replica changed its connection.
    pub async fn forget(&self, slug: &Slug) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.entries.invalidate(slug).await;
    }

    /// Applies the changes since the last poll. Called every [`POLL_INTERVAL`].
    ///
    /// # Errors
    /// The store is unavailable; the cached connections stay.
    pub async fn poll(&self) -> Result<(), StoreError> {
        let mut seen = self.seen.load(Ordering::Acquire);
        if seen == UNREAD {
            let latest = self.stored.call(|store| store.latest_change()).await?;
            self.seen.store(latest, Ordering::Release);
            return Ok(());
        }
        loop {
            let changes = self.stored.call(|store| store.changes_since(seen)).await?;
            let Some(last) = changes.last() else { return Ok(()) };
            seen = last.change;
            for SlugChange { change, slug } in changes {
                self.apply_change(&slug).await?;
                self.seen.store(change, Ordering::Release);
            }
        }
    }

    /// Whether the store has answered at least once.
    #[must_use]
    pub fn was_read(&self) -> bool {
        self.seen.load(Ordering::Acquire) != UNREAD
    }

    async fn apply_change(&self, slug: &Slug) -> Result<(), StoreError> {
        self.generation.fetch_add(1, Ordering::AcqRel);
        if !self.entries.contains_key(slug) {
            return Ok(());
        }
        // Read before the old entry is replaced: if SQL fails now, the old entry stays in use.
        let latest = match self.stored.call(|store| store.get(slug)).await {
            Ok(latest) => latest,
            // One unreadable row must not block all later changes.
            Err(StoreError::Unreadable(detail)) => {
                tracing::error!(account.slug = %slug, detail, "failed to read a changed connection");
                None
            }
            Err(error) => return Err(error),
        };
        self.insert(slug, latest.map(Arc::new)).await;
        Ok(())
    }

    async fn insert(&self, slug: &Slug, found: Option<Arc<Connection>>) {
        let absent = || Entry::Absent(self.clock.monotonic());
        let entry = found.map_or_else(absent, Entry::Present);
        self.entries.insert(slug.clone(), entry).await;
    }
}

/// How often the changes of other replicas are read: one small query, whatever the number of accounts.
pub const POLL_INTERVAL: Duration = Duration::from_secs(2);
const ABSENT_FOR: Duration = Duration::from_secs(2);
const UNREAD: u64 = u64::MAX;
