//! Before an IdP's token endpoint: how many logins of one connection may wait for it at once, and a breaker that stops
//! asking an IdP which doesn't answer. Each connection has its own, so that one account's IdP is nobody else's trouble.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::model::time::UnixMillis;
use crate::telemetry::breaker_turned;

/// One connection's breaker_of.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    permits: Arc<Semaphore>,
    breaker: Mutex<Breaker>,
}

#[derive(Debug, Default)]
struct Breaker {
    failures_in_a_row: u32,
    /// Unix milliseconds; `Some`: nobody permits_held until then, and one at a time afterwards.
    open_until: Option<UnixMillis>,
}

/// Leave to call the IdP once; given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    _permit: OwnedSemaphorePermit,
    breaker_of: Arc<CircuitBreaker>,
    /// The one that finds out whether the IdP answers again, until it has told.
    is_trial: bool,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(MAX_IN_FLIGHT)), breaker: Mutex::default() }
    }
}

impl CircuitBreaker {
    /// Leave to call, or why there is none. `now`: Unix milliseconds.
    pub(super) fn acquire(self: &Arc<Self>, now: UnixMillis) -> Result<Permit, &'static str> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| TOO_MANY)?;
        let mut breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        let is_trial = breaker.open_until.is_some();
        if let Some(open_until) = breaker.open_until {
            if now < open_until {
                return Err(BROKEN);
            }
            // The next may try only when this one has told.
            breaker.open_until = Some(UnixMillis(u64::MAX));
        }
        Ok(Permit { _permit: permit, breaker_of: Arc::clone(self), is_trial })
    }
}

impl Permit {
    /// Tells whether the IdP answered, whatever it said.
    pub fn record_outcome(&mut self, has_answered: bool, now: UnixMillis) {
        self.is_trial = false;
        let mut breaker = self.breaker_of.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        let was_open = breaker.open_until.is_some();
        if has_answered {
            *breaker = Breaker::default();
            if was_open {
                breaker_turned(false);
            }
            return;
        }
        breaker.failures_in_a_row = breaker.failures_in_a_row.saturating_add(1);
        if breaker.failures_in_a_row >= FAILURES_TO_OPEN {
            if !was_open {
                breaker_turned(true);
            }
            breaker.open_until = Some(now.after(OPEN));
        }
    }
}

/// A trial that was given up, since its caller went away or its state was spent, leaves the trying to the next.
impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_trial {
            self.breaker_of.breaker.lock().unwrap_or_else(PoisonError::into_inner).open_until =
                Some(UnixMillis(0));
        }
    }
}

/// One that is forgotten with its connection is no open one.
impl Drop for CircuitBreaker {
    fn drop(&mut self) {
        if self.breaker.get_mut().unwrap_or_else(PoisonError::into_inner).open_until.is_some() {
            breaker_turned(false);
        }
    }
}

/// Logins of one connection that wait for its IdP at once.
const MAX_IN_FLIGHT: usize = 64;
/// Calls without an answer, one after the other, after which the IdP isn't asked for [`OPEN`].
const FAILURES_TO_OPEN: u32 = 5;
const OPEN: Duration = Duration::from_secs(10);
const TOO_MANY: &str = "too many logins of this account wait for it already";
const BROKEN: &str = "it has not answered lately, and is not asked for some seconds";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_has_room_for_so_many_and_no_more() {
        let breaker_of = Arc::new(CircuitBreaker::default());
        let mut permits_held: Vec<_> =
            (0..MAX_IN_FLIGHT).map(|_| breaker_of.acquire(UnixMillis(0)).expect("room")).collect();
        assert_eq!(breaker_of.acquire(UnixMillis(0)).expect_err("full"), TOO_MANY);
        permits_held.pop();
        assert!(breaker_of.acquire(UnixMillis(0)).is_ok());
    }

    #[test]
    fn a_breaker_opens_after_failures_in_a_row_and_closes_after_one_good_trial() {
        let breaker_of = Arc::new(CircuitBreaker::default());
        for _ in 1..FAILURES_TO_OPEN {
            breaker_of.acquire(UnixMillis(0)).expect("closed").record_outcome(false, UnixMillis(0));
        }
        breaker_of.acquire(UnixMillis(0)).expect("closed").record_outcome(true, UnixMillis(0));
        for _ in 0..FAILURES_TO_OPEN {
            breaker_of
                .acquire(UnixMillis(0))
                .expect("an answer between counts anew")
                .record_outcome(false, UnixMillis(0));
        }
        assert_eq!(breaker_of.acquire(UnixMillis(9_999)).expect_err("open"), BROKEN);
        drop(breaker_of.acquire(UnixMillis(10_000)).expect("a trial that is given up"));
        let mut trial = breaker_of.acquire(UnixMillis(10_000)).expect("the next trial");
        assert_eq!(
            breaker_of.acquire(UnixMillis(10_000)).expect_err("one trial at a time"),
            BROKEN
        );
        trial.record_outcome(false, UnixMillis(10_500));
        assert!(breaker_of.acquire(UnixMillis(20_499)).is_err(), "open again");
        breaker_of
            .acquire(UnixMillis(20_500))
            .expect("a trial")
            .record_outcome(true, UnixMillis(20_500));
        assert!(
            breaker_of.acquire(UnixMillis(20_500)).is_ok()
                && breaker_of.acquire(UnixMillis(20_500)).is_ok()
        );
    }
}
