//! What became of each account's latest logins, for support. Noted in memory by a login's last step and written in batches
//! beside it: a login never waits for that, and where SQL can't keep up queue are dropped and counted. Holds no code, token,
//! state, nor any claim's value.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::clock::Clock;
use crate::model::proving::{Attempt, LoginSummary};
use crate::model::slug::Slug;
use crate::store::{AttemptBatch, DeferredStore, LoginAttempts, StoreError, with_timeout};
use crate::telemetry::attempts_dropped;

/// The queue; one for the process.
pub struct AttemptLog {
    queue: mpsc::Sender<Entry>,
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    stored: DeferredStore<dyn LoginAttempts>,
    /// Callbacks by account since they were written last.
    unrecognized: Mutex<HashMap<Slug, u64>>,
}

enum Entry {
    Attempt(Slug, Box<Attempt>, Option<Tested>),
    /// There is something among the unrecognized ones.
    Unrecognized,
    /// Tells when all before it is written.
    Flush(oneshot::Sender<()>),
}

/// By which settings a person has logged in as a trial.
pub struct Tested {
    /// Of the connection.
    pub incarnation: u64,
    /// Of what the login was done by; see [`Connection::proof_digest`](crate::model::connection::Connection::proof_digest).
    pub digest: String,
}

impl AttemptLog {
    /// An empty log, and what writes it: to be given up only after [`AttemptLog::flush`].
    #[must_use]
    pub fn start(clock: Arc<dyn Clock>) -> (Self, JoinHandle<()>) {
        let (queue, queued) = mpsc::channel(MAX_QUEUED);
        let shared = Arc::new(Shared {
            clock,
            stored: DeferredStore::new(STORE),
            unrecognized: Mutex::default(),
        });
        let writer = tokio::spawn(write(queued, Arc::clone(&shared)));
        (Self { queue, shared }, writer)
    }

    /// Takes the store that could be opened; the first one stays.
    pub fn open(&self, stored: Arc<dyn LoginAttempts>) {
        self.shared.stored.open(stored);
    }

    /// Notes a callback whose state was ours.
    pub fn record(&self, slug: &Slug, attempt: Attempt, tested: Option<Tested>) {
        self.send(Entry::Attempt(slug.clone(), Box::new(attempt), tested));
    }

    /// Counts a callback whose state was not ours. Anybody can make those, so they take no note's place.
    pub fn record_unrecognized(&self, slug: &Slug) {
        let is_first = {
            let mut unrecognized =
                self.shared.unrecognized.lock().unwrap_or_else(PoisonError::into_inner);
            if unrecognized.len() >= MAX_UNRECOGNIZED_ACCOUNTS && !unrecognized.contains_key(slug) {
                return attempts_dropped(1);
            }
            *unrecognized.entry(slug.clone()).or_default() += 1;
            unrecognized.len() == 1
        };
        if is_first {
            let _ = self.queue.try_send(Entry::Unrecognized);
        }
    }

    fn send(&self, note: Entry) {
        if self.queue.try_send(note).is_err() {
            attempts_dropped(1);
        }
    }

    /// Waits until what was queued so far is written, or SQL has failed; a few seconds at most.
    pub async fn flush(&self) {
        let (notify, done) = oneshot::channel();
        let flushed = async {
            if self.queue.send(Entry::Flush(notify)).await.is_ok() {
                let _ = done.await;
            }
        };
        let _ = tokio::time::timeout(FLUSH_PATIENCE, flushed).await;
    }

    /// An account's attempts, newest first.
    ///
    /// # Errors
    /// The store is unreachable.
    pub async fn of(&self, slug: &Slug, limit: u32) -> Result<Vec<Attempt>, StoreError> {
        self.flush().await;
        with_timeout(STORE, self.shared.stored.get()?.attempts(slug, limit)).await
    }

    /// How logins went at the accounts from `first` to `last`, failures of the last 24 hours.
    ///
    /// # Errors
    /// The store is unreachable.
    pub async fn summaries(
        &self,
        first: &Slug,
        last: &Slug,
    ) -> Result<HashMap<Slug, LoginSummary>, StoreError> {
        let since = self.shared.clock.unix_millis().saturating_sub(millis(FAILURES_OF));
        with_timeout(STORE, self.shared.stored.get()?.login_summaries(first, last, since)).await
    }

    /// Forgets what is too old: to be called now and then.
    ///
    /// # Errors
    /// The store is unreachable.
    pub async fn forget_old(&self) -> Result<(), StoreError> {
        let before = self.shared.clock.unix_millis().saturating_sub(millis(KEPT_FOR));
        with_timeout(STORE, self.shared.stored.get()?.forget_attempts_before(before)).await
    }
}

impl Shared {
    async fn add(&self, batch: &AttemptBatch) {
        if batch.is_empty() {
            return;
        }
        let written = match self.stored.get() {
            Ok(stored) => with_timeout(STORE, stored.add_attempts(batch)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            let dropped =
                u64::try_from(batch.attempts.len() + batch.unrecognized.len()).unwrap_or(u64::MAX);
            tracing::warn!(%error, dropped, "queue of logins could not be written");
            attempts_dropped(dropped);
        }
    }
}

async fn write(mut queued: mpsc::Receiver<Entry>, shared: Arc<Shared>) {
    while let Some(first) = queued.recv().await {
        let mut batch = AttemptBatch::default();
        let mut flushed = Vec::new();
        let mut size = 0_u64;
        let until = Instant::now() + WRITE_EVERY;
        let mut next = Some(first);
        while let Some(note) = next {
            size += 1;
            match note {
                Entry::Attempt(slug, attempt, tested) => {
                    batch.tested.extend(tested.map(|tested| {
                        (slug.clone(), tested.incarnation, tested.digest, attempt.time)
                    }));
                    batch.attempts.push((slug, *attempt));
                }
                Entry::Unrecognized => {}
                Entry::Flush(notify) => flushed.push(notify),
            }
            let is_due = !flushed.is_empty() || size >= MAX_BATCH;
            next =
                if is_due { None } else { timeout_at(until, queued.recv()).await.ok().flatten() };
        }
        shared.add(&batch).await;
        // Apart, so that these can't take others with them.
        let unrecognized = std::mem::take(
            &mut *shared.unrecognized.lock().unwrap_or_else(PoisonError::into_inner),
        );
        shared.add(&AttemptBatch { unrecognized, ..AttemptBatch::default() }).await;
        for notify in flushed {
            let _ = notify.send(());
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const STORE: &str = "login attempts";
/// Notes in memory that wait to be written: a few hundred bytes each.
const MAX_QUEUED: usize = 4096;
/// Accounts of which unrecognized callbacks are counted between two writes.
const MAX_UNRECOGNIZED_ACCOUNTS: usize = 256;
const MAX_BATCH: u64 = 500;
/// How long a note may wait for others.
const WRITE_EVERY: Duration = Duration::from_millis(500);
const FLUSH_PATIENCE: Duration = Duration::from_secs(8);
/// How long attempts are kept.
const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const FAILURES_OF: Duration = Duration::from_secs(24 * 60 * 60);
