//! RestoreConnection: the settings and secrets of an earlier revision become a new revision, under the
//! rules of an update. The state stays, so that nothing is switched on or off by it.

use super::update::How;
use super::{ConnectionAdmin, ConnectionError, Updated};
use crate::model::Violation;
use crate::model::connection::ConnectionSettings;
use crate::model::slug::Slug;
use crate::store::StoreError;

/// Which revision to restore.
#[derive(Debug)]
pub struct Restoration {
    /// The account.
    pub slug: Slug,
    /// The earlier revision.
    pub revision: u64,
    /// The present revision, if it must be a certain one.
    pub present: Option<u64>,
    /// Whether a check may be skipped.
    pub force: bool,
}

impl ConnectionAdmin {
    /// Restores an earlier revision.
    ///
    /// # Errors
    /// See [`ConnectionError`]; the revision is invalid if it isn't kept.
    pub async fn restore(
        &self,
        restoration: Restoration,
        actor: &str,
    ) -> Result<Updated, ConnectionError> {
        let Restoration { slug, revision, present, force } = restoration;
        let old = self.editable(&slug).await?;
        if present.is_some_and(|present| present != old.revision) {
            return Err(ConnectionError::Conflict { current: old.revision });
        }
        let how = How { action: "restore", force, validate_only: false };
        if revision == old.revision {
            return self.put_in_place(old.clone(), old, how, actor).await;
        }
        let found = self.store.call(|store| store.earlier_revision(&slug, revision)).await?;
        let earlier = found
            .ok_or_else(|| ConnectionError::Invalid(vec![Violation::new("revision", NOT_KEPT)]))?
            .map_err(StoreError::from)?;
        let settings = ConnectionSettings { state: old.settings.state, ..earlier.settings };
        let new = old.with(settings, earlier.secrets);
        self.put_in_place(old, new, how, actor).await
    }
}

const NOT_KEPT: &str =
    "must be a revision that is kept: `peerpanda-sso connection changes SLUG` lists them";
