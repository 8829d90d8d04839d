//! What is counted and measured, for Prometheus: one function per event, called where it happens.
//! The labels of a metric take a bounded number of values, and none of them comes from a request.

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::Instrument;

use super::{TelemetryError, call, process};

/// The process's metrics, as text for Prometheus.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Starts counting; later calls give the same metrics. `accounts`: how many accounts get a
    /// label of their own.
    ///
    /// # Errors
    /// Something else receives the process's metrics.
    pub fn start(accounts: usize) -> Result<Self, TelemetryError> {
        static STARTED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
        locked(&ACCOUNTS).limit = accounts;
        let mut started = locked(&STARTED);
        if let Some(handle) = started.as_ref() {
            return Ok(Self(handle.clone()));
        }
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(PROVIDER_AGE.to_owned()), &AGE_BUCKETS)
            .and_then(|builder| builder.set_buckets(&LATENCY_BUCKETS))
            .and_then(PrometheusBuilder::install_recorder)?;
        describe();
        gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        begin_at_zero();
        Ok(Self(started.insert(handle).clone()))
    }

    /// Sorts measurements into their buckets: without it they would pile up in memory without
    /// scrapes.
    pub async fn upkeep(self) {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            ticks.tick().await;
            self.0.run_upkeep();
        }
    }

    /// Prometheus's text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.run_upkeep();
        self.0.render() + &process::render()
    }
}

/// A task that runs for as long as the service, or in the background of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackgroundTask {
    /// LoginService's listener.
    LoginListener,
    /// ConnectionService's listener.
    AdminListener,
    /// The listener for metrics and probes.
    MetricsListener,
    /// Sorts measurements into buckets.
    MetricsUpkeep,
    /// Probes the stores and applies changes of other replicas.
    StoreWatch,
    /// Periodic clean-up.
    Maintenance,
    /// Reloads certificates and callers.
    Reload,
    /// Writes login attempts to SQL.
    AttemptsWriter,
    /// Waits for a database that was unavailable at start.
    DatabaseOpening,
    /// Serves one connection, or one call.
    Connection,
    /// CheckConnection's check of one connection.
    ConnectionCheck,
    /// Proves a standby secret and puts it into use.
    SecretSwitch,
    /// Keeps the answer of a completed login for the same callback.
    AnswerKeeping,
    /// Fetches an IdP's documents for all callers that wait for them.
    ProviderFetch,
}

impl BackgroundTask {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::LoginListener,
        Self::AdminListener,
        Self::MetricsListener,
        Self::MetricsUpkeep,
        Self::StoreWatch,
        Self::Maintenance,
        Self::Reload,
        Self::AttemptsWriter,
        Self::DatabaseOpening,
        Self::Connection,
        Self::ConnectionCheck,
        Self::SecretSwitch,
        Self::AnswerKeeping,
        Self::ProviderFetch,
    ];

    /// Its name in metrics and log lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LoginListener => "login_listener",
            Self::AdminListener => "admin_listener",
            Self::MetricsListener => "metrics_listener",
            Self::MetricsUpkeep => "metrics_upkeep",
            Self::StoreWatch => "store_watch",
            Self::Maintenance => "maintenance",
            Self::Reload => "reload",
            Self::AttemptsWriter => "attempts_writer",
            Self::DatabaseOpening => "database_opening",
            Self::Connection => "connection",
            Self::ConnectionCheck => "connection_check",
            Self::SecretSwitch => "secret_switch",
            Self::AnswerKeeping => "answer_keeping",
            Self::ProviderFetch => "provider_fetch",
        }
    }
}

/// A listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// LoginService's.
    Login,
    /// ConnectionService's.
    Admin,
    /// The one for metrics and probes.
    Metrics,
}

impl Listener {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Login, Self::Admin, Self::Metrics];

    fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
        }
    }
}

/// How many connections a listener holds now.
pub fn connections_open(listener: Listener, count: usize) {
    // Exact: far below 2^52.
    #[expect(clippy::cast_precision_loss, reason = "a number of connections fits")]
    gauge!(CONNECTIONS, "listener" => listener.name()).set(count as f64);
}

/// Why a listener closes a connection, or refuses one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// A new connection took its place.
    Displaced,
    /// It had been without a call for too long.
    Idle,
    /// It had not said what it wants in time.
    HandshakeTimeout,
    /// There was no place for it: known callers use all.
    Refused,
}

impl Closed {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Displaced, Self::Idle, Self::HandshakeTimeout, Self::Refused];

    fn name(self) -> &'static str {
        match self {
            Self::Displaced => "displaced",
            Self::Idle => "idle",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Refused => "refused",
        }
    }
}

/// A listener closed a connection, or refused one.
pub fn connection_closed(listener: Listener, why: Closed) {
    counter!(CONNECTIONS_CLOSED, "listener" => listener.name(), "why" => why.name()).increment(1);
}

/// A background task panicked or ended early.
pub fn background_task_failed(task: BackgroundTask) {
    counter!(TASK_FAILURES, "task" => task.name()).increment(1);
}

/// A login began.
pub fn login_begun(account: &str) {
    counter!(LOGINS_BEGUN, "account" => account_label(account)).increment(1);
}

/// A login was completed.
pub fn login_completed(account: &str) {
    counter!(LOGINS_COMPLETED, "account" => account_label(account)).increment(1);
}

/// A callback got the answer that it had got before.
pub fn login_answered_again() {
    counter!(LOGINS_REPEATED).increment(1);
}

/// The current call was refused.
pub fn refused(reason: &'static str, owner: &'static str) {
    call::record_refusal(reason, owner);
    let method = call::current(call::Call::method).unwrap_or("other");
    counter!(REFUSALS, "method" => method, "reason" => reason, "owner" => owner).increment(1);
}

/// A call panicked.
pub fn panicked() {
    counter!(PANICS).increment(1);
}

/// A store failed or did not answer.
pub fn store_failed(store: &'static str) {
    counter!(STORE_ERRORS, "store" => store).increment(1);
}

/// A call needed an IdP's metadata: `hit`, `stale` (used while it is renewed) or `miss` (waited
/// for).
pub fn provider_looked_up(outcome: &'static str, age_seconds: f64) {
    counter!(PROVIDER_LOOKUPS, "outcome" => outcome).increment(1);
    if outcome != "miss" {
        histogram!(PROVIDER_AGE).record(age_seconds);
    }
}

/// An IdP's documents were fetched: `whole`, or `keys` alone where a token needs fresh keys and the metadata
/// document can't be fetched; or those that another replica fetched were taken (`shared`).
pub fn provider_fetched(documents: &'static str, has_succeeded: bool) {
    counter!(PROVIDER_FETCHES, "documents" => documents, "outcome" => outcome(has_succeeded))
        .increment(1);
}

fn outcome(has_succeeded: bool) -> &'static str {
    if has_succeeded { "ok" } else { "error" }
}

/// Whether this replica can complete logins.
pub fn ready(is_ready: bool) {
    gauge!(READY).set(if is_ready { 1.0 } else { 0.0 });
}

/// When the listeners' certificate expires, in seconds since the Unix epoch.
pub fn certificate_expires(at: i64) {
    // Exact: far below 2^52.
    #[expect(clippy::cast_precision_loss, reason = "seconds since the epoch fit")]
    gauge!(CERTIFICATE_EXPIRY).set(at as f64);
}

/// Whether a file that is reloaded when it changes can't be read or used.
pub fn reload_failing(file: &'static str, is_failing: bool) {
    gauge!(RELOAD_FAILING, "file" => file).set(if is_failing { 1.0 } else { 0.0 });
}

/// A connection's circuit breaker opened or closed.
pub fn breaker_turned(is_open: bool) {
    gauge!(BREAKERS_OPEN).increment(if is_open { 1.0 } else { -1.0 });
}

/// Login attempts were dropped.
pub fn attempts_dropped(count: u64) {
    counter!(ATTEMPTS_DROPPED).increment(count);
}

/// How many connections have a client secret that expires soon.
pub fn secrets_expiring(count: u64) {
    // Exact: far below 2^52.
    #[expect(clippy::cast_precision_loss, reason = "a number of connections fits")]
    gauge!(SECRETS_EXPIRING).set(count as f64);
}

/// The database went back to an earlier state, or is another one.
pub fn history_replaced() {
    counter!(HISTORY_REPLACED).increment(1);
}

/// An issuer that was read at first use was stored, or could not be.
pub fn issuer_pinned(has_succeeded: bool) {
    counter!(ISSUER_PINS, "outcome" => outcome(has_succeeded)).increment(1);
}

/// A connection's standby secret took over.
pub fn secret_switched() {
    counter!(SECRETS_SWITCHED).increment(1);
}

/// How long each phase of one login took, in the order in which the phases ended.
#[derive(Debug, Default)]
pub struct Phases(pub Vec<(&'static str, Duration)>);

impl Phases {
    /// Measures one phase: `store`, `metadata`, `token`, `userinfo` or `verify`. It is recorded
    /// even if the work is cancelled.
    pub async fn timed<T>(&mut self, phase: &'static str, work: impl Future<Output = T>) -> T {
        let _lap = Lap { phases: self, phase, timer: Timer::start(PHASE, "phase", phase) };
        work.instrument(call::phase_span(phase)).await
    }

    /// [`Phases::timed`] for work that isn't async.
    pub fn timed_now<T>(&mut self, phase: &'static str, work: impl FnOnce() -> T) -> T {
        let _lap = Lap { phases: self, phase, timer: Timer::start(PHASE, "phase", phase) };
        call::phase_span(phase).in_scope(work)
    }
}

struct Lap<'a> {
    phases: &'a mut Phases,
    phase: &'static str,
    timer: Timer,
}

impl Drop for Lap<'_> {
    fn drop(&mut self) {
        self.phases.0.push((self.phase, self.timer.started.elapsed()));
    }
}

/// Counts a call as in flight and measures it, until it is dropped.
pub struct CallTimer {
    _timer: Timer,
}

impl CallTimer {
    /// Starts now.
    #[must_use]
    pub fn start(method: &'static str) -> Self {
        gauge!(IN_FLIGHT).increment(1.0);
        Self { _timer: Timer::start(CALL, "method", method) }
    }
}

impl Drop for CallTimer {
    fn drop(&mut self) {
        gauge!(IN_FLIGHT).decrement(1.0);
    }
}

/// Records the elapsed time when it is dropped, so that cancelled work counts too.
struct Timer {
    started: Instant,
    metric: &'static str,
    label: &'static str,
    value: &'static str,
}

impl Timer {
    #[expect(clippy::disallowed_methods, reason = "this is where durations are measured")]
    fn start(metric: &'static str, label: &'static str, value: &'static str) -> Self {
        Self { started: Instant::now(), metric, label, value }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        histogram!(self.metric, self.label => self.value)
            .record(self.started.elapsed().as_secs_f64());
    }
}

struct Accounts {
    labelled: Option<HashSet<String>>,
    limit: usize,
}

static ACCOUNTS: Mutex<Accounts> = Mutex::new(Accounts { labelled: None, limit: 0 });

/// The first accounts that occur get a label of their own; all others share one.
fn account_label(account: &str) -> String {
    let mut accounts = locked(&ACCOUNTS);
    let limit = accounts.limit;
    let labelled = accounts.labelled.get_or_insert_default();
    if labelled.contains(account) || labelled.len() < limit && labelled.insert(account.to_owned()) {
        account.to_owned()
    } else {
        "other".to_owned()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `rate` and `increase` don't see the first event of a series that appears with that event.
fn begin_at_zero() {
    counter!(PANICS).absolute(0);
    counter!(LOGINS_REPEATED).absolute(0);
    for task in BackgroundTask::ALL {
        counter!(TASK_FAILURES, "task" => task.name()).absolute(0);
    }
    counter!(ATTEMPTS_DROPPED).absolute(0);
    counter!(HISTORY_REPLACED).absolute(0);
    for has_succeeded in [true, false] {
        counter!(ISSUER_PINS, "outcome" => outcome(has_succeeded)).absolute(0);
    }
    counter!(SECRETS_SWITCHED).absolute(0);
    gauge!(SECRETS_EXPIRING).set(0.0);
    for store in ["redis", "postgresql", "sqlite", "connections", "signing keys", "login attempts"]
    {
        counter!(STORE_ERRORS, "store" => store).absolute(0);
    }
    for outcome in ["hit", "stale", "miss"] {
        counter!(PROVIDER_LOOKUPS, "outcome" => outcome).absolute(0);
    }
    for (documents, outcome) in
        [("whole", "ok"), ("whole", "error"), ("keys", "ok"), ("keys", "error"), ("shared", "ok")]
    {
        counter!(PROVIDER_FETCHES, "documents" => documents, "outcome" => outcome).absolute(0);
    }
    gauge!(BREAKERS_OPEN).set(0.0);
    gauge!(IN_FLIGHT).set(0.0);
    for listener in Listener::ALL {
        connections_open(listener, 0);
        for why in Closed::ALL {
            counter!(CONNECTIONS_CLOSED, "listener" => listener.name(), "why" => why.name())
                .absolute(0);
        }
    }
    ready(false);
}

fn describe() {
    describe_counter!(
        ATTEMPTS_DROPPED,
        "login attempts that were dropped because SQL was unavailable or too slow, or because their \
         account had its share of the queue"
    );
    describe_counter!(
        SECRETS_SWITCHED,
        "standby client secrets that took over because the IdP rejected the active one"
    );
    describe_counter!(
        HISTORY_REPLACED,
        "times that the database went back to an earlier state (failover, restore) or was replaced, \
         so that all known connections were forgotten"
    );
    describe_counter!(
        ISSUER_PINS,
        "issuers that were read at first use and stored, or could not be stored: ok or error"
    );
    describe_gauge!(
        SECRETS_EXPIRING,
        "connections with a client secret that expires within 30 days or has expired"
    );
    describe_gauge!(READY, "1 while this replica can complete logins, else 0");
    describe_gauge!(
        CERTIFICATE_EXPIRY,
        Unit::Seconds,
        "expiry of the listeners' certificate, since the Unix epoch"
    );
    describe_gauge!(
        RELOAD_FAILING,
        "1 while a changed file (callers file, TLS certificate) can't be read or used, so that the \
         previous contents stay in use, else 0"
    );
    describe_gauge!(BUILD_INFO, "always 1; the label is the version");
    describe_counter!(LOGINS_BEGUN, "logins begun, by account");
    describe_counter!(LOGINS_COMPLETED, "logins completed, by account");
    describe_counter!(
        LOGINS_REPEATED,
        "callbacks that arrived again and got the answer of their login again"
    );
    describe_counter!(REFUSALS, "refused calls, by method, reason and who can act");
    describe_counter!(PANICS, "calls that panicked: each is a defect of the service");
    describe_counter!(
        TASK_FAILURES,
        "background tasks that panicked or ended early, by task: each is a defect of the service"
    );
    describe_counter!(STORE_ERRORS, "store operations that failed or timed out, by store");
    describe_counter!(
        PROVIDER_LOOKUPS,
        "lookups of IdP metadata: hit, stale (used while it is renewed) or miss"
    );
    describe_counter!(
        PROVIDER_FETCHES,
        "fetches of IdP documents: whole, or keys alone if a token needs fresh ones and the metadata \
         can't be fetched, or shared: those that another replica fetched"
    );
    describe_histogram!(PROVIDER_AGE, Unit::Seconds, "age of the IdP metadata that a call used");
    describe_gauge!(
        BREAKERS_OPEN,
        "connections with an open circuit breaker: their IdP did not answer and is not called"
    );
    describe_histogram!(PHASE, Unit::Seconds, "duration of one phase of a login");
    describe_histogram!(CALL, Unit::Seconds, "duration of a whole call");
    describe_gauge!(IN_FLIGHT, "calls whose answer hasn't been sent completely");
    describe_gauge!(CONNECTIONS, "open connections, by listener");
    describe_counter!(
        CONNECTIONS_CLOSED,
        "connections that a listener closed or refused, by listener: displaced (a new connection took \
         its place), idle, handshake_timeout, refused (known callers use all)"
    );
}

const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
const ATTEMPTS_DROPPED: &str = "sso_attempts_dropped_total";
const HISTORY_REPLACED: &str = "sso_database_history_replaced_total";
const ISSUER_PINS: &str = "sso_issuer_pins_total";
const SECRETS_SWITCHED: &str = "sso_secrets_switched_total";
const SECRETS_EXPIRING: &str = "sso_secrets_expiring";
const READY: &str = "sso_ready";
const CERTIFICATE_EXPIRY: &str = "sso_tls_certificate_expiry_seconds";
const RELOAD_FAILING: &str = "sso_reload_failing";
const BUILD_INFO: &str = "sso_build_info";
const LOGINS_BEGUN: &str = "sso_logins_begun_total";
const LOGINS_COMPLETED: &str = "sso_logins_completed_total";
const LOGINS_REPEATED: &str = "sso_logins_repeated_total";
const REFUSALS: &str = "sso_refusals_total";
const PANICS: &str = "sso_panics_total";
const TASK_FAILURES: &str = "sso_background_task_failures_total";
const STORE_ERRORS: &str = "sso_store_errors_total";
const PROVIDER_LOOKUPS: &str = "sso_provider_lookups_total";
const PROVIDER_FETCHES: &str = "sso_provider_fetches_total";
const PROVIDER_AGE: &str = "sso_provider_age_seconds";
const BREAKERS_OPEN: &str = "sso_breakers_open";
const PHASE: &str = "sso_phase_seconds";
const CALL: &str = "sso_call_seconds";
const IN_FLIGHT: &str = "sso_calls_in_flight";
const CONNECTIONS: &str = "sso_connections_open";
const CONNECTIONS_CLOSED: &str = "sso_connections_closed_total";
const LATENCY_BUCKETS: [f64; 14] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const AGE_BUCKETS: [f64; 6] = [300.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0, 172_800.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_beyond_the_limit_share_a_label() {
        locked(&ACCOUNTS).limit = 2;
        let labels: Vec<String> = ["a", "b", "c", "a"].into_iter().map(account_label).collect();
        assert_eq!(labels, ["a", "b", "other", "a"]);
    }
}
