//! ListLoginAttempts, and the summaries of logins that the lists of connections show.

use std::collections::HashMap;
use std::time::Duration;

use super::{ConnectionAdmin, ConnectionError};
use crate::model::attempt::{Attempt, LoginSummary};
use crate::model::connection::ConnectionSettings;
use crate::model::slug::Slug;

/// An account's latest attempts.
#[derive(Debug)]
pub struct AttemptList {
    /// Newest first.
    pub attempts: Vec<Attempt>,
    /// Numbers and latest outcomes of all the account's logins.
    pub summary: LoginSummary,
    /// The authentication method that the connection states, for the remedies.
    pub auth_method: &'static str,
}

impl ConnectionAdmin {
    /// The account's latest attempts; attempts that are still in memory are missing unless the caller
    /// has flushed the log.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn attempts(&self, slug: &Slug, limit: u32) -> Result<AttemptList, ConnectionError> {
        let stored = self.stored(slug).await?;
        let attempts = self.attempts.call(|store| store.attempts(slug, limit)).await?;
        let mut summaries = self.summaries(slug, slug).await?;
        let summary = summaries.remove(slug).unwrap_or_default();
        let connection = stored.map_or_else(|unreadable| unreadable.without_secrets, Some);
        let auth_method = ConnectionSettings::auth_method_text;
        let auth_method = connection.map_or("", |connection| auth_method(&connection.settings));
        Ok(AttemptList { attempts, summary, auth_method })
    }

    /// The login summaries of the accounts from `first` to `last`.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn summaries(
        &self,
        first: &Slug,
        last: &Slug,
    ) -> Result<HashMap<Slug, LoginSummary>, ConnectionError> {
        let since = self.clock.unix_millis().before(FAILURES_OF);
        Ok(self.attempts.call(|store| store.login_summaries(first, last, since)).await?)
    }
}

/// The time of which refused logins are counted.
const FAILURES_OF: Duration = Duration::from_secs(24 * 60 * 60);
