//! A rate limit per key, on the monotonic clock: `login` limits begun logins with it, and
//! `connections` limits checks.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use governor::Quota;
use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;

use crate::clock::Clock;
use crate::model::rate::Rate;

/// The limit and the state of each key.
pub struct RateLimiter<K: Clone + Eq + Hash> {
    /// `None`: the rate is too high to be limited.
    inner: Option<Inner<K>>,
    clock: SharedClock,
}

type Inner<K> =
    governor::RateLimiter<K, DefaultKeyedStateStore<K>, SharedClock, NoOpMiddleware<Duration>>;

impl<K: Clone + Eq + Hash> RateLimiter<K> {
    /// Allows bursts of the whole count.
    #[must_use]
    pub fn new(rate: Rate, clock: Arc<dyn Clock>) -> Self {
        let clock = SharedClock(clock);
        let quota = Quota::with_period(rate.period / rate.count.get());
        let quota = quota.map(|quota| quota.allow_burst(rate.count));
        let inner =
            quota.map(|quota| governor::RateLimiter::dashmap_with_clock(quota, clock.clone()));
        Self { inner, clock }
    }

    /// Counts one event of `key`.
    ///
    /// # Errors
    /// How long to wait.
    pub fn admit(&self, key: &K) -> Result<(), Duration> {
        let Some(limiter) = &self.inner else { return Ok(()) };
        limiter.check_key(key).map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    /// Frees the state of keys that have been idle for so long that it no longer matters.
    pub fn forget_idle(&self) {
        if let Some(limiter) = &self.inner {
            limiter.retain_recent();
        }
    }

    /// The number of keys with a state.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.as_ref().map_or(0, governor::RateLimiter::len)
    }

    /// Whether no key has a state.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The monotonic clock as governor's trait.
#[derive(Clone)]
struct SharedClock(Arc<dyn Clock>);

impl GovernorClock for SharedClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.monotonic().0)
    }
}
