//! How many logins may begin, and how often a client secret may be replaced. Of logins: first per network of the person, so that a stranger can't lock an account
//! out; then per account, with a high limit that only protects the store's memory.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::model::rate::Rate;
use crate::model::slug::Slug;
use crate::rate_limit::RateLimiter;

/// The limits.
pub(super) struct LoginLimits {
    by_client: RateLimiter<String>,
    by_account: RateLimiter<Slug>,
    switches: RateLimiter<Slug>,
}

impl LoginLimits {
    pub(super) fn new(per_client: Rate, per_account: Rate, clock: Arc<dyn Clock>) -> Self {
        let by_client = RateLimiter::new(per_client, Arc::clone(&clock));
        let by_account = RateLimiter::new(per_account, Arc::clone(&clock));
        Self { by_client, by_account, switches: RateLimiter::new(SWITCHES, clock) }
    }

    /// Counts a login of this `client_key`, which the web tier sets. The error: how long to wait.
    pub(super) fn admit_client(&self, client_key: Option<&str>) -> Result<(), Duration> {
        client_key.map_or(Ok(()), |key| self.by_client.admit(&key.to_owned()))
    }

    /// Counts a login of this account. The error: how long to wait.
    pub(super) fn admit_account(&self, slug: &Slug) -> Result<(), Duration> {
        self.by_account.admit(slug)
    }

    /// Counts an attempt to let this account's standby secret take the place of the active one.
    pub(super) fn admit_switch(&self, slug: &Slug) -> Result<(), Duration> {
        self.switches.admit(slug)
    }

    /// Forgets the keys whose logins no longer count.
    pub(super) fn forget_idle(&self) {
        self.by_client.forget_idle();
        self.by_account.forget_idle();
        self.switches.forget_idle();
    }
}

/// Each attempt is two requests to the IdP, which a wrong secret may lock out.
const SWITCHES: Rate = Rate { count: TWO, period: Duration::from_secs(60) };
const TWO: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn one_client_is_limited_and_another_is_not() {
        let clock = Arc::new(ManualClock::starting_now());
        let rate = |text| Rate::parse(text).expect("a rate");
        let limits =
            LoginLimits::new(rate("3/3s"), rate("1000/s"), Arc::clone(&clock) as Arc<dyn Clock>);
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
        assert!(limits.by_client.is_empty());
    }
}
