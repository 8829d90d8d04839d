//! So many in so long, for each of many: a rate limit by key, on the service's own clock.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock as RateClock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};

use crate::clock::Clock;
use crate::model::rate::Rate;

/// The limit, with what it remembers of each key.
pub struct Limiter<K: Clone + Eq + Hash> {
    /// `None`: the rate is beyond what can be limited.
    inner:
        Option<RateLimiter<K, DefaultKeyedStateStore<K>, AmbientClock, NoOpMiddleware<Duration>>>,
    clock: AmbientClock,
}

impl<K: Clone + Eq + Hash> Limiter<K> {
    /// The whole rate may come at once.
    #[must_use]
    pub fn new(rate: Rate, clock: Arc<dyn Clock>) -> Self {
        let clock = AmbientClock(clock);
        let quota = Quota::with_period(rate.period / rate.count.get())
            .map(|quota| quota.allow_burst(rate.count));
        Self {
            inner: quota.map(|quota| RateLimiter::dashmap_with_clock(quota, clock.clone())),
            clock,
        }
    }

    /// Counts one.
    ///
    /// # Errors
    /// How long to wait.
    pub fn admit(&self, key: &K) -> Result<(), Duration> {
        let Some(limiter) = &self.inner else { return Ok(()) };
        limiter.check_key(key).map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    /// Forgets whoever has been idle for so long that nothing counts any more.
    pub fn forget_idle(&self) {
        if let Some(limiter) = &self.inner {
            limiter.retain_recent();
        }
    }

    /// How many keys are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.as_ref().map_or(0, RateLimiter::len)
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The service's own clock, as the rate limiter wants one.
#[derive(Clone)]
struct AmbientClock(Arc<dyn Clock>);

impl RateClock for AmbientClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.unix_millis())
    }
}
