//! The store of each account's logins: attempts, and what is counted of them. `login/attempts.rs` writes it,
//! in batches and outside the logins; `connections/attempts.rs` reads it for support.

use std::collections::HashMap;

use async_trait::async_trait;

use super::StoreError;
use crate::model::attempt::{
    Attempt, AttemptQuery, LoginSummary, LoginTally, RecordedAttempt, TestLogin,
};
use crate::model::slug::Slug;
use crate::model::time::UnixMillis;

/// Stores the outcome of each account's logins.
///
/// Law: at least the latest [`ATTEMPTS_KEPT`] attempts of each account can be read, except that of each reason
/// at least the latest [`REFUSALS_KEPT`] refusals count. Refusals at one account within an hour that differ
/// in nothing that support can act on are one attempt, with the number of them; it is found by the trace id
/// of each of the latest [`TRACES_KEPT`]. Nothing is kept of an account without a connection.
#[async_trait]
pub trait LoginAttempts: Send + Sync {
    /// Adds a batch and deletes what exceeds [`ATTEMPTS_KEPT`].
    ///
    /// # Errors
    /// The store is unavailable; then nothing of the batch is stored.
    async fn add_attempts(&self, batch: &AttemptBatch) -> Result<(), StoreError>;

    /// The attempts that a query asks for, newest first.
    async fn attempts(&self, query: &AttemptQuery) -> Result<Vec<RecordedAttempt>, StoreError>;

    /// Summaries of the logins at the accounts from `first` to `last`, with the counts of the 24 hours before
    /// `now`. An account without logins has no entry.
    async fn login_summaries(
        &self,
        first: &Slug,
        last: &Slug,
        now: UnixMillis,
    ) -> Result<HashMap<Slug, LoginSummary>, StoreError>;

    /// The summary of the logins at all accounts, without those that never returned.
    async fn login_totals(&self, now: UnixMillis) -> Result<LoginSummary, StoreError>;

    /// Deletes the attempts that ended before `attempts`, and the counters of the hours before `hours`.
    async fn forget_attempts_before(
        &self,
        attempts: UnixMillis,
        hours: UnixMillis,
    ) -> Result<(), StoreError>;
}

/// The outcomes of logins, written together.
#[derive(Debug, Default)]
pub struct AttemptBatch {
    /// Logins that were completed or refused.
    pub attempts: Vec<AccountAttempt>,
    /// What was counted of each account's logins.
    pub tallies: HashMap<Slug, LoginTally>,
    /// The number of callbacks per account with a state that was not issued here.
    pub unrecognized: HashMap<Slug, u64>,
    /// Completed test logins.
    pub tested: Vec<ProvenLogin>,
}

/// A login of an account that was completed or refused.
#[derive(Debug)]
pub struct AccountAttempt {
    /// The account.
    pub slug: Slug,
    /// The outcome.
    pub attempt: Attempt,
}

/// A completed test login, to be stored with the connection that it proves.
#[derive(Debug)]
pub struct ProvenLogin {
    /// The account.
    pub slug: Slug,
    /// The connection's incarnation.
    pub incarnation: u64,
    /// What the login proves, and when it was completed.
    pub test_login: TestLogin,
}

impl AttemptBatch {
    /// Whether the batch has no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.attempts.is_empty()
            && self.tallies.is_empty()
            && self.unrecognized.is_empty()
            && self.tested.is_empty()
    }
}

/// How many attempts of each account are kept.
pub const ATTEMPTS_KEPT: u32 = 200;
/// How many refused ones for one reason.
pub const REFUSALS_KEPT: u32 = 50;
/// How many trace ids of each account's refusals for one reason.
pub const TRACES_KEPT: u32 = 200;
