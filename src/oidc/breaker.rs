//! Limits on calls to an IdP's token endpoint: how many logins of one connection may wait for it at
//! once, and a circuit breaker that stops calling an IdP that does not answer. Each connection has
//! its own, so that one account's IdP never affects another account.
//!
//! Anybody can begin a login and complete it with a made-up code, so what the breaker counts must not
//! be in a stranger's hands:
//!
//! - an answer by HTTP closes it and starts the count again, also an HTTP 429 and, in a trial, a 5xx;
//! - a call without an answer does not count if another call was answered since it began;
//! - a 5xx does not count if an exchange has succeeded in the last minute: some IdPs answer 5xx to
//!   unknown codes;
//! - logins that one client began count once, unless not even a connection was made, which no code can
//!   cause.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::{CallError, ExchangeError, Outage};
use crate::model::login::ClientTag;
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
    /// Those who began the logins that failed since the last answer. `None`: not known.
    failures: Vec<Option<ClientTag>>,
    answered_at: Option<MonotonicMillis>,
    succeeded_at: Option<MonotonicMillis>,
    /// `Some`: open until then, and half open afterwards: one trial call at a time.
    open_until: Option<MonotonicMillis>,
}

/// Permission for one call to the IdP; its place is free again when it is dropped.
#[derive(Debug)]
pub struct Permit {
    _permit: OwnedSemaphorePermit,
    breaker: Arc<CircuitBreaker>,
    began_at: MonotonicMillis,
    /// Whether this is the trial call of a half-open breaker, and its outcome isn't recorded yet.
    is_trial: bool,
}

/// What a call to the token endpoint shows of the IdP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// It gave tokens.
    Succeeded,
    /// It gave another answer by HTTP.
    Answered,
    /// It answered with HTTP 5xx.
    ServerError,
    /// It got the request and gave no whole answer.
    NoAnswer,
    /// No connection was made.
    NoConnection,
    /// It was not called.
    NotCalled,
}

impl CallOutcome {
    /// The outcome of an exchange.
    #[must_use]
    pub fn of<T>(exchanged: &Result<T, ExchangeError>) -> Self {
        match exchanged {
            Ok(_) => Self::Succeeded,
            Err(ExchangeError::Call(error)) => match error {
                CallError::Unavailable { outage, .. } => Self::of_outage(outage),
                CallError::AddressForbidden { .. } | CallError::OutOfResources { .. } => {
                    Self::NotCalled
                }
                CallError::Unusable { .. } => Self::Answered,
            },
            Err(
                ExchangeError::ClientRejected(_)
                | ExchangeError::CodeRejected(_)
                | ExchangeError::RequestRejected(_)
                | ExchangeError::EndpointGone(_)
                | ExchangeError::ResponseInvalid(_),
            ) => Self::Answered,
        }
    }

    fn of_outage(outage: &Outage) -> Self {
        match outage {
            Outage::Dns
            | Outage::DnsNoAnswer
            | Outage::Connect
            | Outage::CertificateExpired(_)
            | Outage::CertificateNotYetValid(_)
            | Outage::CertificateUntrusted(_)
            | Outage::ChainIncomplete
            | Outage::CertificateNameMismatch
            | Outage::Tls(_)
            | Outage::Proxy(_)
            | Outage::ConnectTimeout(_) => Self::NoConnection,
            Outage::Timeout(_) | Outage::ConnectionLost => Self::NoAnswer,
            Outage::TooManyRequests(_) => Self::Answered,
            Outage::ServerError(_) => Self::ServerError,
            Outage::CircuitOpen | Outage::TooManyWaiting => Self::NotCalled,
        }
    }
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
        Ok(Permit { _permit: permit, breaker: Arc::clone(self), began_at: now, is_trial })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Records what the call has shown. `client`: who began the login.
    pub fn record_outcome(
        &mut self,
        outcome: CallOutcome,
        client: Option<ClientTag>,
        now: MonotonicMillis,
    ) {
        let mut state = self.breaker.lock();
        let is_open = state.open_until.is_some();
        match outcome {
            // A trial remains one, for the next call; see `drop`.
            CallOutcome::NotCalled => return,
            CallOutcome::Succeeded => {
                state.succeeded_at = Some(now);
                state.answered(now);
            }
            CallOutcome::Answered => state.answered(now),
            CallOutcome::ServerError if is_open => state.answered(now),
            CallOutcome::ServerError => {
                let has_succeeded = |at: MonotonicMillis| now < at.after(RECENTLY);
                if !state.succeeded_at.is_some_and(has_succeeded) {
                    state.failed(client, now);
                }
            }
            CallOutcome::NoAnswer | CallOutcome::NoConnection if is_open => {
                state.open_until = Some(now.after(OPEN));
            }
            CallOutcome::NoAnswer | CallOutcome::NoConnection => {
                let client = client.filter(|_| outcome == CallOutcome::NoAnswer);
                if state.answered_at.is_none_or(|at| at <= self.began_at) {
                    state.failed(client, now);
                }
            }
        }
        self.is_trial = false;
        if is_open != state.open_until.is_some() {
            breaker_turned(!is_open);
        }
    }
}

impl State {
    fn answered(&mut self, now: MonotonicMillis) {
        self.answered_at = Some(now);
        self.failures.clear();
        self.open_until = None;
    }

    fn failed(&mut self, client: Option<ClientTag>, now: MonotonicMillis) {
        if client.is_none() || !self.failures.contains(&client) {
            self.failures.push(client);
        }
        if self.failures.len() >= FAILURES_TO_OPEN {
            self.failures.clear();
            self.open_until = Some(now.after(OPEN));
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
/// Failures since the last answer after which the IdP is not called for [`OPEN`].
const FAILURES_TO_OPEN: usize = 5;
const OPEN: Duration = Duration::from_secs(10);
/// How long a success shows that the IdP's 5xx are about the codes that it got.
const RECENTLY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::CallOutcome::*;
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
        let record = |now, outcome| {
            acquire(now).expect("a permit").record_outcome(outcome, None, MonotonicMillis(now));
        };
        for _ in 1..FAILURES_TO_OPEN {
            record(0, NoConnection);
        }
        // An answer starts the count again.
        record(0, Answered);
        for _ in 0..FAILURES_TO_OPEN {
            record(0, NoConnection);
        }
        assert_eq!(acquire(9_999).expect_err("open"), Outage::CircuitOpen);
        drop(acquire(10_000).expect("a trial whose caller cancels"));
        let mut trial = acquire(10_000).expect("the next trial");
        assert_eq!(acquire(10_000).expect_err("one trial at a time"), Outage::CircuitOpen);
        trial.record_outcome(NoAnswer, None, MonotonicMillis(10_500));
        assert!(acquire(20_499).is_err(), "open again");
        record(20_500, Answered);
        let both = (acquire(20_500), acquire(20_500));
        assert!(both.0.is_ok() && both.1.is_ok(), "closed");
    }

    /// Whether calls that begin and end at these times, with these outcomes and by these clients, leave
    /// the breaker open.
    fn opens(calls: &[(u64, u64, CallOutcome, Option<u32>)]) -> bool {
        let breaker = Arc::new(CircuitBreaker::default());
        let begun = calls.iter().map(|call| breaker.acquire(MonotonicMillis(call.0)));
        let begun: Vec<_> = begun.collect();
        for (permit, (_, ended, outcome, client)) in begun.into_iter().zip(calls) {
            let client = client.map(ClientTag);
            permit.expect("a permit").record_outcome(*outcome, client, MonotonicMillis(*ended));
        }
        let last = calls.last().expect("a call").1;
        breaker.acquire(MonotonicMillis(last)).is_err()
    }

    #[test]
    fn what_a_stranger_can_cause_does_not_open_the_breaker() {
        let five = |outcome, client: fn(u32) -> Option<u32>| {
            opens(&(0..5).map(|n| (0, 0, outcome, client(n))).collect::<Vec<_>>())
        };
        for (outcome, by_one_client, by_five) in [
            (Succeeded, false, false),
            (Answered, false, false),
            (NotCalled, false, false),
            (ServerError, false, true),
            (NoAnswer, false, true),
            (NoConnection, true, true),
        ] {
            assert_eq!(five(outcome, |_| Some(7)), by_one_client, "{outcome:?}");
            assert_eq!(five(outcome, Some), by_five, "{outcome:?}");
            assert_eq!(five(outcome, |_| None), by_five, "{outcome:?}");
        }
    }

    #[test]
    fn calls_that_others_outran_do_not_count() {
        // The first call is answered after the others have begun, and before they end.
        let with = |answer, failure, ended| {
            let mut calls = vec![(0, 10, answer, None)];
            calls.extend((0..5).map(|n| (5, ended, failure, Some(n))));
            opens(&calls)
        };
        assert!(!with(Answered, NoAnswer, 20));
        assert!(!with(Succeeded, ServerError, 59_000));
        assert!(with(Succeeded, ServerError, 61_000), "too long ago");
        assert!(with(Answered, ServerError, 20), "an answer without tokens is not a success");
    }

    #[test]
    fn a_trial_that_is_answered_closes_the_breaker_whatever_the_answer() {
        for (outcome, is_closed) in
            [(Succeeded, true), (Answered, true), (ServerError, true), (NoAnswer, false)]
        {
            let breaker = Arc::new(CircuitBreaker::default());
            let record = |outcome, at| {
                let permit = breaker.acquire(MonotonicMillis(at));
                permit.expect("a permit").record_outcome(outcome, None, MonotonicMillis(at));
            };
            (0..5).for_each(|_| record(NoAnswer, 0));
            record(outcome, 10_000);
            assert_eq!(breaker.acquire(MonotonicMillis(10_000)).is_ok(), is_closed, "{outcome:?}");
        }
    }

    #[test]
    fn a_trial_that_was_not_called_leaves_the_next_call_to_be_the_trial() {
        let breaker = Arc::new(CircuitBreaker::default());
        let acquire = |at| breaker.acquire(MonotonicMillis(at));
        for _ in 0..5 {
            acquire(0).expect("a permit").record_outcome(NoAnswer, None, MonotonicMillis(0));
        }
        let mut trial = acquire(10_000).expect("a trial");
        trial.record_outcome(NotCalled, None, MonotonicMillis(10_000));
        drop(trial);
        acquire(10_000).expect("the next trial");
    }
}
