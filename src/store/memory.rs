//! Pending logins in this process's memory: for development, tests, and a single small replica. Bounded,
//! expires by the monotonic clock. Refuses new logins when it is full, and those of one account when it
//! holds as many as are left for all others: must never evict a login under way.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use moka::sync::Cache;

use super::{PendingKey, PendingLogins, StoreError};
use crate::clock::Clock;
use crate::model::slug::Slug;
use crate::model::time::MonotonicMillis;

/// [`PendingLogins`] in memory.
pub struct MemoryPendingLogins {
    clock: Arc<dyn Clock>,
    limit: usize,
    inner: Mutex<Inner>,
    answers: Cache<PendingKey, Arc<(MonotonicMillis, Vec<u8>)>>,
}

#[derive(Default)]
struct Inner {
    values: HashMap<PendingKey, Stored>,
    /// Expiry and key, to find expired logins without a scan.
    by_expiry: BTreeSet<(MonotonicMillis, String)>,
    /// How many logins each account holds; no entry: none.
    held: HashMap<Slug, usize>,
}

struct Stored {
    expiry: MonotonicMillis,
    account: Slug,
    value: Vec<u8>,
}

impl MemoryPendingLogins {
    /// An empty store for at most `limit` logins.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, limit: usize) -> Self {
        let answers = Cache::builder()
            .max_capacity(MAX_ANSWER_BYTES)
            .weigher(|_, kept: &Arc<(_, Vec<u8>)>| u32::try_from(kept.1.len()).unwrap_or(u32::MAX))
            .time_to_live(MAX_ANSWER_AGE)
            .build();
        Self { clock, limit, inner: Mutex::default(), answers }
    }

    fn locked<T>(&self, act: impl FnOnce(&mut Inner, MonotonicMillis) -> T) -> T {
        let now = self.clock.monotonic();
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner), now)
    }
}

impl Inner {
    fn add(&mut self, key: &PendingKey, stored: Stored) {
        self.by_expiry.insert((stored.expiry, key.0.clone()));
        *self.held.entry(stored.account.clone()).or_default() += 1;
        self.values.insert(key.clone(), stored);
    }

    fn remove(&mut self, key: &PendingKey) -> Option<Stored> {
        let stored = self.values.remove(key)?;
        self.by_expiry.remove(&(stored.expiry, key.0.clone()));
        if let Entry::Occupied(mut held) = self.held.entry(stored.account.clone()) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
        Some(stored)
    }

    fn drop_expired(&mut self, now: MonotonicMillis) {
        while let Some((expiry, key)) = self.by_expiry.first()
            && *expiry <= now
        {
            let key = PendingKey(key.clone());
            self.remove(&key);
        }
    }
}

#[async_trait]
impl PendingLogins for MemoryPendingLogins {
    async fn put(
        &self,
        account: &Slug,
        key: &PendingKey,
        value: &[u8],
        ttl: Duration,
    ) -> Result<(), StoreError> {
        self.locked(|inner, now| {
            inner.drop_expired(now);
            let (limit, free) = (self.limit, self.limit.saturating_sub(inner.values.len()));
            let held = inner.held.get(account).copied().unwrap_or_default();
            if free == 0 {
                return Err(StoreError::Full { limit });
            }
            // So one account alone gets half of the store, two get a third each, and some is always left.
            if held > free {
                return Err(StoreError::ShareFull { held, limit });
            }
            if inner.values.contains_key(key) {
                return Err(StoreError::Unavailable {
                    store: "memory",
                    detail: "the key is in use".to_owned(),
                });
            }
            let (account, value) = (account.clone(), value.to_vec());
            inner.add(key, Stored { expiry: now.after(ttl), account, value });
            Ok(())
        })
    }

    async fn take(&self, key: &PendingKey) -> Result<Option<Vec<u8>>, StoreError> {
        self.locked(|inner, now| {
            Ok(inner.remove(key).filter(|stored| stored.expiry > now).map(|stored| stored.value))
        })
    }

    async fn keep_answer(
        &self,
        key: &PendingKey,
        value: &[u8],
        ttl: Duration,
    ) -> Result<(), StoreError> {
        let expiry = self.clock.monotonic().after(ttl);
        self.answers.insert(key.clone(), Arc::new((expiry, value.to_vec())));
        Ok(())
    }

    async fn kept_answer(&self, key: &PendingKey) -> Result<Option<Vec<u8>>, StoreError> {
        let now = self.clock.monotonic();
        let kept = self.answers.get(key).filter(|kept| kept.0 > now);
        Ok(kept.map(|kept| kept.1.clone()))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Bytes of the answers of completed logins; the oldest are dropped.
const MAX_ANSWER_BYTES: u64 = 16 << 20;
/// Longer than any answer is kept by its own time to live.
const MAX_ANSWER_AGE: Duration = Duration::from_secs(5 * 60);
