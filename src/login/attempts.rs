//! The log of each account's latest logins, for support. A login's last step puts its attempt into a
//! queue in memory; a task writes the queue to SQL in batches. A login never waits for SQL: while SQL
//! can't keep up, attempts are dropped and counted. Holds no code, token, state, nor any claim's value.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::complete::LoginProgress;
use crate::clock::Clock;
use crate::model::attempt::{Attempt, PhaseMicros, TestLogin};
use crate::model::cause::Cause;
use crate::model::connection::ConnectionState;
use crate::model::identity::IdentityClaim;
use crate::model::slug::Slug;
use crate::store::{
    AccountAttempt, AttemptBatch, DeferredStore, LoginAttempts, ProvenLogin, StoreError,
};
use crate::telemetry::attempts_dropped;
use crate::telemetry::call;

/// The log; one for the process.
pub struct AttemptLog {
    queue: mpsc::Sender<Entry>,
    /// Locked by the one writer.
    queued: tokio::sync::Mutex<mpsc::Receiver<Entry>>,
    write_interval: Duration,
    clock: Arc<dyn Clock>,
    stored: Arc<DeferredStore<dyn LoginAttempts>>,
    /// Callbacks with an unrecognized state since the last write.
    unrecognized: Mutex<HashMap<Slug, u64>>,
}

enum Entry {
    Attempt(Box<AccountAttempt>, Option<ProvenLogin>),
    /// Wakes the writer: `Shared::unrecognized` is not empty.
    Unrecognized,
    /// Answered when everything before it is written.
    Flush(oneshot::Sender<()>),
}

/// How a login ended that is to be recorded.
pub(super) struct Ending<'a> {
    /// `None`: it was completed.
    pub(super) cause: Option<Cause>,
    /// The IdP's error code.
    pub(super) idp_error: Option<&'a str>,
}

impl AttemptLog {
    /// An empty log. `write_interval`: how long an attempt may wait to be written together with others.
    #[must_use]
    pub fn new(
        clock: Arc<dyn Clock>,
        stored: Arc<DeferredStore<dyn LoginAttempts>>,
        write_interval: Duration,
    ) -> Self {
        let (queue, queued) = mpsc::channel(MAX_QUEUED);
        let (queued, unrecognized) = (tokio::sync::Mutex::new(queued), Mutex::default());
        Self { queue, queued, write_interval, clock, stored, unrecognized }
    }

    /// Records the end of a login, as far as it went.
    pub(super) fn record(&self, slug: &Slug, progress: &LoginProgress, ending: &Ending<'_>) {
        if !progress.is_ours {
            return self.record_unrecognized(slug);
        }
        let time = self.clock.unix_millis();
        let connection = progress.connection.as_ref();
        let is_test = connection
            .is_some_and(|connection| connection.settings.state == ConnectionState::Testing);
        let claims_present = progress.claims_missing.as_ref().map(|missing| {
            let all = IdentityClaim::ALL.iter().copied();
            all.filter(|claim| !missing.contains(claim)).collect()
        });
        let phase = |(phase, took): &(&'static str, Duration)| PhaseMicros {
            phase: (*phase).to_owned(),
            micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        };
        let attempt = Attempt {
            time,
            reason: ending.cause.map(Cause::reason),
            cause: ending.cause,
            trace_id: call::trace_id(),
            idp_error: ending.idp_error.map(str::to_owned),
            claims_present,
            issuer: progress.issuer.clone(),
            phases: progress.phases.0.iter().map(phase).collect(),
            is_test,
        };
        let proven = connection.filter(|_| is_test && ending.cause.is_none());
        let proven = proven.map(|connection| ProvenLogin {
            slug: slug.clone(),
            incarnation: connection.incarnation,
            test_login: TestLogin { proof: connection.proof_digest(), time },
        });
        let attempt = Box::new(AccountAttempt { slug: slug.clone(), attempt });
        if self.queue.try_send(Entry::Attempt(attempt, proven)).is_err() {
            attempts_dropped(1);
        }
    }

    /// Counts a callback with a state that was not issued here. Anybody can send those, so they take
    /// no attempt's place in the queue.
    fn record_unrecognized(&self, slug: &Slug) {
        let is_first = {
            let mut unrecognized = self.unrecognized();
            let is_full = unrecognized.len() >= MAX_UNRECOGNIZED_ACCOUNTS;
            if is_full && !unrecognized.contains_key(slug) {
                return attempts_dropped(1);
            }
            *unrecognized.entry(slug.clone()).or_default() += 1;
            unrecognized.len() == 1
        };
        if is_first {
            let _ = self.queue.try_send(Entry::Unrecognized);
        }
    }

    /// Waits until everything recorded so far is written, or SQL has failed; a few seconds at most.
    pub async fn flush(&self) {
        let (notify, done) = oneshot::channel();
        let flushed = async {
            if self.queue.send(Entry::Flush(notify)).await.is_ok() {
                let _ = done.await;
            }
        };
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, flushed).await;
    }

    /// Deletes the attempts that are too old.
    ///
    /// # Errors
    /// The store is unavailable.
    pub async fn forget_old(&self) -> Result<(), StoreError> {
        let before = self.clock.unix_millis().before(KEPT_FOR);
        self.stored.call(|store| store.forget_attempts_before(before)).await
    }

    /// Writes the queue to SQL. Must run until [`AttemptLog::flush`] has returned for the last time; it
    /// never returns, and can be run again after a panic.
    pub async fn run_writer(&self) {
        let mut queued = self.queued.lock().await;
        while let Some(first) = queued.recv().await {
            let mut batch = AttemptBatch::default();
            let mut flushed = Vec::new();
            let until = Instant::now() + self.write_interval;
            let mut next = Some(first);
            while let Some(entry) = next {
                match entry {
                    Entry::Attempt(attempt, proven) => {
                        batch.attempts.push(*attempt);
                        batch.tested.extend(proven);
                    }
                    Entry::Unrecognized => {}
                    Entry::Flush(notify) => flushed.push(notify),
                }
                let is_due = !flushed.is_empty() || batch.attempts.len() >= MAX_BATCH;
                let more = timeout_at(until, queued.recv());
                next = if is_due { None } else { more.await.ok().flatten() };
            }
            self.add(&batch).await;
            // Written apart, so that a failure loses no attempts.
            let unrecognized = std::mem::take(&mut *self.unrecognized());
            self.add(&AttemptBatch { unrecognized, ..AttemptBatch::default() }).await;
            for notify in flushed {
                let _ = notify.send(());
            }
        }
    }

    fn unrecognized(&self) -> MutexGuard<'_, HashMap<Slug, u64>> {
        self.unrecognized.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn add(&self, batch: &AttemptBatch) {
        if batch.is_empty() {
            return;
        }
        if let Err(error) = self.stored.call(|store| store.add_attempts(batch)).await {
            let dropped = batch.attempts.len() + batch.unrecognized.len();
            let dropped = u64::try_from(dropped).unwrap_or(u64::MAX);
            tracing::warn!(%error, dropped, "failed to write login attempts");
            attempts_dropped(dropped);
        }
    }
}

/// Attempts in memory that wait to be written: a few hundred bytes each.
const MAX_QUEUED: usize = 4096;
/// Accounts whose unrecognized callbacks are counted between two writes.
const MAX_UNRECOGNIZED_ACCOUNTS: usize = 256;
const MAX_BATCH: usize = 500;
const FLUSH_TIMEOUT: Duration = Duration::from_secs(8);
/// How long attempts are kept.
const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
