//! Probes the stores, applies changes of other replicas, and sets what health checks report. Runs
//! for as long as the service; a change of a store's state is logged once.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::identity_token::IdentityTokens;
use crate::login::Login;
use crate::server::Health;
use crate::store::PendingLogins;
use crate::store::cache::ConnectionCache;

/// What the probes need.
pub(super) struct StoreWatch {
    pub(super) health: Health,
    pub(super) identity_tokens: Option<Arc<IdentityTokens>>,
    pub(super) connections: Arc<ConnectionCache>,
    pub(super) pending: Arc<dyn PendingLogins>,
    pub(super) login: Arc<Login>,
    pub(super) interval: Duration,
    pub(super) failing: tokio::sync::Mutex<Failing>,
}

/// The stores that failed at the last probe, with their errors.
#[derive(Default)]
pub(super) struct Failing {
    connections: Option<String>,
    pending: Option<String>,
    keys: Option<String>,
}

impl StoreWatch {
    /// Probes until it is cancelled.
    pub(super) async fn run(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            self.login.forget_idle();
            self.probe_stores().await;
        }
    }

    /// Applies changes of other replicas, and probes whether the stores answer.
    pub(super) async fn probe_stores(&self) {
        let (polled, pinged) =
            tokio::join!(with_timeout(self.connections.poll()), self.pending.ping());
        let pinged = pinged.map_err(|error| error.to_string());
        let (kept, can_sign) = match &self.identity_tokens {
            Some(tokens) => (with_timeout(tokens.keep_keys()).await, tokens.ready().is_ok()),
            None => (Ok(()), true),
        };
        let can_log_in = pinged.is_ok() && self.connections.is_current() && can_sign;
        self.health.set(can_log_in, polled.is_ok());
        let mut failing = self.failing.lock().await;
        log_transition("signing keys", &mut failing.keys, kept.err());
        log_transition("connections", &mut failing.connections, polled.err());
        log_transition("pending logins", &mut failing.pending, pinged.err());
    }
}

async fn with_timeout<E: Display>(
    probe: impl Future<Output = Result<(), E>>,
) -> Result<(), String> {
    let probed = tokio::time::timeout(PROBE_TIMEOUT, probe).await;
    probed
        .map_err(|_| format!("no answer within {PROBE_TIMEOUT:?}"))?
        .map_err(|error| error.to_string())
}

fn log_transition(store: &'static str, before: &mut Option<String>, now: Option<String>) {
    match (&before, &now) {
        (None, Some(error)) => tracing::warn!(store, error, "store unavailable"),
        (Some(_), None) => tracing::info!(store, "store available again"),
        _ => {}
    }
    *before = now;
}

const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
