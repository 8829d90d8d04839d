//! The cache of IdPs in use: metadata and keys by connection and revision, so that those of one
//! account never serve another. Concurrent callers share one fetch, which [`super::documents`] makes;
//! entries are renewed in the background before they expire, and stay in use for a while when an IdP
//! fails. A login that shows that a document is out of date has it fetched again, within
//! [`super::refetch`]'s limits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::ops::compute::Op;
use moka::sync::Cache;
use tokio::sync::{Semaphore, watch};

use super::breaker::CircuitBreaker;
use super::clients::HttpClients;
use super::documents::{
    Fetch, Fetched, Fetcher, KEEP_STALE, Known, Origin, Outcome, SharedDocuments,
};
use super::error::{CallError, Document, Outage, Problem, ProviderError};
use super::http::host_of;
use super::provider::Provider;
use super::refetch::{KeysAge, RefetchLimit};
use crate::clock::Clock;
use crate::model::cause::Cause;
use crate::model::connection::{Connection, CustomerUris, MetadataSource};
use crate::model::documents::DocumentsRead;
use crate::model::slug::Slug;
use crate::model::time::{MonotonicMillis, UnixMillis};
use crate::tasks::Tasks;
use crate::telemetry::call::within_current;
use crate::telemetry::{self, BackgroundTask};

/// The cache.
pub struct Providers {
    http: HttpClients,
    tasks: Tasks,
    clock: Arc<dyn Clock>,
    public_origin: String,
    shared: Arc<dyn SharedDocuments>,
    /// Each account's entry, replaced when the connection changes.
    entries: Cache<Slug, Arc<Entry>>,
}

struct Entry {
    /// The entry serves no other. Compared whole: a database that went back to an earlier state uses a
    /// revision a second time.
    connection: Arc<Connection>,
    state: Mutex<State>,
    breaker: Arc<CircuitBreaker>,
    /// Room for callers that wait for the first documents.
    waiting: Semaphore,
    /// Bytes that the entry holds, roughly.
    weight: AtomicU32,
}

#[derive(Default)]
struct State {
    current: Option<Current>,
    /// Fetches that are running, with the receiver that callers wait on.
    in_flight: HashMap<Fetch, watch::Receiver<Option<Outcome>>>,
    /// The last failed fetch, and until when its error is the answer, so that many logins don't become
    /// many calls.
    failed: Option<(MonotonicMillis, ProviderError)>,
    /// For tokens that no key verifies. Only the IdP can issue one.
    by_keys: RefetchLimit,
    /// For endpoints that are not there. An IdP may answer so to a stranger's code.
    by_endpoints: RefetchLimit,
}

struct Current {
    provider: Arc<Provider>,
    read: DocumentsRead,
    is_shared: bool,
    /// When these were taken into use, and how old all of them and the keys were then.
    taken_at: MonotonicMillis,
    age: Duration,
    keys_age: Duration,
}

/// An IdP with keys that the caller doesn't have yet.
pub struct FreshKeys {
    /// The IdP.
    pub provider: Arc<Provider>,
    /// Whether they are as another replica read them: the IdP may publish newer ones.
    pub are_shared: bool,
}

impl Providers {
    /// A cache for `limit` IdPs of ordinary size.
    #[must_use]
    pub fn new(
        http: HttpClients,
        tasks: Tasks,
        clock: Arc<dyn Clock>,
        public_origin: String,
        shared: Arc<dyn SharedDocuments>,
        limit: u64,
    ) -> Self {
        let entries = Cache::builder()
            .weigher(|_, entry: &Arc<Entry>| entry.weight.load(Ordering::Relaxed))
            .max_capacity(limit.saturating_mul(ORDINARY_SIZE).max(SMALLEST_CAPACITY))
            .time_to_idle(KEEP_UNUSED)
            .build();
        Self { http, tasks, clock, public_origin, shared, entries }
    }

    /// The clients that call IdPs.
    #[must_use]
    pub fn http(&self) -> &HttpClients {
        &self.http
    }

    /// The connection's IdP. A cached one is returned without a call; an old one is returned too,
    /// while it is fetched again in the background. An unknown one is fetched, once for all
    /// concurrent callers.
    ///
    /// # Errors
    /// The IdP never gave a usable answer, or not for [`KEEP_STALE`]; or 64 callers are
    /// waiting for it.
    pub async fn of(&self, connection: &Arc<Connection>) -> Result<Arc<Provider>, ProviderError> {
        let entry = self.entries.entry_by_ref(&connection.slug).or_insert_with_if(
            || Arc::new(Entry::new(connection)),
            |other| !other.serves(connection),
        );
        let entry = entry.into_value();
        let now = self.clock.monotonic();
        let (receiver, _place) = {
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
                    self.start(Fetch::Renewal, &entry, &mut state, connection);
                    return Ok(provider);
                }
                (None, _) => {
                    let place = entry.waiting.try_acquire();
                    let place = place.map_err(|_| too_many_waiting(connection))?;
                    (self.start(Fetch::Renewal, &entry, &mut state, connection), place)
                }
            }
        };
        outcome(receiver).await.map(|fetched| fetched.provider)
    }

    /// The same IdP with newer keys than those of `used`. If the cache has none, all documents are
    /// fetched; `None` if that failed, or was done too often lately.
    pub async fn with_fresh_keys(
        &self,
        connection: &Arc<Connection>,
        used: &Arc<Provider>,
    ) -> Option<FreshKeys> {
        let entry = self.entry(connection)?;
        let now = self.clock.monotonic();
        let receiver = {
            let mut state = entry.lock();
            let current = state.current.as_ref()?;
            if !Arc::ptr_eq(&current.provider, used) {
                let provider = Arc::clone(&current.provider);
                return Some(FreshKeys { provider, are_shared: current.is_shared });
            }
            if !state.in_flight.contains_key(&Fetch::Keys) && !state.by_keys.take(now) {
                return None;
            }
            self.start(Fetch::Keys, &entry, &mut state, connection)
        };
        let Fetched { provider, origin, .. } = outcome(receiver).await.ok()?;
        Some(FreshKeys { provider, are_shared: origin == Origin::Shared })
    }

    /// How old the connection's keys are, if it has any.
    #[must_use]
    pub fn keys_age(&self, connection: &Arc<Connection>) -> Option<KeysAge> {
        let entry = self.entry(connection)?;
        let now = self.clock.monotonic();
        let state = entry.lock();
        let read_ago = state.current.as_ref()?.keys_age(now);
        Some(KeysAge { read_ago, again_in: state.by_keys.wait(now) })
    }

    /// Has the documents fetched again, in the background: an endpoint of `used` is not there.
    pub fn endpoint_has_moved(&self, connection: &Arc<Connection>, used: &Arc<Provider>) {
        let Some(entry) = self.entry(connection) else { return };
        let now = self.clock.monotonic();
        let mut state = entry.lock();
        let is_current = state.current.as_ref().is_some_and(|own| Arc::ptr_eq(&own.provider, used));
        let is_running = state.in_flight.contains_key(&Fetch::Renewal);
        if is_current && !is_running && state.by_endpoints.take(now) {
            self.start(Fetch::Renewal, &entry, &mut state, connection);
        }
    }

    /// Replaces the documents of a cached connection by those that the IdP publishes now, if they are
    /// usable. Called by a check, whose rate is limited.
    pub async fn renew(&self, connection: &Arc<Connection>) {
        let Some(entry) = self.entry(connection) else { return };
        let receiver = self.start(Fetch::Current, &entry, &mut entry.lock(), connection);
        // A failure is logged, and what was good stays in use.
        let _ = outcome(receiver).await;
    }

    fn entry(&self, connection: &Arc<Connection>) -> Option<Arc<Entry>> {
        self.entries.get(&connection.slug).filter(|entry| entry.serves(connection))
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
        let fetcher = Fetcher {
            connection: Arc::clone(connection),
            redirect_uri: CustomerUris::new(&self.public_origin, &connection.slug).redirect_uri(),
            breaker: Arc::clone(&entry.breaker),
            http: self.http.of(Some(&connection.slug)).clone(),
            clock: Arc::clone(&self.clock),
            shared: Arc::clone(&self.shared),
        };
        let known = state.current.as_ref().map(Current::known);
        let (entry, entries) = (Arc::clone(entry), self.entries.clone());
        // It belongs to the call that started it, in logs and traces.
        let work = within_current(async move {
            let (outcome, afterwards) = fetcher.fetch(fetch, known.as_ref()).await;
            let (connection, clock) = (&fetcher.connection, &fetcher.clock);
            if let Err(error) = &outcome {
                tracing::warn!(
                    account.slug = %connection.slug,
                    ?fetch,
                    cause = error.cause().code(),
                    %error,
                    "failed to fetch metadata or keys of IdP"
                );
            }
            entry.weigh(&outcome);
            entry.lock().apply_fetch(fetch, &outcome, clock.monotonic(), clock.unix_millis());
            sender.send_replace(Some(outcome));
            // The cache weighs what is put into it.
            entries.entry_by_ref(&connection.slug).and_compute_with(|cached| match cached {
                Some(cached) if Arc::ptr_eq(cached.value(), &entry) => Op::Put(entry),
                Some(_) | None => Op::Nop,
            });
            fetcher.finish(afterwards).await;
        });
        self.tasks.spawn(BackgroundTask::ProviderFetch, work);
        receiver
    }
}

impl Entry {
    fn new(connection: &Arc<Connection>) -> Self {
        Self {
            connection: Arc::clone(connection),
            state: Mutex::default(),
            breaker: Arc::default(),
            waiting: Semaphore::new(MAX_WAITING),
            weight: AtomicU32::new(OVERHEAD),
        }
    }

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

    fn weigh(&self, outcome: &Outcome) {
        let Ok(fetched) = outcome else { return };
        let size = u32::try_from(fetched.size).unwrap_or(u32::MAX);
        let weight = size.saturating_mul(PARSED).saturating_add(OVERHEAD);
        match fetched.origin {
            Origin::Idp | Origin::Shared => self.weight.store(weight, Ordering::Relaxed),
            Origin::IdpKeys => {
                self.weight.fetch_max(weight, Ordering::Relaxed);
            }
        }
    }
}

impl Current {
    /// `before`: what was in use until now.
    fn new(
        fetched: &Fetched,
        before: Option<&Self>,
        now: MonotonicMillis,
        wall: UnixMillis,
    ) -> Self {
        let age = match (fetched.origin, before) {
            (Origin::IdpKeys, Some(before)) => before.age(now),
            (Origin::Idp | Origin::IdpKeys | Origin::Shared, _) => wall.since(fetched.read.all),
        };
        Self {
            provider: Arc::clone(&fetched.provider),
            read: fetched.read,
            is_shared: fetched.origin == Origin::Shared,
            taken_at: now,
            age,
            keys_age: wall.since(fetched.read.keys),
        }
    }

    fn known(&self) -> Known {
        Known { provider: Arc::clone(&self.provider), read: self.read }
    }

    fn age(&self, now: MonotonicMillis) -> Duration {
        self.age.saturating_add(now.since(self.taken_at))
    }

    fn keys_age(&self, now: MonotonicMillis) -> Duration {
        self.keys_age.saturating_add(now.since(self.taken_at))
    }
}

impl State {
    fn usable(&self, now: MonotonicMillis) -> Option<Arc<Provider>> {
        let current = self.current.as_ref()?;
        let limit = current.provider.fresh_for.saturating_add(KEEP_STALE);
        (current.age(now) < limit).then(|| Arc::clone(&current.provider))
    }

    fn age_seconds(&self, now: MonotonicMillis) -> f64 {
        self.current.as_ref().map_or(0.0, |current| current.age(now).as_secs_f64())
    }

    fn is_fresh(&self, now: MonotonicMillis) -> bool {
        // The last fifth is left for the renewal, so that no login waits for it.
        let is_fresh = |current: &Current| current.age(now) < current.provider.fresh_for / 5 * 4;
        self.current.as_ref().is_some_and(is_fresh)
    }

    fn recent_failure(&self, now: MonotonicMillis) -> Option<ProviderError> {
        let (until, error) = self.failed.as_ref()?;
        (now < *until).then(|| error.clone())
    }

    /// Stores the outcome of a fetch. A failed one never replaces a usable provider.
    fn apply_fetch(
        &mut self,
        fetch: Fetch,
        outcome: &Outcome,
        now: MonotonicMillis,
        wall: UnixMillis,
    ) {
        self.in_flight.remove(&fetch);
        match (outcome, fetch) {
            (Ok(fetched), _) => {
                self.current = Some(Current::new(fetched, self.current.as_ref(), now, wall));
                match (fetched.origin, fetch) {
                    (Origin::Shared, Fetch::Keys) => self.by_keys.give_back(),
                    (Origin::IdpKeys, _) => return,
                    (Origin::Idp | Origin::Shared, _) => {}
                }
                self.failed = None;
            }
            (Err(error), Fetch::Renewal | Fetch::Current) => {
                let asked = error.retry_after().unwrap_or_default().min(LONGEST_COOL_DOWN);
                self.failed = Some((now.after(asked.max(COOL_DOWN)), error.clone()));
            }
            (Err(_), Fetch::Keys) => {}
        }
    }
}

/// The room of the account is full, and of no other.
fn too_many_waiting(connection: &Connection) -> ProviderError {
    let host = match &connection.settings.source {
        MetadataSource::Discovery(url) => host_of(url),
        MetadataSource::Manual(endpoints) => host_of(&endpoints.jwks),
    };
    let error = CallError::Unavailable { host, outage: Outage::TooManyWaiting };
    ProviderError::Call { document: Document::Metadata, error }
}

async fn outcome(mut receiver: watch::Receiver<Option<Outcome>>) -> Outcome {
    let outcome = receiver.wait_for(Option::is_some).await.ok().and_then(|value| value.clone());
    match outcome {
        Some(outcome) => outcome,
        // The task panicked, which was logged and counted.
        None => {
            let text = "the fetch of the IdP's metadata ended without an outcome";
            Err(ProviderError::Invalid(Problem::new(Cause::Defect, text)))
        }
    }
}

/// How long they are kept for an account without logins.
const KEEP_UNUSED: Duration = Duration::from_secs(24 * 60 * 60);
/// How long after a failed fetch none is started, or as long as the IdP asks for (Retry-After).
const COOL_DOWN: Duration = Duration::from_secs(1);
const LONGEST_COOL_DOWN: Duration = Duration::from_secs(60);
/// Callers of one account that wait for its first documents.
const MAX_WAITING: usize = 64;
/// Bytes of an ordinary IdP, by which the cache's size in IdPs becomes one in bytes.
const ORDINARY_SIZE: u64 = 24 * 1024;
const SMALLEST_CAPACITY: u64 = 8 * 1024 * 1024;
/// Bytes of an entry for each byte of its documents, and for itself.
const PARSED: u32 = 2;
const OVERHEAD: u32 = 4 * 1024;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::AtomicUsize;

    use async_trait::async_trait;
    use http::HeaderMap;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use url::Url;

    use super::*;
    use crate::model::documents::{Claim, IdpDocuments, Kept};
    use crate::oidc::documents::Claimed;
    use crate::oidc::fuzzing::connection;
    use crate::oidc::http::CallPolicy;
    use crate::telemetry::call::{Call, trace_id};

    /// Panics when it is read for the second time, which is when a fetch ends.
    #[derive(Default)]
    struct PanickingClock {
        reads: AtomicUsize,
        traces: Mutex<Vec<String>>,
    }

    impl Clock for PanickingClock {
        fn unix_millis(&self) -> UnixMillis {
            UnixMillis(0)
        }

        fn monotonic(&self) -> MonotonicMillis {
            self.traces.lock().expect("not poisoned").push(trace_id());
            assert_ne!(self.reads.fetch_add(1, Ordering::SeqCst), 1, "as the test demands");
            MonotonicMillis(0)
        }
    }

    struct StoreAway;

    #[async_trait]
    impl SharedDocuments for StoreAway {
        async fn kept(&self, _: &Connection) -> Option<Kept> {
            None
        }

        async fn claim(&self, _: &Connection) -> Claimed {
            Claimed::Unknown
        }

        async fn keep(&self, _: &Connection, _: &IdpDocuments) {}

        async fn release(&self, _: &Connection, _: Claim) {}
    }

    /// At an address that isn't called, so that a fetch ends at once.
    fn providers(clock: Arc<dyn Clock>) -> (Providers, Arc<Connection>) {
        let http = HttpClients::new(&CallPolicy::default(), &BTreeMap::new()).expect("a client");
        let tasks = Tasks::new(Duration::from_millis(1));
        let (origin, shared) = ("https://a.example".to_owned(), Arc::new(StoreAway));
        let providers = Providers::new(http, tasks, clock, origin, shared, 1);
        let url = Url::parse("https://127.0.0.1/.well-known/openid-configuration");
        let connection = connection(MetadataSource::Discovery(url.expect("a URL")));
        (providers, Arc::new(connection))
    }

    #[test]
    fn a_fetch_that_panics_is_counted_and_the_next_one_works() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        metrics::with_local_recorder(&recorder, || {
            runtime.expect("a runtime").block_on(async {
                let (providers, connection) = providers(Arc::new(PanickingClock::default()));
                for expected in [Cause::Defect, Cause::PrivateAddress] {
                    let error = providers.of(&connection).await.expect_err("no provider");
                    assert_eq!(error.cause(), expected);
                }
            });
        });
        let metrics = recorder.handle().render();
        let series = "sso_background_task_failures_total{task=\"provider_fetch\"} 1";
        assert!(metrics.contains(series), "{metrics}");
    }

    #[tokio::test]
    async fn a_fetch_belongs_to_the_call_that_started_it() {
        let clock = Arc::new(PanickingClock::default());
        let (providers, connection) = providers(Arc::clone(&clock) as Arc<dyn Clock>);
        let call = Call::start(&HeaderMap::new(), "Test");
        let trace = call.trace_id();
        call.run(providers.of(&connection)).await.expect_err("no provider");
        // Read by the caller, and at the end of the fetch.
        assert_eq!(*clock.traces.lock().expect("not poisoned"), [trace.clone(), trace]);
    }

    #[test]
    fn an_entry_weighs_what_its_documents_do() {
        let url = Url::parse("https://idp.example/").expect("a URL");
        let connection = Arc::new(connection(MetadataSource::Discovery(url)));
        let entry = Entry::new(&connection);
        let error = too_many_waiting(&connection);
        assert!(error.to_string().contains("idp.example"), "{error}");
        entry.weigh(&Err(error));
        assert_eq!(entry.weight.load(Ordering::Relaxed), OVERHEAD, "nothing was kept");
    }
}
