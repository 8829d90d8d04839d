//! Pending logins in this process's memory: for development, tests, and a single small replica. Bounded,
//! expires by the monotonic clock. Refuses new logins when it is full: must never evict a login under way.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::{PendingKey, PendingLogins, StoreError};
use crate::clock::Clock;
use crate::model::time::MonotonicMillis;

/// [`PendingLogins`] in memory.
pub struct MemoryPendingLogins {
    clock: Arc<dyn Clock>,
    limit: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    values: HashMap<PendingKey, (MonotonicMillis, Vec<u8>)>,
    /// Expiry and key, to find expired logins without a scan.
    by_expiry: BTreeSet<(MonotonicMillis, String)>,
}

impl MemoryPendingLogins {
    /// An empty store for at most `limit` logins.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, limit: usize) -> Self {
        Self { clock, limit, inner: Mutex::default() }
    }

    fn locked<T>(&self, act: impl FnOnce(&mut Inner, MonotonicMillis) -> T) -> T {
        let now = self.clock.monotonic();
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner), now)
    }
}

impl Inner {
    fn remove(&mut self, key: &PendingKey) -> Option<(MonotonicMillis, Vec<u8>)> {
        let (expiry, value) = self.values.remove(key)?;
        self.by_expiry.remove(&(expiry, key.0.clone()));
        Some((expiry, value))
    }

    fn drop_expired(&mut self, now: MonotonicMillis) {
        while self.by_expiry.first().is_some_and(|(expiry, _)| *expiry <= now) {
            if let Some((_, key)) = self.by_expiry.pop_first() {
                self.values.remove(&PendingKey(key));
            }
        }
    }
}

#[async_trait]
impl PendingLogins for MemoryPendingLogins {
    async fn put(&self, key: &PendingKey, value: &[u8], ttl: Duration) -> Result<(), StoreError> {
        self.locked(|inner, now| {
            inner.drop_expired(now);
            if inner.values.len() >= self.limit {
                return Err(StoreError::Full { limit: self.limit });
            }
            if inner.values.contains_key(key) {
                return Err(StoreError::Unavailable {
                    store: "memory",
                    detail: "the key is in use".to_owned(),
                });
            }
            let expiry = now.after(ttl);
            inner.by_expiry.insert((expiry, key.0.clone()));
            inner.values.insert(key.clone(), (expiry, value.to_vec()));
            Ok(())
        })
    }

    async fn take(&self, key: &PendingKey) -> Result<Option<Vec<u8>>, StoreError> {
        self.locked(|inner, now| {
            Ok(inner.remove(key).filter(|(expiry, _)| *expiry > now).map(|(_, value)| value))
        })
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
