//! Limits on calls to an IdP's token endpoint: how many logins of one connection may wait for it at
//! once, and a circuit breaker that stops calling an IdP that does not answer. Each connection has
//! its own, so that one account's IdP never affects another account.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::Outage;
use crate::model::time::MonotonicMillis;
use crate::telemetry::breaker_turned;

/// The limits of one connection.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    in_flight: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures_in_a_row: u32,
    /// `Some`: open until then, and half open afterwards: one trial call at a time.
    open_until: Option<MonotonicMillis>,
}

/// Permission for one call to the IdP; its place is free again when it is dropped.
#[derive(Debug)]
pub struct Permit {
    _permit: OwnedSemaphorePermit,
    breaker: Arc<CircuitBreaker>,
    /// Whether this is the trial call of a half-open breaker, and its outcome isn't recorded yet.
    is_trial: bool,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self { in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)), state: Mutex::default() }
    }
}

impl CircuitBreaker {
    /// Permission for a call that begins now, or why there is none.
    pub(super) fn acquire(self: &Arc<Self>, now: MonotonicMillis) -> Result<Permit, Outage> {
        let permit = Arc::clone(&self.in_flight).try_acquire_owned();
        let permit = permit.map_err(|_| Outage::TooManyWaiting)?;
        let mut state = self.lock();
        let is_trial = state.open_until.is_some();
        if let Some(open_until) = state.open_until {
            if now < open_until {
                return Err(Outage::CircuitOpen);
            }
            // No other trial until the outcome of this one is recorded.
            state.open_until = Some(MonotonicMillis(u64::MAX));
        }
        Ok(Permit { _permit: permit, breaker: Arc::clone(self), is_trial })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Records whether the IdP answered, whatever the answer was.
    pub fn record_outcome(&mut self, has_answered: bool, now: MonotonicMillis) {
        self.is_trial = false;
        let mut state = self.breaker.lock();
        let was_open = state.open_until.is_some();
        if has_answered {
            *state = State::default();
            if was_open {
                breaker_turned(false);
            }
            return;
        }
        state.failures_in_a_row = state.failures_in_a_row.saturating_add(1);
        if state.failures_in_a_row >= FAILURES_TO_OPEN {
            if !was_open {
                breaker_turned(true);
            }
            state.open_until = Some(now.after(OPEN));
        }
    }
}

/// A trial call without an outcome, since its caller cancelled or its state was spent, lets the next
/// call be the trial.
impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_trial {
            self.breaker.lock().open_until = Some(MonotonicMillis(0));
        }
    }
}

/// An open breaker is not counted as open once its connection is gone.
impl Drop for CircuitBreaker {
    fn drop(&mut self) {
        if self.state.get_mut().unwrap_or_else(PoisonError::into_inner).open_until.is_some() {
            breaker_turned(false);
        }
    }
}

/// Logins of one connection that wait for its IdP at once.
const MAX_IN_FLIGHT: usize = 64;
/// Calls in a row without an answer after which the IdP is not called for [`OPEN`].
const FAILURES_TO_OPEN: u32 = 5;
const OPEN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_in_flight_are_limited() {
        let breaker = Arc::new(CircuitBreaker::default());
        let mut permits: Vec<_> = (0..MAX_IN_FLIGHT)
            .map(|_| breaker.acquire(MonotonicMillis(0)).expect("room"))
            .collect();
        assert_eq!(breaker.acquire(MonotonicMillis(0)).expect_err("full"), Outage::TooManyWaiting);
        permits.pop();
        assert!(breaker.acquire(MonotonicMillis(0)).is_ok());
    }

    #[test]
    fn a_breaker_opens_after_failures_in_a_row_and_closes_after_one_good_trial() {
        let breaker = Arc::new(CircuitBreaker::default());
        let acquire = |now| breaker.acquire(MonotonicMillis(now));
        let record = |now, has_answered| {
            acquire(now).expect("a permit").record_outcome(has_answered, MonotonicMillis(now));
        };
        for _ in 1..FAILURES_TO_OPEN {
            record(0, false);
        }
        // An answer starts the count again.
        record(0, true);
        for _ in 0..FAILURES_TO_OPEN {
            record(0, false);
        }
        assert_eq!(acquire(9_999).expect_err("open"), Outage::CircuitOpen);
        drop(acquire(10_000).expect("a trial whose caller cancels"));
        let mut trial = acquire(10_000).expect("the next trial");
        assert_eq!(acquire(10_000).expect_err("one trial at a time"), Outage::CircuitOpen);
        trial.record_outcome(false, MonotonicMillis(10_500));
        assert!(acquire(20_499).is_err(), "open again");
        record(20_500, true);
        let both = (acquire(20_500), acquire(20_500));
        assert!(both.0.is_ok() && both.1.is_ok(), "closed");
    }
}
