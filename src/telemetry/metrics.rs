//! Logs, metrics and traces. What is logged holds no secret, code, token, state, nonce or verifier: their types show none, and no
//! error text quotes an IdP's answer. What is counted has labels of a bounded number alone.

pub mod traces;

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Sends the logs of the whole process to standard error.
///
/// # Errors
/// Something else has taken the logs already.
pub fn init(format: LogFormat, filter: EnvFilter) -> Result<(), String> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE);
    match format {
        LogFormat::Text => {
            builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|error| error.to_string())
}

/// The process's metrics, as text for Prometheus.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Starts counting, once in a process. `accounts`: how many accounts have a label of their own.
    ///
    /// # Errors
    /// Something else counts already.
    pub fn start(accounts: usize) -> Result<Self, String> {
        static STARTED: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
        let started = STARTED.get_or_init(|| {
            let handle = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Full(PROVIDER_AGE.to_owned()), &AGE_BUCKETS)
                .and_then(|builder| builder.set_buckets(&LATENCY_BUCKETS))
                .and_then(PrometheusBuilder::install_recorder)
                .map_err(|error| error.to_string())?;
            describe();
            gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
            begin_at_zero();
            Ok(handle)
        });
        locked(&ACCOUNTS).limit = accounts;
        started.clone().map(Self)
    }

    /// Sorts what was measured into its buckets, now and then until it is given up: otherwise it would pile up in memory
    /// while nobody asks for it.
    pub async fn keep_up(self) {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            ticks.tick().await;
            self.0.run_upkeep();
        }
    }

    /// The text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.run_upkeep();
        self.0.render()
    }
}

/// A login has begun.
pub fn login_begun(account: &str) {
    counter!(LOGINS_BEGUN, "account" => account_label(account)).increment(1);
}

/// A login has ended well.
pub fn login_completed(account: &str) {
    counter!(LOGINS_COMPLETED, "account" => account_label(account)).increment(1);
}

/// A call about this account was refused.
pub fn refused(method: &'static str, account: &str, reason: &'static str, owner: &'static str) {
    traces::refused(account, reason, owner);
    counter!(REFUSALS, "method" => method, "reason" => reason, "owner" => owner).increment(1);
}

/// A call panicked.
pub fn panicked() {
    counter!(PANICS).increment(1);
}

/// A store gave an error, or no answer.
pub fn store_failed(store: &'static str) {
    counter!(STORE_ERRORS, "store" => store).increment(1);
}

/// An IdP's metadata was asked for: `hit`, `stale` (used while it is fetched anew) or `miss` (waited for).
pub fn provider_looked_up(outcome: &'static str, age_seconds: f64) {
    counter!(PROVIDER_LOOKUPS, "outcome" => outcome).increment(1);
    if outcome != "miss" {
        histogram!(PROVIDER_AGE).record(age_seconds);
    }
}

/// An IdP's documents were fetched: `whole`, or `keys` alone for a token by an unknown key.
pub fn provider_fetched(documents: &'static str, has_succeeded: bool) {
    counter!(PROVIDER_FETCHES, "documents" => documents, "outcome" => if has_succeeded { "ok" } else { "error" }).increment(1);
}

/// Whether people can log in here now.
pub fn ready(is_ready: bool) {
    gauge!(READY).set(if is_ready { 1.0 } else { 0.0 });
}

/// When the listeners' certificate expires, in seconds since the Unix epoch.
pub fn certificate_expires(at: i64) {
    // Exact: far below 2^52.
    #[expect(clippy::cast_precision_loss, reason = "seconds since the epoch fit")]
    gauge!(CERTIFICATE_EXPIRY).set(at as f64);
}

/// A connection's breaker has opened or closed.
pub fn breaker_turned(is_open: bool) {
    gauge!(BREAKERS_OPEN).increment(if is_open { 1.0 } else { -1.0 });
}

/// So many notes of logins were not kept.
pub fn attempts_dropped(count: u64) {
    counter!(ATTEMPTS_DROPPED).increment(count);
}

/// So many client secrets in use expire soon.
pub fn secrets_expiring(count: u64) {
    // Exact: far below 2^52.
    #[expect(clippy::cast_precision_loss, reason = "a number of connections fits")]
    gauge!(SECRETS_EXPIRING).set(count as f64);
}

/// A connection's two secrets changed places.
pub fn secret_switched() {
    counter!(SECRETS_SWITCHED).increment(1);
}

/// How long each phase of one login took, in the order in which they ended.
#[derive(Debug, Default)]
pub struct Phases(pub Vec<(&'static str, Duration)>);

impl Phases {
    /// Measures one phase: `store`, `metadata`, `token`, `userinfo` or `verify`; remembers it, also where the work is given up.
    pub async fn timed<T>(&mut self, phase: &'static str, work: impl Future<Output = T>) -> T {
        let _lap = Lap { phases: self, phase, timer: Timer::start(PHASE, "phase", phase) };
        traces::phase(phase, work).await
    }

    /// The same for work that doesn't wait.
    pub fn timed_now<T>(&mut self, phase: &'static str, work: impl FnOnce() -> T) -> T {
        let _lap = Lap { phases: self, phase, timer: Timer::start(PHASE, "phase", phase) };
        traces::phase_now(phase, work)
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

/// A call in flight, from now until it is dropped.
pub struct Call {
    _timer: Timer,
}

impl Call {
    /// Of this method.
    #[must_use]
    pub fn begins(method: &'static str) -> Self {
        gauge!(IN_FLIGHT).increment(1.0);
        Self { _timer: Timer::start(CALL, "method", method) }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        gauge!(IN_FLIGHT).decrement(1.0);
    }
}

/// Records when it is dropped: what is given up counts too.
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

/// The first accounts that are seen have a label of their own; all others share one.
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

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A series that appears with its first event hides that event from `rate` and `increase`.
fn begin_at_zero() {
    counter!(PANICS).absolute(0);
    counter!(ATTEMPTS_DROPPED).absolute(0);
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
        [("whole", "ok"), ("whole", "error"), ("keys", "ok"), ("keys", "error")]
    {
        counter!(PROVIDER_FETCHES, "documents" => documents, "outcome" => outcome).absolute(0);
    }
    gauge!(BREAKERS_OPEN).set(0.0);
    gauge!(IN_FLIGHT).set(0.0);
    ready(false);
}

fn describe() {
    describe_counter!(
        ATTEMPTS_DROPPED,
        "notes of logins that were not kept, since SQL could not keep up"
    );
    describe_counter!(
        SECRETS_SWITCHED,
        "connections whose standby secret took over, since the IdP rejected the other"
    );
    describe_gauge!(
        SECRETS_EXPIRING,
        "connections of which a client secret expires within 30 days, or has"
    );
    describe_gauge!(READY, "1 while people can log in here, else 0");
    describe_gauge!(
        CERTIFICATE_EXPIRY,
        Unit::Seconds,
        "when the listeners' certificate expires, since the Unix epoch"
    );
    describe_gauge!(BUILD_INFO, "1, with the version as label");
    describe_counter!(LOGINS_BEGUN, "logins begun, by account");
    describe_counter!(LOGINS_COMPLETED, "logins completed, by account");
    describe_counter!(REFUSALS, "calls refused, by method, reason and who can act");
    describe_counter!(PANICS, "calls that ended by a defect of the service");
    describe_counter!(STORE_ERRORS, "errors of a store, or answers that did not come in time");
    describe_counter!(
        PROVIDER_LOOKUPS,
        "lookups of IdP metadata: hit, stale (used while it is fetched anew) or miss"
    );
    describe_counter!(
        PROVIDER_FETCHES,
        "fetches of IdP documents: whole, or keys for a token by an unknown key"
    );
    describe_histogram!(PROVIDER_AGE, Unit::Seconds, "age of the IdP metadata that a call used");
    describe_gauge!(
        BREAKERS_OPEN,
        "connections whose IdP is not asked for a while, since it does not answer"
    );
    describe_histogram!(PHASE, Unit::Seconds, "time in one phase of a login");
    describe_histogram!(CALL, Unit::Seconds, "time of a whole call");
    describe_gauge!(IN_FLIGHT, "calls in flight");
}

const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
const ATTEMPTS_DROPPED: &str = "sso_attempts_dropped_total";
const SECRETS_SWITCHED: &str = "sso_secrets_switched_total";
const SECRETS_EXPIRING: &str = "sso_secrets_expiring";
const READY: &str = "sso_ready";
const CERTIFICATE_EXPIRY: &str = "sso_tls_certificate_expiry_seconds";
const BUILD_INFO: &str = "sso_build_info";
const LOGINS_BEGUN: &str = "sso_logins_begun_total";
const LOGINS_COMPLETED: &str = "sso_logins_completed_total";
const REFUSALS: &str = "sso_refusals_total";
const PANICS: &str = "sso_panics_total";
const STORE_ERRORS: &str = "sso_store_errors_total";
const PROVIDER_LOOKUPS: &str = "sso_provider_lookups_total";
const PROVIDER_FETCHES: &str = "sso_provider_fetches_total";
const PROVIDER_AGE: &str = "sso_provider_age_seconds";
const BREAKERS_OPEN: &str = "sso_breakers_open";
const PHASE: &str = "sso_phase_seconds";
const CALL: &str = "sso_call_seconds";
const IN_FLIGHT: &str = "sso_calls_in_flight";
const LATENCY_BUCKETS: [f64; 14] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const AGE_BUCKETS: [f64; 6] = [300.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0, 172_800.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_accounts_have_a_label_and_no_more() {
        locked(&ACCOUNTS).limit = 2;
        let labels: Vec<String> = ["a", "b", "c", "a"].into_iter().map(account_label).collect();
        assert_eq!(labels, ["a", "b", "other", "a"]);
    }
}
