//! Caches connections in memory, so that a login needs no SQL. A change by another replica is seen within
//! [`POLL_INTERVAL`] plus one query. While SQL is unavailable, cached connections stay in use, for as long
//! as the service is told. Caches only [`ConnectionCache::get`]: everything else goes to the store itself.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::future::Cache;
use moka::policy::EvictionPolicy;

use super::loads::{Found, Loads};
use super::{Changes, Connections, DeferredStore, Position, SlugChange, StoreError};
use crate::clock::Clock;
use crate::model::connection::Connection;
use crate::model::slug::Slug;
use crate::model::time::MonotonicMillis;
use crate::telemetry::history_replaced;

/// The cache of one process.
pub struct ConnectionCache {
    stored: Arc<DeferredStore<dyn Connections>>,
    clock: Arc<dyn Clock>,
    max_age: Duration,
    known: Cache<Slug, Arc<Connection>>,
    /// Slugs without a connection, each with the time at which there was none. Apart from the
    /// connections, so that made-up slugs push none of them out.
    absent: Cache<Slug, MonotonicMillis>,
    loads: Arc<Loads>,
    polled: Mutex<Option<Polled>>,
    /// Cached rows that are newer than the last poll. If the database goes back to the state of that poll,
    /// no later poll would tell that it has lost them.
    ahead: Mutex<HashSet<Slug>>,
    /// Incremented by every change that is applied, so that a row that was read before a change isn't
    /// cached after it.
    generation: AtomicU64,
}

/// The last poll that the store answered.
#[derive(Clone)]
struct Polled {
    /// What the cache reflects.
    position: Position,
    at: MonotonicMillis,
}

impl ConnectionCache {
    /// An empty cache for at most `limit` connections. `max_age`: how long they are used without an answer
    /// of the store to [`ConnectionCache::poll`].
    #[must_use]
    pub fn new(
        stored: Arc<DeferredStore<dyn Connections>>,
        clock: Arc<dyn Clock>,
        limit: u64,
        max_age: Duration,
    ) -> Self {
        let absent = Cache::builder()
            .max_capacity(MAX_ABSENT)
            // The latest, whatever was asked for often before.
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self {
            stored,
            clock,
            max_age,
            known: Cache::new(limit),
            absent,
            loads: Arc::new(Loads::new()),
            polled: Mutex::default(),
            ahead: Mutex::default(),
            generation: AtomicU64::new(0),
        }
    }

    /// The account's connection, if it has one.
    ///
    /// # Errors
    /// It isn't cached, and the store is unavailable or too many calls wait for it.
    pub async fn get(self: &Arc<Self>, slug: &Slug) -> Found {
        if self.is_current() {
            if let Some(connection) = self.known.get(slug).await {
                return Ok(Some(connection));
            }
            let now = self.clock.monotonic();
            if self.absent.get(slug).await.is_some_and(|since| now < since.after(ABSENT_FOR)) {
                return Ok(None);
            }
        }
        let (cache, wanted) = (Arc::clone(self), slug.clone());
        self.loads.join(slug, async move { cache.load(&wanted).await }).await
    }

    /// The account's connection if it is cached; for texts about it.
    pub async fn cached(&self, slug: &Slug) -> Option<Arc<Connection>> {
        self.known.get(slug).await
    }

    /// Drops an account's entry after this replica changed its connection.
    pub async fn forget(&self, slug: &Slug) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.loads.detach(slug);
        self.known.invalidate(slug).await;
        self.absent.invalidate(slug).await;
    }

    /// Applies the changes since the last poll. Called every [`POLL_INTERVAL`].
    ///
    /// # Errors
    /// The store is unavailable; the cached connections stay.
    pub async fn poll(&self) -> Result<(), StoreError> {
        let Some(Polled { mut position, .. }) = self.polled() else {
            let position = self.stored.call(|store| store.latest_change()).await?;
            self.set_polled(position);
            return Ok(());
        };
        let ahead = self.ahead().clone();
        loop {
            let changes = match self.stored.call(|store| store.changes_since(&position)).await? {
                Changes::Following(changes) => changes,
                Changes::OtherHistory(end) => {
                    self.forget_all(&position, end);
                    return Ok(());
                }
            };
            if changes.is_empty() {
                for slug in &ahead {
                    self.apply_change(slug, &position).await?;
                }
                self.set_polled(position);
                return Ok(());
            }
            for SlugChange { position: reached, slug } in changes {
                self.apply_change(&slug, &reached).await?;
                position = reached;
                self.set_polled(position.clone());
            }
        }
    }

    /// Whether the store has answered a poll, and not too long ago.
    #[must_use]
    pub fn is_current(&self) -> bool {
        let now = self.clock.monotonic();
        self.polled().is_some_and(|polled| now.since(polled.at) <= self.max_age)
    }

    async fn load(&self, slug: &Slug) -> Found {
        let generation = self.generation.load(Ordering::Acquire);
        let stored = self.stored.call(|store| store.get(slug)).await?.transpose();
        let found = stored.map_err(StoreError::from)?.map(Arc::new);
        // Without polls, a change of a cached row would go unnoticed.
        if self.is_current() {
            let seen = self.polled().map_or(0, |polled| polled.position.change);
            self.insert(slug, found.clone(), seen).await;
            // Compared after the insertion: a change that was applied in the meantime has either replaced
            // the entry, or changed the generation.
            if self.generation.load(Ordering::Acquire) != generation {
                self.known.invalidate(slug).await;
                self.absent.invalidate(slug).await;
            }
        }
        Ok(found)
    }

    async fn apply_change(&self, slug: &Slug, reached: &Position) -> Result<(), StoreError> {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.loads.detach(slug);
        self.absent.invalidate(slug).await;
        if !self.known.contains_key(slug) {
            self.ahead().remove(slug);
            return Ok(());
        }
        // Read before the old entry is replaced: if SQL fails now, the old entry stays in use.
        match self.stored.call(|store| store.get(slug)).await?.transpose() {
            Ok(latest) => self.insert(slug, latest.map(Arc::new), reached.change).await,
            // One unreadable row must not block all later changes.
            Err(error) => {
                tracing::error!(account.slug = %slug, %error, "failed to read a changed connection");
                self.known.invalidate(slug).await;
                self.ahead().remove(slug);
            }
        }
        Ok(())
    }

    /// The database is in an earlier state than the one that was read, or is another one: what is cached
    /// may never have existed in it, and no change would tell.
    fn forget_all(&self, seen: &Position, end: Position) {
        tracing::warn!(
            seen = seen.change,
            latest = end.change,
            "database went back to an earlier state or was replaced: forgot all known connections"
        );
        history_replaced();
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.loads.detach_all();
        self.known.invalidate_all();
        self.absent.invalidate_all();
        self.ahead().clear();
        self.set_polled(end);
    }

    /// Caches what was read when the changes up to number `seen` were known.
    async fn insert(&self, slug: &Slug, found: Option<Arc<Connection>>, seen: u64) {
        if found.as_ref().is_some_and(|connection| connection.revision > seen) {
            self.ahead().insert(slug.clone());
        } else {
            self.ahead().remove(slug);
        }
        match found {
            Some(connection) => {
                self.absent.invalidate(slug).await;
                self.known.insert(slug.clone(), connection).await;
            }
            None => {
                self.known.invalidate(slug).await;
                self.absent.insert(slug.clone(), self.clock.monotonic()).await;
            }
        }
    }

    fn ahead(&self) -> MutexGuard<'_, HashSet<Slug>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn polled(&self) -> Option<Polled> {
        self.polled.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_polled(&self, position: Position) {
        let polled = Polled { position, at: self.clock.monotonic() };
        *self.polled.lock().unwrap_or_else(PoisonError::into_inner) = Some(polled);
    }
}

/// How often the changes of other replicas are read: one small query, whatever the number of accounts.
pub const POLL_INTERVAL: Duration = Duration::from_secs(2);
const ABSENT_FOR: Duration = Duration::from_secs(2);
/// Slugs that are remembered to have no connection.
const MAX_ABSENT: u64 = 10_000;
