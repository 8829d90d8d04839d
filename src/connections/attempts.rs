//! ListLoginAttempts, and the summaries of logins that the lists of connections show. Attempts and counts that
//! are still in memory are missing unless the caller has flushed the log.

use std::collections::HashMap;

use super::{ConnectionAdmin, ConnectionError};
use crate::model::attempt::{AttemptQuery, LoginSummary, RecordedAttempt, Unreturned};
use crate::model::connection::{Connection, ConnectionSettings};
use crate::model::slug::Slug;
use crate::model::time::UnixMillis;
use crate::model::unreadable::{StoredConnection, readable, slug_of};
use crate::oidc::idps::IdpProduct;

/// The latest attempts of an account, or of all.
#[derive(Debug)]
pub struct AttemptList {
    /// Newest first.
    pub attempts: Vec<ListedAttempt>,
    /// Numbers and latest outcomes of all the logins.
    pub logins: Logins,
}

/// An attempt, with what its remedy says of the connection.
#[derive(Debug)]
pub struct ListedAttempt {
    /// The attempt.
    pub recorded: RecordedAttempt,
    /// The authentication method that the connection states.
    pub auth_method: &'static str,
    /// The product of the connection's IdP.
    pub product: IdpProduct,
}

/// The logins of an account, or of all.
#[derive(Debug, Default)]
pub struct Logins {
    /// Numbers and latest outcomes.
    pub summary: LoginSummary,
    /// What is probably wrong, though no login was refused.
    pub suspicion: Option<Suspicion>,
}

/// Logins begin, and nobody comes back from the IdP.
#[derive(Debug)]
pub struct Suspicion {
    /// How many, and since when.
    pub unreturned: Unreturned,
    /// The time of the summary.
    pub now: UnixMillis,
    /// The IdP's product.
    pub product: IdpProduct,
}

impl ConnectionAdmin {
    /// The attempts that a query asks for.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn attempts(&self, query: &AttemptQuery) -> Result<AttemptList, ConnectionError> {
        let stored = match &query.slug {
            Some(slug) => Some(self.stored(slug).await?),
            None => None,
        };
        let recorded = self.attempts.call(|store| store.attempts(query)).await?;
        let Some(stored) = stored else {
            let now = self.clock.unix_millis();
            let summary = self.attempts.call(|store| store.login_totals(now)).await?;
            let attempts = self.with_connections(recorded).await;
            return Ok(AttemptList { attempts, logins: Logins { summary, suspicion: None } });
        };
        let mut logins = self.logins(std::slice::from_ref(&stored)).await?;
        let logins = logins.remove(slug_of(&stored)).unwrap_or_default();
        let connection = readable(&stored);
        let listed = |recorded| ListedAttempt::new(recorded, connection);
        Ok(AttemptList { attempts: recorded.into_iter().map(listed).collect(), logins })
    }

    /// The logins of connections, which are in the order of their slugs.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn logins(
        &self,
        stored: &[StoredConnection],
    ) -> Result<HashMap<Slug, Logins>, ConnectionError> {
        let (Some(first), Some(last)) = (stored.first(), stored.last()) else {
            return Ok(HashMap::new());
        };
        let (first, last) = (slug_of(first), slug_of(last));
        let now = self.clock.unix_millis();
        let summaries = self.attempts.call(|store| store.login_summaries(first, last, now)).await?;
        let mut logins = HashMap::new();
        for stored in stored {
            let summary = summaries.get(slug_of(stored)).cloned().unwrap_or_default();
            let product = readable(stored).map_or(IdpProduct::Generic, IdpProduct::of_connection);
            let suspicion = summary.suspicion(now);
            let suspicion = suspicion.map(|unreturned| Suspicion { unreturned, now, product });
            logins.insert(slug_of(stored).clone(), Logins { summary, suspicion });
        }
        Ok(logins)
    }

    /// Without those of accounts whose connection was deleted in the meantime.
    async fn with_connections(&self, recorded: Vec<RecordedAttempt>) -> Vec<ListedAttempt> {
        let mut connections = HashMap::new();
        for RecordedAttempt { slug, .. } in &recorded {
            if !connections.contains_key(slug) {
                // Mostly in memory, since the account just had a login.
                connections.insert(slug.clone(), self.cache.get(slug).await);
            }
        }
        let listed = |recorded: RecordedAttempt| match connections.get(&recorded.slug)? {
            Ok(connection) => Some(ListedAttempt::new(recorded, Some(connection.as_deref()?))),
            Err(_) => Some(ListedAttempt::new(recorded, None)),
        };
        recorded.into_iter().filter_map(listed).collect()
    }
}

impl ListedAttempt {
    fn new(recorded: RecordedAttempt, connection: Option<&Connection>) -> Self {
        let auth_method =
            connection.map_or("", |it| ConnectionSettings::auth_method_text(&it.settings));
        let product = connection.map_or(IdpProduct::Generic, IdpProduct::of_connection);
        Self { recorded, auth_method, product }
    }
}
