//! Changes of a connection that the service makes by itself while people log in; called by `login`.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::model::change::FieldChange;
use crate::model::connection::{Connection, Issuer};
use crate::model::rate::Rate;
use crate::model::slug::Slug;
use crate::rate_limit::RateLimiter;
use crate::store::cache::ConnectionCache;
use crate::store::{ChangeDetails, Connections, DeferredStore, StoreError};
use crate::telemetry::call::within_current;
use crate::telemetry::issuer_pinned;

/// The changes; one for the process.
pub struct AutomaticChanges {
    store: Arc<DeferredStore<dyn Connections>>,
    cache: Arc<ConnectionCache>,
    pins: RateLimiter<Slug>,
    pinning: Arc<Semaphore>,
}

impl AutomaticChanges {
    /// Writes to `store`, and drops what `cache` holds of a changed account.
    #[must_use]
    pub fn new(
        store: Arc<DeferredStore<dyn Connections>>,
        cache: Arc<ConnectionCache>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let pins = RateLimiter::new(PIN_INTERVAL, clock);
        Self { store, cache, pins, pinning: Arc::new(Semaphore::new(MAX_PINNING)) }
    }

    /// Keeps the issuer that the metadata named at first use, in the background: no login waits for it or
    /// fails by it. If it can't be stored, a later login tries again, at most once per
    /// 10 seconds. Another replica may pin another issuer first; then that one stays.
    pub fn pin_issuer(self: &Arc<Self>, connection: &Arc<Connection>, issuer: &Issuer) {
        let Ok(permit) = Arc::clone(&self.pinning).try_acquire_owned() else { return };
        if self.pins.admit(&connection.slug).is_err() {
            return;
        }
        let (changes, connection, issuer) =
            (Arc::clone(self), Arc::clone(connection), issuer.clone());
        tokio::spawn(within_current(async move {
            let pinned = changes.store_pin(&connection, &issuer).await;
            issuer_pinned(pinned.is_ok());
            if let Err(error) = pinned {
                tracing::warn!(account.slug = %connection.slug, %error, "failed to pin the issuer");
            }
            drop(permit);
        }));
    }

    /// Frees what is remembered of idle accounts. Called periodically.
    pub fn forget_idle(&self) {
        self.pins.forget_idle();
    }

    async fn store_pin(&self, connection: &Connection, issuer: &Issuer) -> Result<(), StoreError> {
        let Connection { slug, revision, .. } = connection;
        let change = FieldChange {
            field: "issuer".to_owned(),
            before: String::new(),
            after: issuer.to_string(),
        };
        let details = ChangeDetails::new(ACTOR, "pin_issuer", vec![change]);
        // The cached connection stays in use until the next poll has read the pinned one.
        self.store.call(|store| store.pin_issuer(slug, *revision, issuer, &details)).await
    }

    /// Lets the standby secret take the place of the active one, for the next login. The caller has
    /// proven it. Returns whether it did: another replica may have been faster.
    ///
    /// # Errors
    /// The store is unavailable.
    pub async fn switch_secret(&self, connection: &Connection) -> Result<bool, StoreError> {
        let Connection { slug, revision, secrets, .. } = connection;
        let Some(standby) = &secrets.standby else { return Ok(false) };
        let change = FieldChange {
            field: "client_secret".to_owned(),
            before: secrets.active.fingerprint(),
            after: standby.fingerprint(),
        };
        let details = ChangeDetails::new(ACTOR, "switch_secret", vec![change]);
        let switch = self.store.call(|store| store.switch_secret(slug, *revision, &details));
        let has_switched = switch.await?;
        self.cache.forget(slug).await;
        Ok(has_switched)
    }
}

/// How often the issuer of one account is tried to be pinned.
const PIN_INTERVAL: Rate =
    Rate { count: NonZeroU32::new(1).expect("not zero"), period: Duration::from_secs(10) };
/// Issuers that are pinned at the same time: fewer than the database has connections for.
const MAX_PINNING: usize = 4;
/// Recorded as the actor of these changes.
const ACTOR: &str = "the service";
