//! CreateConnection: a new connection is TESTING or DISABLED, since nothing of it is proven yet.

use super::{ConnectionAdmin, ConnectionError, Updated, changes};
use crate::model::connection::{Connection, ConnectionSettings, ConnectionState};
use crate::model::secret::ClientSecrets;
use crate::model::slug::Slug;
use crate::store::ChangeDetails;

/// A connection to add, validated.
#[derive(Debug)]
pub struct NewConnection {
    /// The account.
    pub slug: Slug,
    /// Its settings.
    pub settings: ConnectionSettings,
    /// Its secrets.
    pub secrets: ClientSecrets,
    /// Whether to write nothing.
    pub validate_only: bool,
}

impl ConnectionAdmin {
    /// Adds a connection.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn create(
        &self,
        new: NewConnection,
        actor: &str,
    ) -> Result<Updated, ConnectionError> {
        let NewConnection { slug, settings, secrets, validate_only } = new;
        if settings.state == ConnectionState::Active {
            return Err(ConnectionError::ActivationRequired);
        }
        let fields = changes::fields(None, (&settings, &secrets));
        let changed_fields = fields.iter().map(|change| change.field.clone()).collect();
        let connection = if validate_only {
            match self.get(&slug).await {
                Ok(_) => return Err(ConnectionError::Exists),
                Err(ConnectionError::NotFound) => self.preview(slug, settings, secrets),
                Err(error) => return Err(error),
            }
        } else {
            let details = ChangeDetails::new(actor, "create", fields);
            let created =
                self.store.call(|store| store.create(&slug, &settings, &secrets, &details));
            let created = created.await;
            self.cache.forget(&slug).await;
            created?
        };
        Ok(Updated { connection, effect: changes::Effect::None, changed_fields })
    }

    /// The connection as it would be stored; it has no revision.
    pub(super) fn preview(
        &self,
        slug: Slug,
        settings: ConnectionSettings,
        secrets: ClientSecrets,
    ) -> Connection {
        let now = self.clock.unix_millis();
        Connection {
            slug,
            incarnation: 0,
            revision: 0,
            settings,
            pinned_issuer: None,
            secrets,
            secret_switched: None,
            last_check: None,
            last_proposal: None,
            test_login: None,
            create_time: now,
            update_time: now,
        }
    }
}
