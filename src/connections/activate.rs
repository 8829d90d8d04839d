//! ActivateConnection: a connection becomes ACTIVE when its settings have been checked and a person has
//! logged in with them, or by force.

use super::{ConnectionAdmin, ConnectionError, MissingProof, changes, is_checked};
use crate::model::connection::{Connection, ConnectionSettings, ConnectionState};
use crate::model::slug::Slug;
use crate::store::{ChangeDetails, ConnectionChange};

impl ConnectionAdmin {
    /// Makes a connection ACTIVE. A test login that was completed just now counts once the log of
    /// attempts has been flushed, which the caller does.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn activate(
        &self,
        slug: &Slug,
        revision: u64,
        force: bool,
        validate_only: bool,
        actor: &str,
    ) -> Result<Connection, ConnectionError> {
        let old = self.get(slug).await?;
        if old.revision != revision {
            return Err(ConnectionError::Conflict { current: old.revision });
        }
        let proof = old.proof_digest();
        let is_tested = old.test_login.as_ref().is_some_and(|login| login.proof == proof);
        let missing = match (is_checked(&old), is_tested) {
            (true, true) => None,
            (false, true) => Some(MissingProof::Check),
            (true, false) => Some(MissingProof::TestLogin),
            (false, false) => Some(MissingProof::Both),
        };
        if let Some(missing) = missing.filter(|_| !force) {
            return Err(ConnectionError::ProofMissing(missing));
        }
        let settings =
            ConnectionSettings { state: ConnectionState::Active, ..old.settings.clone() };
        if validate_only {
            return Ok(Connection { settings, ..old });
        }
        let fields =
            changes::fields(Some((&old.settings, &old.secrets)), (&settings, &old.secrets));
        let details = ChangeDetails {
            is_forced: missing.is_some(),
            ..ChangeDetails::new(actor, "activate", fields)
        };
        let change = ConnectionChange {
            slug,
            revision,
            keep_pin: true,
            settings: &settings,
            secrets: &old.secrets,
            details: &details,
        };
        self.replace(&change).await
    }
}
