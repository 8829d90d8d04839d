//! The IdPs in use: metadata and keys, cached per connection revision, so that one account's can never serve another.
//! One fetch whoever asks; renewed in the background before it is needed; what was good stays in use while an IdP fails.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::watch;

use super::breaker::CircuitBreaker;
use super::error::ProviderError;
use super::http::HttpClient;
use super::provider::Provider;
use crate::clock::Clock;
use crate::model::connection::{Connection, CustomerUris};
use crate::model::slug::Slug;
use crate::model::time::UnixMillis;
use crate::telemetry;

/// The cache.
pub struct Providers {
    http: HttpClient,
    clock: Arc<dyn Clock>,
    public_origin: String,
    /// The entry of each account's newest revision: those before it are gone with it.
    entries: Cache<Slug, Arc<Entry>>,
}

struct Entry {
    /// Of the connection: the entry is of no use to any other.
    revision: u64,
    state: Mutex<State>,
    breaker: Arc<CircuitBreaker>,
}

#[derive(Default)]
struct State {
    current: Option<Current>,
    /// What is being fetched, with the end that those who wait hold.
    in_flight: HashMap<Fetch, watch::Receiver<Option<Outcome>>>,
    /// The last fetch that failed: its error answers for a moment, so that a storm of logins makes no storm of calls.
    failed: Option<(UnixMillis, ProviderError)>,
    keys_refetched_at: Option<UnixMillis>,
}

struct Current {
    provider: Arc<Provider>,
    fetched_at: UnixMillis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fetch {
    Whole,
    KeysAlone,
}

type Outcome = Result<Arc<Provider>, ProviderError>;

impl Providers {
    /// Remembers at most `limit` IdPs.
    #[must_use]
    pub fn new(http: HttpClient, clock: Arc<dyn Clock>, public_origin: String, limit: u64) -> Self {
        let entries = Cache::builder().max_capacity(limit).time_to_idle(KEEP_UNUSED).build();
        Self { http, clock, public_origin, entries }
    }

    /// The connection's IdP. Cached: no call. Old: the old one, and a fetch in the background. Unknown: one fetch, for
    /// which everybody who asks meanwhile waits.
    ///
    /// # Errors
    /// The IdP has never answered usably, or not for [`KEEP_STALE`].
    pub async fn of(&self, connection: &Arc<Connection>) -> Result<Arc<Provider>, ProviderError> {
        let entry = self.entries.entry_by_ref(&connection.slug).or_insert_with_if(
            || {
                Arc::new(Entry {
                    revision: connection.revision,
                    state: Mutex::default(),
                    breaker: Arc::default(),
                })
            },
            |other| other.revision != connection.revision,
        );
        let entry = entry.into_value();
        let now = self.clock.unix_millis();
        let waiting = {
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
        outcome(waiting).await
    }

    /// The same IdP with newer keys than those of `used`, none of which verifies a token. Newer ones that are known already cost
    /// nothing; otherwise at most one fetch per [`KEY_REFETCH_INTERVAL`]. `None`: there was one just now.
    pub async fn with_fresh_keys(
        &self,
        connection: &Arc<Connection>,
        used: &Arc<Provider>,
    ) -> Option<Arc<Provider>> {
        let entry = self
            .entries
            .get(&connection.slug)
            .filter(|entry| entry.revision == connection.revision)?;
        let now = self.clock.unix_millis();
        let waiting = {
            let mut state = entry.lock();
            let current = state.current.as_ref().map(|current| Arc::clone(&current.provider))?;
            if !Arc::ptr_eq(&current, used) {
                return Some(current);
            }
            if !state.in_flight.contains_key(&Fetch::KeysAlone) {
                let is_throttled =
                    state.keys_refetched_at.is_some_and(|at| now < at.after(KEY_REFETCH_INTERVAL));
                if is_throttled {
                    return None;
                }
                state.keys_refetched_at = Some(now);
            }
            self.start(Fetch::KeysAlone, &entry, &mut state, connection)
        };
        outcome(waiting).await.ok()
    }

    /// Joins the fetch that is under way, or starts one in a task of its own: whoever waits may go away.
    fn start(
        &self,
        fetch: Fetch,
        entry: &Arc<Entry>,
        state: &mut State,
        connection: &Arc<Connection>,
    ) -> watch::Receiver<Option<Outcome>> {
        // One whose task died without a word is started again.
        if let Some(under_way) =
            state.in_flight.get(&fetch).filter(|under_way| under_way.has_changed().is_ok())
        {
            return under_way.clone();
        }
        let (tell, waiting) = watch::channel(None);
        state.in_flight.insert(fetch, waiting.clone());
        let (entry, connection, http, clock) =
            (Arc::clone(entry), Arc::clone(connection), self.http.clone(), Arc::clone(&self.clock));
        let redirect_uri = CustomerUris::new(&self.public_origin, &connection.slug).redirect_uri();
        let known = state.current.as_ref().map(|current| Arc::clone(&current.provider));
        tokio::spawn(async move {
            let fetched = match (fetch, known) {
                (Fetch::KeysAlone, Some(provider)) => provider.with_fresh_keys().await,
                (Fetch::KeysAlone | Fetch::Whole, _) => {
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
                tracing::warn!(account.slug = %connection.slug, ?fetch, %error, "an IdP's metadata or keys could not be fetched");
            }
            entry.lock().apply_fetch(fetch, &outcome, clock.unix_millis());
            tell.send_replace(Some(outcome));
        });
        waiting
    }
}

impl Entry {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn usable(&self, now: UnixMillis) -> Option<Arc<Provider>> {
        let current = self.current.as_ref()?;
        let stale_from = current.fetched_at.after(current.provider.fresh_for);
        (now < stale_from.after(KEEP_STALE)).then(|| Arc::clone(&current.provider))
    }

    fn age_seconds(&self, now: UnixMillis) -> f64 {
        let fetched_at = self.current.as_ref().map_or(now, |current| current.fetched_at);
        now.since(fetched_at).as_secs_f64()
    }

    fn is_fresh(&self, now: UnixMillis) -> bool {
        // Renewed in the last fifth of its time, so that nobody waits for it.
        let renewal =
            |current: &Current| current.fetched_at.after(current.provider.fresh_for / 5 * 4);
        self.current.as_ref().is_some_and(|current| now < renewal(current))
    }

    fn recent_failure(&self, now: UnixMillis) -> Option<ProviderError> {
        let (at, error) = self.failed.as_ref()?;
        (now < at.after(COOL_DOWN)).then(|| error.clone())
    }

    /// Takes a fetch's outcome over. A failed one never clears what is good.
    fn apply_fetch(&mut self, fetch: Fetch, outcome: &Outcome, now: UnixMillis) {
        self.in_flight.remove(&fetch);
        match (outcome, fetch, self.current.as_mut()) {
            (Ok(provider), Fetch::KeysAlone, Some(current)) => {
                current.provider = Arc::clone(provider)
            }
            (Ok(provider), ..) => {
                self.current = Some(Current { provider: Arc::clone(provider), fetched_at: now });
                self.failed = None;
            }
            (Err(error), Fetch::Whole, _) => self.failed = Some((now, error.clone())),
            (Err(_), Fetch::KeysAlone, _) => {}
        }
    }
}

async fn outcome(mut waiting: watch::Receiver<Option<Outcome>>) -> Outcome {
    let told = waiting.wait_for(Option::is_some).await.ok().and_then(|told| told.clone());
    told.unwrap_or_else(|| {
        Err(ProviderError::SettingsUnfit("the fetch of the IdP's metadata was given up".to_owned()))
    })
}

/// How long metadata and keys are used beyond their time, while the IdP fails.
pub const KEEP_STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long they are kept for an account of which nobody logs in.
const KEEP_UNUSED: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a failed fetch isn't tried again.
const COOL_DOWN: Duration = Duration::from_secs(1);
/// How often a token by an unknown key may fetch the keys.
pub const KEY_REFETCH_INTERVAL: Duration = Duration::from_secs(30);
