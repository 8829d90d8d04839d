//! ListLoginAttempts, and the summaries of logins that the lists of connections show.

use std::collections::HashMap;
use std::time::Duration;

use super::{ConnectionAdmin, ConnectionError};
use crate::model::attempt::{Attempt, LoginSummary};
use crate::model::connection::Connection;
use crate::model::slug::Slug;

/// An account's latest attempts.
#[derive(Debug)]
pub struct AttemptList {
    /// Newest first.
    pub attempts: Vec<Attempt>,
    /// Numbers and latest outcomes of all the account's logins.
    pub summary: LoginSummary,
    /// The account's connection, for the remedies.
    pub connection: Connection,
}

impl ConnectionAdmin {
    /// The account's latest attempts; attempts that are still in memory are missing unless the caller
    /// has flushed the log.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn attempts(&self, slug: &Slug, limit: u32) -> Result<AttemptList, ConnectionError> {
        let connection = self.get(slug).await?;
        let attempts = self.attempts.call(|store| store.attempts(slug, limit)).await?;
        let mut summaries = self.summaries(std::slice::from_ref(&connection)).await?;
        let summary = summaries.remove(slug).unwrap_or_default();
        Ok(AttemptList { attempts, summary, connection })
    }

    /// The login summaries of these connections, which are sorted by slug.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn summaries(
        &self,
        connections: &[Connection],
    ) -> Result<HashMap<Slug, LoginSummary>, ConnectionError> {
        let (Some(first), Some(last)) = (connections.first(), connections.last()) else {
            return Ok(HashMap::new());
        };
        let since = self.clock.unix_millis().before(FAILURES_OF);
        let (first, last) = (&first.slug, &last.slug);
        Ok(self.attempts.call(|store| store.login_summaries(first, last, since)).await?)
    }
}

/// The time of which refused logins are counted.
const FAILURES_OF: Duration = Duration::from_secs(24 * 60 * 60);
