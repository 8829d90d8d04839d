//! The cache of IdPs in use: metadata and keys by connection and revision, so that those of one
//! account never serve another. Concurrent callers share one fetch; entries are renewed in the
//! background before they expire, and stay in use for a while when an IdP fails.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::watch;

use super::breaker::CircuitBreaker;
use super::error::{Problem, ProviderError};
use super::http::HttpClient;
use super::provider::Provider;
use crate::clock::Clock;
use crate::model::cause::Cause;
use crate::model::connection::{Connection, CustomerUris};
use crate::model::slug::Slug;
use crate::model::time::MonotonicMillis;
use crate::telemetry;

/// The cache.
pub struct Providers {
    http: HttpClient,
    clock: Arc<dyn Clock>,
    public_origin: String,
    /// Each account's entry, replaced when the connection changes.
    entries: Cache<Slug, Arc<Entry>>,
}

struct Entry {
    /// The entry serves no other. Compared whole: a database that went back to an earlier state uses a
    /// revision a second time.
    connection: Arc<Connection>,
    state: Mutex<State>,
    breaker: Arc<CircuitBreaker>,
}

#[derive(Default)]
struct State {
    current: Option<Current>,
    /// Fetches that are running, with the receiver that callers wait on.
    in_flight: HashMap<Fetch, watch::Receiver<Option<Outcome>>>,
    /// The last failed fetch. Its error is the answer for [`COOL_DOWN`], so that many logins don't
    /// become many calls.
    failed: Option<(MonotonicMillis, ProviderError)>,
    keys_refetched_at: Option<MonotonicMillis>,
}

struct Current {
    provider: Arc<Provider>,
    fetched_at: MonotonicMillis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fetch {
    Whole,
    KeysOnly,
}

type Outcome = Result<Arc<Provider>, ProviderError>;

impl Providers {
    /// A cache of at most `limit` IdPs.
    #[must_use]
    pub fn new(http: HttpClient, clock: Arc<dyn Clock>, public_origin: String, limit: u64) -> Self {
        let entries = Cache::builder().max_capacity(limit).time_to_idle(KEEP_UNUSED).build();
        Self { http, clock, public_origin, entries }
    }

    /// The connection's IdP. A cached one is returned without a call; an old one is returned too,
    /// while it is fetched again in the background. An unknown one is fetched, once for all
    /// concurrent callers.
    ///
    /// # Errors
    /// The IdP never gave a usable answer, or not for [`KEEP_STALE`].
    pub async fn of(&self, connection: &Arc<Connection>) -> Result<Arc<Provider>, ProviderError> {
        let entry = self.entries.entry_by_ref(&connection.slug).or_insert_with_if(
            || {
                Arc::new(Entry {
                    connection: Arc::clone(connection),
                    state: Mutex::default(),
                    breaker: Arc::default(),
                })
            },
            |other| !other.serves(connection),
        );
        let entry = entry.into_value();
        let now = self.clock.monotonic();
        let receiver = {
            let mut state = entry.lock();
            let (usable, is_fresh) = (state.usable(now), state.is_fresh(now));
            let outcome = match (&usable, is_fresh) {
                (Some(_), true) => "hit",
                (Some(_), false) => "stale",
                (None, _) => "miss",
            };
            telemetry::provider_looked_up(outcome, state.age_seconds(now));
            if let Some(error) = state.recent_failure(now) {
                return usable.ok_or(error);
            }
            match (usable, is_fresh) {
                (Some(provider), true) => return Ok(provider),
                (Some(provider), false) => {
                    self.start(Fetch::Whole, &entry, &mut state, connection);
                    return Ok(provider);
                }
                (None, _) => self.start(Fetch::Whole, &entry, &mut state, connection),
            }
        };
        outcome(receiver).await
    }

    /// The same IdP with newer keys than those of `used`. If the cache has none, they are fetched,
    /// at most once per [`KEY_REFETCH_INTERVAL`]; `None` if that was less than the interval ago.
    pub async fn with_fresh_keys(
        &self,
        connection: &Arc<Connection>,
        used: &Arc<Provider>,
    ) -> Option<Arc<Provider>> {
        let entry = self.entries.get(&connection.slug).filter(|entry| entry.serves(connection))?;
        let now = self.clock.monotonic();
        let receiver = {
            let mut state = entry.lock();
            let current = state.current.as_ref().map(|current| Arc::clone(&current.provider))?;
            if !Arc::ptr_eq(&current, used) {
                return Some(current);
            }
            if !state.in_flight.contains_key(&Fetch::KeysOnly) {
                let is_throttled =
                    state.keys_refetched_at.is_some_and(|at| now < at.after(KEY_REFETCH_INTERVAL));
                if is_throttled {
                    return None;
                }
                state.keys_refetched_at = Some(now);
            }
            self.start(Fetch::KeysOnly, &entry, &mut state, connection)
        };
        outcome(receiver).await.ok()
    }

    /// Joins the running fetch, or starts one in a task of its own: a caller that cancels must not
    /// end the fetch of the others.
    fn start(
        &self,
        fetch: Fetch,
        entry: &Arc<Entry>,
        state: &mut State,
        connection: &Arc<Connection>,
    ) -> watch::Receiver<Option<Outcome>> {
        // A closed channel is left by a task that ended without an outcome.
        let running = state.in_flight.get(&fetch);
        if let Some(running) = running.filter(|running| running.has_changed().is_ok()) {
            return running.clone();
        }
        let (sender, receiver) = watch::channel(None);
        state.in_flight.insert(fetch, receiver.clone());
        let (entry, connection, http, clock) =
            (Arc::clone(entry), Arc::clone(connection), self.http.clone(), Arc::clone(&self.clock));
        let redirect_uri = CustomerUris::new(&self.public_origin, &connection.slug).redirect_uri();
        let known = state.current.as_ref().map(|current| Arc::clone(&current.provider));
        tokio::spawn(async move {
            let fetched = match (fetch, known) {
                (Fetch::KeysOnly, Some(provider)) => provider.with_fresh_keys().await,
                (Fetch::KeysOnly | Fetch::Whole, _) => {
                    Provider::fetch(&connection, &redirect_uri, &http, Arc::clone(&entry.breaker))
                        .await
                }
            };
            let outcome = fetched.map(Arc::new);
            telemetry::provider_fetched(
                if fetch == Fetch::Whole { "whole" } else { "keys" },
                outcome.is_ok(),
            );
            if let Err(error) = &outcome {
                tracing::warn!(
                    account.slug = %connection.slug,
                    ?fetch,
                    cause = error.cause().code(),
                    %error,
                    "failed to fetch metadata or keys of IdP"
                );
            }
            entry.lock().apply_fetch(fetch, &outcome, clock.monotonic());
            sender.send_replace(Some(outcome));
        });
        receiver
    }
}

impl Entry {
    /// Whether the metadata that were fetched for this entry's connection are those of `connection`, too.
    fn serves(&self, connection: &Arc<Connection>) -> bool {
        let own = &self.connection;
        if Arc::ptr_eq(own, connection) {
            return true;
        }
        if !own.is_same_version(connection) {
            return false;
        }
        match (own.issuer(), connection.issuer()) {
            // Pinned since: by this entry's document, or by another replica.
            (None, Some(pinned)) => {
                let state = self.lock();
                state.current.as_ref().is_some_and(|current| current.provider.issuer() == pinned)
            }
            (before, now) => before == now,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn usable(&self, now: MonotonicMillis) -> Option<Arc<Provider>> {
        let current = self.current.as_ref()?;
        let stale_from = current.fetched_at.after(current.provider.fresh_for);
        (now < stale_from.after(KEEP_STALE)).then(|| Arc::clone(&current.provider))
    }

    fn age_seconds(&self, now: MonotonicMillis) -> f64 {
        let fetched_at = self.current.as_ref().map_or(now, |current| current.fetched_at);
        now.since(fetched_at).as_secs_f64()
    }

    fn is_fresh(&self, now: MonotonicMillis) -> bool {
        // The last fifth is left for the renewal, so that no login waits for it.
        let renewal =
            |current: &Current| current.fetched_at.after(current.provider.fresh_for / 5 * 4);
        self.current.as_ref().is_some_and(|current| now < renewal(current))
    }

    fn recent_failure(&self, now: MonotonicMillis) -> Option<ProviderError> {
        let (at, error) = self.failed.as_ref()?;
        (now < at.after(COOL_DOWN)).then(|| error.clone())
    }

    /// Stores the outcome of a fetch. A failed one never replaces a usable provider.
    fn apply_fetch(&mut self, fetch: Fetch, outcome: &Outcome, now: MonotonicMillis) {
        self.in_flight.remove(&fetch);
        match (outcome, fetch, self.current.as_mut()) {
            (Ok(provider), Fetch::KeysOnly, Some(current)) => {
                current.provider = Arc::clone(provider)
            }
            (Ok(provider), ..) => {
                self.current = Some(Current { provider: Arc::clone(provider), fetched_at: now });
                self.failed = None;
            }
            (Err(error), Fetch::Whole, _) => self.failed = Some((now, error.clone())),
            (Err(_), Fetch::KeysOnly, _) => {}
        }
    }
}

async fn outcome(mut receiver: watch::Receiver<Option<Outcome>>) -> Outcome {
    let outcome = receiver.wait_for(Option::is_some).await.ok().and_then(|value| value.clone());
    outcome.unwrap_or_else(|| {
        let text = "the fetch of the IdP's metadata ended without an outcome";
        Err(ProviderError::Invalid(Problem::new(Cause::SettingsIncomplete, text)))
    })
}

/// How long expired metadata and keys are used while the IdP fails.
pub const KEEP_STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long they are kept for an account without logins.
const KEEP_UNUSED: Duration = Duration::from_secs(24 * 60 * 60);
/// How long after a failed fetch none is started.
const COOL_DOWN: Duration = Duration::from_secs(1);
/// The shortest time between two fetches of keys for tokens that no known key verifies.
pub const KEY_REFETCH_INTERVAL: Duration = Duration::from_secs(30);
