//! Changes of a connection that the service makes by itself while people log in; called by `login`.

use std::sync::Arc;

use crate::model::change::FieldChange;
use crate::model::connection::{Connection, Issuer};
use crate::store::cache::ConnectionCache;
use crate::store::{ChangeDetails, Connections, DeferredStore, StoreError};

/// The changes; one for the process.
pub struct AutomaticChanges {
    store: Arc<DeferredStore<dyn Connections>>,
    cache: Arc<ConnectionCache>,
}

impl AutomaticChanges {
    /// Writes to `store`, and drops what `cache` holds of a changed account.
    #[must_use]
    pub fn new(store: Arc<DeferredStore<dyn Connections>>, cache: Arc<ConnectionCache>) -> Self {
        Self { store, cache }
    }

    /// Keeps the issuer that the metadata named at first use, and returns the connection as it is
    /// afterwards: pinned by this replica or by another.
    ///
    /// # Errors
    /// The store is unavailable.
    pub async fn pin_issuer(
        &self,
        connection: &Connection,
        issuer: &Issuer,
    ) -> Result<Option<Arc<Connection>>, StoreError> {
        let Connection { slug, revision, .. } = connection;
        let change = FieldChange {
            field: "issuer".to_owned(),
            before: String::new(),
            after: issuer.to_string(),
        };
        let details = ChangeDetails::new(ACTOR, "pin_issuer", vec![change]);
        self.store.call(|store| store.pin_issuer(slug, *revision, issuer, &details)).await?;
        self.cache.forget(slug).await;
        self.cache.get(slug).await
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

/// Recorded as the actor of these changes.
const ACTOR: &str = "the service";
