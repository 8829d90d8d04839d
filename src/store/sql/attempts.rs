//! [`LoginAttempts`] in SQL.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_trait::async_trait;
use sqlx::FromRow;

use super::rows::{from_json, millis, to_json};
use super::statement::{Backend, Statement};
use super::{SqlStore, from_i64};
use crate::model::attempt::{Attempt, LoginSummary};
use crate::model::reason::Reason;
use crate::model::slug::Slug;
use crate::model::time::UnixMillis;
use crate::store::{
    ATTEMPTS_KEPT, AccountAttempt, AttemptBatch, LoginAttempts, ProvenLogin, REFUSALS_KEPT,
    StoreError,
};

/// A row of `login_counts`.
#[derive(FromRow)]
struct CountRow {
    slug: String,
    last_success: Option<i64>,
    foreign_callbacks: i64,
}

/// How many logins of an account were refused for one reason.
#[derive(FromRow)]
struct FailureRow {
    slug: String,
    reason: String,
    failures: i64,
}

#[async_trait]
impl<D: Backend> LoginAttempts for SqlStore<D> {
    async fn add_attempts(&self, batch: &AttemptBatch) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        // First, as a deletion does: rows of `connections` are locked before others, and in the order of
        // slugs, so that no two transactions wait for each other.
        for ProvenLogin { slug, incarnation, test_login } in by_account(&batch.tested) {
            let record = Statement::new(
                "UPDATE connections SET test_login_digest = $1, test_login_time = $2 \
                 WHERE slug = $3 AND incarnation = $4",
            )
            .bind(test_login.proof.as_str())
            .bind(test_login.time)
            .bind(slug)
            .bind(*incarnation);
            D::execute(&mut tx, record).await?;
        }
        for AccountAttempt { slug, attempt } in &batch.attempts {
            let add = Statement::new(
                "INSERT INTO login_attempts (slug, time, reason, attempt) \
                 VALUES ($1, $2, $3, $4)",
            )
            .bind(slug)
            .bind(attempt.time)
            .bind(attempt.reason.map_or("", Reason::name))
            .bind(to_json(attempt)?);
            D::execute(&mut tx, add).await?;
        }
        for slug in accounts_to_trim(&batch.attempts) {
            // First: one reason, such as a stranger's error callbacks, must not push out the others.
            let share = Statement::new(
                "DELETE FROM login_attempts WHERE slug = $1 AND id IN ( \
                     SELECT id FROM ( \
                         SELECT id, ROW_NUMBER() OVER (PARTITION BY reason ORDER BY id DESC) AS place \
                         FROM login_attempts WHERE slug = $1 AND reason <> '' \
                     ) AS ranked \
                     WHERE place > $2 \
                 )",
            )
            .bind(slug)
            .bind(REFUSALS_KEPT);
            D::execute(&mut tx, share).await?;
            let trim = Statement::new(
                "DELETE FROM login_attempts \
                 WHERE slug = $1 AND id <= ( \
                     SELECT id FROM login_attempts \
                     WHERE slug = $1 \
                     ORDER BY id DESC \
                     LIMIT 1 OFFSET $2 \
                 )",
            )
            .bind(slug)
            .bind(ATTEMPTS_KEPT);
            D::execute(&mut tx, trim).await?;
        }
        for (slug, counts) in counts_by_account(batch) {
            // Selected from `connections`, so that nothing is counted for an account without one.
            let count = Statement::new(
                "INSERT INTO login_counts (slug, last_success, foreign_callbacks) \
                 SELECT slug, $2, $3 FROM connections WHERE slug = $1 \
                 ON CONFLICT (slug) DO UPDATE SET \
                     last_success = COALESCE(excluded.last_success, login_counts.last_success), \
                     foreign_callbacks = \
                         login_counts.foreign_callbacks + excluded.foreign_callbacks",
            )
            .bind(slug)
            .bind(counts.last_success)
            .bind(counts.unrecognized);
            D::execute(&mut tx, count).await?;
        }
        tx.commit().await
    }

    async fn attempts(&self, slug: &Slug, limit: u32) -> Result<Vec<Attempt>, StoreError> {
        let latest = Statement::new(
            "SELECT attempt FROM login_attempts \
             WHERE slug = $1 \
             ORDER BY id DESC \
             LIMIT $2",
        )
        .bind(slug)
        .bind(limit);
        let rows: Vec<(String,)> = self.fetch(latest).await?;
        // One of another version hides no other.
        let readable = |(attempt,): &(String,)| {
            let read = from_json(attempt);
            read.inspect_err(|error| tracing::warn!(%error, "passed over a login attempt")).ok()
        };
        Ok(rows.iter().filter_map(readable).collect())
    }

    async fn login_summaries(
        &self,
        first: &Slug,
        last: &Slug,
        since: UnixMillis,
    ) -> Result<HashMap<Slug, LoginSummary>, StoreError> {
        let counts = Statement::new(
            "SELECT slug, last_success, foreign_callbacks FROM login_counts \
             WHERE slug >= $1 AND slug <= $2",
        )
        .bind(first)
        .bind(last);
        let failures = Statement::new(
            "SELECT slug, reason, COUNT(*) AS failures FROM login_attempts \
             WHERE slug >= $1 AND slug <= $2 AND time >= $3 AND reason <> '' \
             GROUP BY slug, reason",
        )
        .bind(first)
        .bind(last)
        .bind(since);
        Ok(summaries(self.fetch(counts).await?, self.fetch(failures).await?))
    }

    async fn forget_attempts_before(&self, time: UnixMillis) -> Result<(), StoreError> {
        let delete = Statement::new("DELETE FROM login_attempts WHERE time < $1").bind(time);
        self.execute(delete).await.map(|_| ())
    }
}

/// What a batch adds to the counts of an account.
#[derive(Debug, Default, PartialEq, Eq)]
struct AddedCounts {
    last_success: Option<UnixMillis>,
    unrecognized: u64,
}

/// In the order of slugs.
fn by_account(tested: &[ProvenLogin]) -> Vec<&ProvenLogin> {
    let mut sorted: Vec<_> = tested.iter().collect();
    sorted.sort_by_key(|login| &login.slug);
    sorted
}

/// In the order of slugs.
fn counts_by_account(batch: &AttemptBatch) -> BTreeMap<&Slug, AddedCounts> {
    let mut counts: BTreeMap<&Slug, AddedCounts> = BTreeMap::new();
    for AccountAttempt { slug, attempt } in &batch.attempts {
        if attempt.reason.is_none() {
            counts.entry(slug).or_default().last_success = Some(attempt.time);
        }
    }
    for (slug, unrecognized) in &batch.unrecognized {
        counts.entry(slug).or_default().unrecognized += unrecognized;
    }
    counts
}

/// The accounts whose oldest attempts are deleted with this batch. Readers take the latest attempts only,
/// so it is enough to delete at one of [`TRIM_ONE_IN`] attempts, chosen by its time.
fn accounts_to_trim(attempts: &[AccountAttempt]) -> BTreeSet<&Slug> {
    let is_chosen = |attempt: &&AccountAttempt| attempt.attempt.time.0.is_multiple_of(TRIM_ONE_IN);
    attempts.iter().filter(is_chosen).map(|attempt| &attempt.slug).collect()
}

/// An unknown reason, recorded by another version, counts as INTERNAL.
fn summaries(counts: Vec<CountRow>, failures: Vec<FailureRow>) -> HashMap<Slug, LoginSummary> {
    let mut summaries: HashMap<Slug, LoginSummary> = HashMap::new();
    for row in counts {
        let Some(slug) = Slug::parse(&row.slug) else { continue };
        let summary = summaries.entry(slug).or_default();
        summary.last_success = row.last_success.map(millis);
        summary.unrecognized_callbacks = from_i64(row.foreign_callbacks);
    }
    for row in failures {
        let Some(slug) = Slug::parse(&row.slug) else { continue };
        let reason = Reason::parse(&row.reason).unwrap_or(Reason::Internal);
        let failures = summaries.entry(slug).or_default().failures.entry(reason).or_default();
        *failures += u32::try_from(row.failures).unwrap_or(u32::MAX);
    }
    summaries
}

const TRIM_ONE_IN: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn slug(text: &str) -> Slug {
        Slug::parse(text).expect("a slug")
    }

    fn attempt(account: &str, time: u64, reason: Option<Reason>) -> AccountAttempt {
        let attempt = Attempt {
            time: UnixMillis(time),
            reason,
            cause: None,
            trace_id: String::new(),
            idp_error: None,
            claims_present: None,
            issuer: None,
            phases: Vec::new(),
            is_test: false,
        };
        AccountAttempt { slug: slug(account), attempt }
    }

    #[test]
    fn a_batch_is_counted_by_account() {
        let batch = AttemptBatch {
            attempts: vec![
                attempt("acme", 1, None),
                attempt("acme", 2, Some(Reason::ClaimMissing)),
                attempt("acme", 3, None),
                attempt("beta", 4, Some(Reason::ClaimMissing)),
            ],
            unrecognized: [(slug("acme"), 2), (slug("gamma"), 5)].into(),
            tested: Vec::new(),
        };
        let (acme, gamma) = (slug("acme"), slug("gamma"));
        let expected = [
            (&acme, AddedCounts { last_success: Some(UnixMillis(3)), unrecognized: 2 }),
            (&gamma, AddedCounts { last_success: None, unrecognized: 5 }),
        ];
        assert_eq!(counts_by_account(&batch), expected.into());
    }

    #[test]
    fn accounts_are_trimmed_at_one_of_sixteen_attempts() {
        let attempts: Vec<_> = (1..=32)
            .map(|time| attempt(if time <= 15 { "acme" } else { "beta" }, time, None))
            .collect();
        assert_eq!(accounts_to_trim(&attempts), [&slug("beta")].into());
        assert!(accounts_to_trim(&attempts[..15]).is_empty());
    }

    #[test]
    fn counts_and_failures_become_one_summary_per_account() {
        let count = |slug: &str, last_success, foreign_callbacks| CountRow {
            slug: slug.to_owned(),
            last_success,
            foreign_callbacks,
        };
        let failure = |slug: &str, reason: &str, failures| FailureRow {
            slug: slug.to_owned(),
            reason: reason.to_owned(),
            failures,
        };
        let summaries = summaries(
            vec![count("acme", Some(7), 2), count("not a slug", None, 1)],
            vec![
                failure("acme", "CLAIM_MISSING", 3),
                failure("acme", "ADDED_LATER", 1),
                failure("acme", "INTERNAL", 1),
                failure("beta", "CLAIM_MISSING", i64::MAX),
            ],
        );
        let acme = LoginSummary {
            last_success: Some(UnixMillis(7)),
            failures: [(Reason::ClaimMissing, 3), (Reason::Internal, 2)].into(),
            unrecognized_callbacks: 2,
        };
        let beta = LoginSummary {
            failures: [(Reason::ClaimMissing, u32::MAX)].into(),
            ..LoginSummary::default()
        };
        assert_eq!(summaries, [(slug("acme"), acme), (slug("beta"), beta)].into());
    }
}
