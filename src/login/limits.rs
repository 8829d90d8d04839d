//! How many logins may begin: first by the person's network, so that a stranger can't lock an account out; then by
//! connection, high, to protect the store's memory alone.

use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock as RateClock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};

use crate::ambient::Clock;
use crate::model::rate::Rate;
use crate::model::slug::Slug;

fn quota(rate: Rate) -> Option<Quota> {
    Some(Quota::with_period(rate.period / rate.count.get())?.allow_burst(rate.count))
}

/// What may begin now.
pub(super) struct BeginLimits {
    by_client: Option<Limiter<String>>,
    by_connection: Option<Limiter<Slug>>,
    clock: AmbientClock,
}

type Limiter<K> = RateLimiter<K, DefaultKeyedStateStore<K>, AmbientClock, NoOpMiddleware<Duration>>;

impl BeginLimits {
    pub(super) fn new(per_client: Rate, per_connection: Rate, clock: Arc<dyn Clock>) -> Self {
        let clock = AmbientClock(clock);
        Self {
            by_client: quota(per_client).map(|quota| RateLimiter::dashmap_with_clock(quota, clock.clone())),
            by_connection: quota(per_connection).map(|quota| RateLimiter::dashmap_with_clock(quota, clock.clone())),
            clock,
        }
    }

    /// By the key that the web tier gives. The error: how long to wait.
    pub(super) fn admit_client(&self, client_key: Option<&str>) -> Result<(), Duration> {
        match (&self.by_client, client_key) {
            (Some(limiter), Some(key)) => self.admit(limiter, &key.to_owned()),
            _ => Ok(()),
        }
    }

    /// By connection. The error: how long to wait.
    pub(super) fn admit_connection(&self, slug: &Slug) -> Result<(), Duration> {
        self.by_connection.as_ref().map_or(Ok(()), |limiter| self.admit(limiter, slug))
    }

    /// Forgets whoever has not begun a login for so long that nothing counts any more.
    pub(super) fn forget_idle(&self) {
        if let Some(limiter) = &self.by_client {
            limiter.retain_recent();
        }
        if let Some(limiter) = &self.by_connection {
            limiter.retain_recent();
        }
    }

    fn admit<K: Clone + Eq + std::hash::Hash>(&self, limiter: &Limiter<K>, key: &K) -> Result<(), Duration> {
        limiter.check_key(key).map_err(|not_until| not_until.wait_time_from(self.clock.now()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::ManualClock;

    #[test]
    fn one_client_is_limited_and_another_is_not() {
        let clock = Arc::new(ManualClock::starting_now());
        let rate = |text| Rate::parse(text).expect("a rate");
        let limits = BeginLimits::new(rate("3/3s"), rate("1000/s"), Arc::clone(&clock) as Arc<dyn Clock>);
        for _ in 0..3 {
            assert!(limits.admit_client(Some("a")).is_ok());
        }
        let wait = limits.admit_client(Some("a")).expect_err("limited");
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        assert!(limits.admit_client(Some("b")).is_ok() && limits.admit_client(None).is_ok());
        clock.advance(wait);
        assert!(limits.admit_client(Some("a")).is_ok());
        clock.advance(Duration::from_secs(60));
        limits.forget_idle();
        assert_eq!(limits.by_client.as_ref().map(RateLimiter::len), Some(0));
    }
}
