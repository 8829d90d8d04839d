//! The log of each account's latest logins, for support. A login's last step puts its attempt into a
//! queue in memory, and counts it; a task writes both to SQL in batches. A login never waits for SQL: while
//! SQL can't keep up, attempts are dropped and counted. Holds no code, token, state, nor any claim's value.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::progress::{Ending, LoginProgress};
use crate::clock::Clock;
use crate::model::attempt::{Attempt, LoginTally, PhaseMicros, TestLogin};
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
    counted: Mutex<Counted>,
}

/// What is counted until the next write.
#[derive(Default)]
struct Counted {
    /// The logins of each account with a connection.
    tallies: HashMap<Slug, LoginTally>,
    /// Callbacks with an unrecognized state, by whatever account they name.
    unrecognized: HashMap<Slug, u64>,
    /// The attempts of each account in the queue.
    queued: HashMap<Slug, usize>,
    /// The sum of `queued`.
    all_queued: usize,
    /// Whether the writer knows that there is something to write.
    is_announced: bool,
}

enum Entry {
    Attempt(Box<AccountAttempt>, Option<ProvenLogin>),
    /// Wakes the writer: something is counted.
    Counted,
    /// Answered when everything before it is written.
    Flush(oneshot::Sender<()>),
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
        let (queued, counted) = (tokio::sync::Mutex::new(queued), Mutex::default());
        Self { queue, queued, write_interval, clock, stored, counted }
    }

    /// Counts a login that began.
    pub(super) fn count_begun(&self, slug: &Slug) {
        let time = self.clock.unix_millis();
        self.count(|counted| counted.tally(slug, |tally| tally.count_begun(time)));
    }

    /// Records the end of a login of the account, as far as it went.
    pub(super) fn record(&self, slug: &Slug, progress: &LoginProgress, ending: &Ending<'_>) {
        let time = self.clock.unix_millis();
        let end = ending.end(progress.stage);
        let has_room = self.count(|counted| {
            counted.tally(slug, |tally| tally.count_end(time, end));
            counted.enqueue(slug)
        });
        if !has_room {
            return attempts_dropped(1);
        }
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
            stage: Some(progress.stage),
            reason: ending.cause.map(Cause::reason),
            cause: ending.cause,
            trace_id: call::trace_id(),
            idp_error: ending.idp_error.map(str::to_owned),
            idp_error_description: ending.idp_description.clone(),
            document: ending.document.map(str::to_owned),
            detail: ending.detail.clone(),
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
            self.counted().dequeue(slug);
            attempts_dropped(1);
        }
    }

    /// Counts a callback with a state that was not issued here. Anybody can send those, so they take
    /// no attempt's place in the queue.
    pub(super) fn count_unrecognized(&self, slug: &Slug) {
        self.count(|counted| {
            add(&mut counted.unrecognized, slug, MAX_UNRECOGNIZED_ACCOUNTS, |count| {
                *count += 1;
            })
        });
    }

    /// Counts something, and sees that it is written.
    fn count<T>(&self, count: impl FnOnce(&mut Counted) -> T) -> T {
        let (result, is_known) = {
            let mut counted = self.counted();
            let result = count(&mut counted);
            (result, std::mem::replace(&mut counted.is_announced, true))
        };
        if !is_known {
            // A full queue keeps the writer busy, which takes what is counted each time.
            let _ = self.queue.try_send(Entry::Counted);
        }
        result
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

    /// Deletes the attempts and counters that are too old.
    ///
    /// # Errors
    /// The store is unavailable.
    pub async fn forget_old(&self) -> Result<(), StoreError> {
        let now = self.clock.unix_millis();
        let (attempts, hours) = (now.before(KEPT_FOR), now.before(COUNTED_FOR));
        self.stored.call(|store| store.forget_attempts_before(attempts, hours)).await
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
                        self.counted().dequeue(&attempt.slug);
                        batch.attempts.push(*attempt);
                        batch.tested.extend(proven);
                    }
                    Entry::Counted => {}
                    Entry::Flush(notify) => flushed.push(notify),
                }
                let is_due = !flushed.is_empty() || batch.attempts.len() >= MAX_BATCH;
                let more = timeout_at(until, queued.recv());
                next = if is_due { None } else { more.await.ok().flatten() };
            }
            let unrecognized = self.counted().take(&mut batch);
            self.add(&batch).await;
            // Written apart, so that a failure loses no attempts.
            self.add(&AttemptBatch { unrecognized, ..AttemptBatch::default() }).await;
            for notify in flushed {
                let _ = notify.send(());
            }
        }
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn add(&self, batch: &AttemptBatch) {
        if batch.is_empty() {
            return;
        }
        if let Err(error) = self.stored.call(|store| store.add_attempts(batch)).await {
            let dropped = batch.attempts.len() + batch.tallies.len() + batch.unrecognized.len();
            let dropped = u64::try_from(dropped).unwrap_or(u64::MAX);
            tracing::warn!(%error, dropped, "failed to write login attempts");
            attempts_dropped(dropped);
        }
    }
}

impl Counted {
    fn tally(&mut self, slug: &Slug, count: impl FnOnce(&mut LoginTally)) {
        add(&mut self.tallies, slug, MAX_COUNTED_ACCOUNTS, count);
    }

    /// Takes a place of the queue, unless the account has as many as are left for all others.
    fn enqueue(&mut self, slug: &Slug) -> bool {
        let of_account = self.queued.get(slug).copied().unwrap_or_default();
        let has_room = of_account < MAX_QUEUED.saturating_sub(self.all_queued);
        if has_room {
            self.queued.insert(slug.clone(), of_account + 1);
            self.all_queued += 1;
        }
        has_room
    }

    fn dequeue(&mut self, slug: &Slug) {
        let Some(of_account) = self.queued.get_mut(slug) else { return };
        *of_account = of_account.saturating_sub(1);
        if *of_account == 0 {
            self.queued.remove(slug);
        }
        self.all_queued = self.all_queued.saturating_sub(1);
    }

    /// Moves what is counted into the batch; the unrecognized callbacks apart.
    fn take(&mut self, batch: &mut AttemptBatch) -> HashMap<Slug, u64> {
        self.is_announced = false;
        batch.tallies = std::mem::take(&mut self.tallies);
        std::mem::take(&mut self.unrecognized)
    }
}

/// Adds to an account's count, or drops it for want of room. Allocates for the first count of an account only.
fn add<T: Default>(
    counts: &mut HashMap<Slug, T>,
    slug: &Slug,
    most: usize,
    count: impl FnOnce(&mut T),
) {
    if let Some(own) = counts.get_mut(slug) {
        return count(own);
    }
    if counts.len() >= most {
        return attempts_dropped(1);
    }
    count(counts.entry(slug.clone()).or_default());
}

/// Attempts in memory that wait to be written: a few hundred bytes each.
const MAX_QUEUED: usize = 4096;
/// Accounts whose logins are counted between two writes: about a hundred bytes each.
const MAX_COUNTED_ACCOUNTS: usize = 16_384;
/// Accounts whose unrecognized callbacks are counted between two writes.
const MAX_UNRECOGNIZED_ACCOUNTS: usize = 256;
const MAX_BATCH: usize = 500;
const FLUSH_TIMEOUT: Duration = Duration::from_secs(8);
/// How long attempts are kept.
const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long the counters of an hour are kept: longer than they are shown.
const COUNTED_FOR: Duration = Duration::from_secs(48 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flooded_account_leaves_room_in_the_queue_for_all_others() {
        let slug = |text: &str| Slug::parse(text).expect("a slug");
        let mut counted = Counted::default();
        let mut held = Vec::new();
        for flooded in ["acme", "beta", "gamma"] {
            held.push((0..).take_while(|_| counted.enqueue(&slug(flooded))).count());
        }
        assert_eq!(held, [2048, 1024, 512]);
        assert!(counted.enqueue(&slug("delta")), "others have room");
        assert!(!counted.enqueue(&slug("acme")));
        for _ in 0..5000 {
            counted.dequeue(&slug("acme"));
        }
        assert!(!counted.queued.contains_key(&slug("acme")));
        assert_eq!(counted.all_queued, 1024 + 512 + 1);
        assert!(counted.enqueue(&slug("acme")), "it was written");
    }

    #[test]
    fn only_so_many_accounts_are_counted_between_two_writes() {
        let slug = |number: usize| Slug::parse(&format!("a{number}")).expect("a slug");
        let mut counts = HashMap::new();
        for number in 0..20 {
            add(&mut counts, &slug(number % 15), 10, |count: &mut u64| *count += 1);
        }
        assert_eq!(counts.len(), 10);
        assert_eq!((counts[&slug(0)], counts[&slug(9)]), (2, 1));
    }
}
