//! Periodic work that no call waits for: deletes old login attempts and counters and what is left of
//! deleted connections, and counts client secrets that expire soon.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::clock::Clock;
use crate::login::attempts::AttemptLog;
use crate::model::secret::EXPIRES_SOON;
use crate::store::{Connections, DeferredStore, KeptDocuments};
use crate::telemetry::secrets_expiring;

/// What the work needs.
pub(super) struct Maintenance {
    pub(super) store: Arc<DeferredStore<dyn Connections>>,
    pub(super) attempts: Arc<AttemptLog>,
    pub(super) documents: Arc<DeferredStore<dyn KeptDocuments>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) interval: Duration,
}

impl Maintenance {
    /// Works until it is cancelled. If SQL is unavailable, it tries again at the next interval.
    pub(super) async fn run(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.attempts.forget_old().await {
                tracing::debug!(%error, "failed to delete old login attempts");
            }
            if let Err(error) = self.documents.call(|store| store.forget_deleted()).await {
                tracing::debug!(%error, "failed to delete documents of deleted connections");
            }
            let soon = self.clock.unix_millis().after(EXPIRES_SOON);
            if let Ok(count) = self.store.call(|store| store.secrets_expiring_before(soon)).await {
                secrets_expiring(count);
            }
        }
    }
}
