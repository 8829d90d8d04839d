//! [`LoginAttempts`] in SQL. A batch locks the counts of each of its accounts first, in the order of slugs,
//! so that no two batches wait for each other, whatever they fold.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::FromRow;

use super::folds::{Fold, folded};
use super::rows::{from_json, millis, to_json};
use super::statement::{Backend, Statement};
use super::{SqlStore, SqlTransaction, from_i64};
use crate::model::attempt::{
    AttemptQuery, LoginCounts, LoginSummary, LoginTally, RecordedAttempt, Unreturned, hour_of,
};
use crate::model::reason::Reason;
use crate::model::slug::Slug;
use crate::model::time::UnixMillis;
use crate::store::{
    ATTEMPTS_KEPT, AccountAttempt, AttemptBatch, LoginAttempts, ProvenLogin, REFUSALS_KEPT,
    StoreError, TRACES_KEPT,
};

/// A row of `login_attempts`.
#[derive(FromRow)]
struct AttemptRow {
    slug: String,
    time: i64,
    count: i64,
    last_time: Option<i64>,
    attempt: String,
}

/// A row of `login_counts`, or the sum of all.
#[derive(FromRow)]
struct CountRow {
    slug: String,
    last_success: Option<i64>,
    foreign_callbacks: i64,
    unreturned: i64,
    unreturned_since: Option<i64>,
}

/// How many logins of an account were refused for one reason.
#[derive(FromRow)]
struct FailureRow {
    slug: String,
    reason: String,
    failures: i64,
}

/// The sum of an account's rows of `login_hours`.
#[derive(FromRow)]
struct HoursRow {
    slug: String,
    begun: i64,
    returned: i64,
    completed: i64,
    refused: i64,
}

/// The query for attempts, without its conditions and with them.
macro_rules! attempts_where {
    ($condition:literal, $limit:literal) => {
        concat!(
            "SELECT slug, time, count, last_time, attempt FROM login_attempts WHERE ",
            $condition,
            " ORDER BY COALESCE(last_time, time) DESC, id DESC LIMIT ",
            $limit
        )
    };
}

/// The sum of the rows of `login_hours`, as the columns of [`HoursRow`].
macro_rules! sum_of_hours {
    () => {
        "CAST(COALESCE(SUM(begun), 0) AS BIGINT) AS begun, \
         CAST(COALESCE(SUM(returned), 0) AS BIGINT) AS returned, \
         CAST(COALESCE(SUM(completed), 0) AS BIGINT) AS completed, \
         CAST(COALESCE(SUM(refused), 0) AS BIGINT) AS refused"
    };
}

#[async_trait]
impl<D: Backend> LoginAttempts for SqlStore<D> {
    async fn add_attempts(&self, batch: &AttemptBatch) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        // As a deletion does: rows of `connections` are locked first, then those of `login_counts`, and each
        // in the order of slugs.
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
        for (slug, counts) in counts_by_account(batch) {
            add_counts(&mut tx, slug, &counts).await?;
        }
        for fold in folded(&batch.attempts) {
            add_attempt(&mut tx, &fold).await?;
        }
        for slug in accounts_to_trim(&batch.attempts) {
            trim(&mut tx, slug).await?;
        }
        tx.commit().await
    }

    async fn attempts(&self, query: &AttemptQuery) -> Result<Vec<RecordedAttempt>, StoreError> {
        let reason = query.reason.map_or("", Reason::name);
        let since = query.since.unwrap_or_default();
        let statement = match (&query.trace_id, &query.slug) {
            // An older version wrote the trace id into the attempt alone.
            (Some(trace_id), slug) => Statement::new(attempts_where!(
                "id IN ( \
                     SELECT id FROM login_attempts WHERE trace_id = $1 \
                     UNION SELECT attempt_id FROM attempt_traces WHERE trace_id = $1 \
                     UNION SELECT id FROM login_attempts WHERE trace_id IS NULL AND attempt LIKE $2 \
                 ) AND ($3 = '' OR slug = $3) AND ($4 = '' OR reason = $4) \
                 AND COALESCE(last_time, time) >= $5",
                "$6"
            ))
            .bind(trace_id.as_str())
            .bind(format!("%\"trace_id\":\"{trace_id}\"%"))
            .bind(slug.as_ref().map_or("", Slug::as_str))
            .bind(reason),
            (None, Some(slug)) => Statement::new(attempts_where!(
                "slug = $1 AND ($2 = '' OR reason = $2) AND COALESCE(last_time, time) >= $3",
                "$4"
            ))
            .bind(slug)
            .bind(reason),
            (None, None) if query.reason.is_some() => Statement::new(attempts_where!(
                "reason = $1 AND COALESCE(last_time, time) >= $2",
                "$3"
            ))
            .bind(reason),
            (None, None) => {
                Statement::new(attempts_where!("COALESCE(last_time, time) >= $1", "$2"))
            }
        };
        let rows: Vec<AttemptRow> = self.fetch(statement.bind(since).bind(query.limit)).await?;
        let mut attempts: Vec<_> = rows.into_iter().filter_map(recorded).collect();
        if let Some(trace_id) = &query.trace_id {
            attempts.iter_mut().for_each(|it| it.attempt.trace_id.clone_from(trace_id));
        }
        Ok(attempts)
    }

    async fn login_summaries(
        &self,
        first: &Slug,
        last: &Slug,
        now: UnixMillis,
    ) -> Result<HashMap<Slug, LoginSummary>, StoreError> {
        let between = |sql| Statement::new(sql).bind(first).bind(last);
        let counts = between(
            "SELECT slug, last_success, foreign_callbacks, unreturned, unreturned_since \
             FROM login_counts WHERE slug >= $1 AND slug <= $2",
        );
        let failures = between(
            "SELECT slug, reason, CAST(SUM(count) AS BIGINT) AS failures FROM login_attempts \
             WHERE slug >= $1 AND slug <= $2 AND COALESCE(last_time, time) >= $3 AND reason <> '' \
             GROUP BY slug, reason",
        );
        let hours = between(concat!(
            "SELECT slug, ",
            sum_of_hours!(),
            " FROM login_hours WHERE slug >= $1 AND slug <= $2 AND hour >= $3 GROUP BY slug"
        ));
        let since = now.before(DAY);
        Ok(summaries(
            self.fetch(counts).await?,
            self.fetch(failures.bind(since)).await?,
            self.fetch(hours.bind(hour_of(since))).await?,
        ))
    }

    async fn login_totals(&self, now: UnixMillis) -> Result<LoginSummary, StoreError> {
        // As rows of one account.
        let counts = Statement::new(
            "SELECT 'all' AS slug, MAX(last_success) AS last_success, \
                 CAST(COALESCE(SUM(foreign_callbacks), 0) AS BIGINT) AS foreign_callbacks, \
                 CAST(0 AS BIGINT) AS unreturned, CAST(NULL AS BIGINT) AS unreturned_since \
             FROM login_counts",
        );
        let failures = Statement::new(
            "SELECT 'all' AS slug, reason, CAST(SUM(count) AS BIGINT) AS failures \
             FROM login_attempts \
             WHERE COALESCE(last_time, time) >= $1 AND reason <> '' \
             GROUP BY reason",
        );
        let hours = Statement::new(concat!(
            "SELECT 'all' AS slug, ",
            sum_of_hours!(),
            " FROM login_hours WHERE hour >= $1"
        ));
        let since = now.before(DAY);
        let totals = summaries(
            self.fetch(counts).await?,
            self.fetch(failures.bind(since)).await?,
            self.fetch(hours.bind(hour_of(since))).await?,
        );
        Ok(totals.into_values().next().unwrap_or_default())
    }

    async fn forget_attempts_before(
        &self,
        attempts: UnixMillis,
        hours: UnixMillis,
    ) -> Result<(), StoreError> {
        let delete = Statement::new("DELETE FROM login_attempts WHERE time < $1").bind(attempts);
        self.execute(delete).await?;
        let delete = Statement::new("DELETE FROM login_hours WHERE hour < $1").bind(hour_of(hours));
        self.execute(delete).await.map(|_| ())
    }
}

/// Selected from `connections`, as everything here: nothing is kept of an account without a connection.
async fn add_counts<D: Backend>(
    tx: &mut SqlTransaction<D>,
    slug: &Slug,
    AddedCounts { tally, unrecognized }: &AddedCounts,
) -> Result<(), StoreError> {
    // Replicas write a begin and the return of the same login in any order: what began before the last
    // return has returned, or is as good as that.
    let count = Statement::new(
        "INSERT INTO login_counts ( \
             slug, last_success, foreign_callbacks, last_return, unreturned, unreturned_since \
         ) SELECT slug, $2, $3, $4, $5, $6 FROM connections WHERE slug = $1 \
         ON CONFLICT (slug) DO UPDATE SET \
             last_success = COALESCE(excluded.last_success, login_counts.last_success), \
             foreign_callbacks = login_counts.foreign_callbacks + excluded.foreign_callbacks, \
             last_return = COALESCE(excluded.last_return, login_counts.last_return), \
             unreturned = CASE \
                 WHEN excluded.last_return >= \
                     COALESCE(login_counts.unreturned_since, excluded.last_return) \
                     THEN excluded.unreturned \
                 WHEN excluded.unreturned_since < login_counts.last_return \
                     THEN login_counts.unreturned \
                 ELSE login_counts.unreturned + excluded.unreturned END, \
             unreturned_since = CASE \
                 WHEN excluded.last_return >= \
                     COALESCE(login_counts.unreturned_since, excluded.last_return) \
                     THEN excluded.unreturned_since \
                 WHEN excluded.unreturned_since < login_counts.last_return \
                     THEN login_counts.unreturned_since \
                 ELSE COALESCE(login_counts.unreturned_since, excluded.unreturned_since) END",
    )
    .bind(slug)
    .bind(tally.last_success)
    .bind(*unrecognized)
    .bind(tally.last_return)
    .bind(tally.unreturned.map_or(0, |unreturned| unreturned.count))
    .bind(tally.unreturned.map(|unreturned| unreturned.since));
    D::execute(tx, count).await?;
    let LoginCounts { begun, returned, completed, refused } = tally.counts;
    if tally.counts == LoginCounts::default() {
        return Ok(());
    }
    let count = Statement::new(
        "INSERT INTO login_hours (slug, hour, begun, returned, completed, refused) \
         SELECT slug, $2, $3, $4, $5, $6 FROM connections WHERE slug = $1 \
         ON CONFLICT (slug, hour) DO UPDATE SET \
             begun = login_hours.begun + excluded.begun, \
             returned = login_hours.returned + excluded.returned, \
             completed = login_hours.completed + excluded.completed, \
             refused = login_hours.refused + excluded.refused",
    )
    .bind(slug)
    .bind(hour_of(tally.time))
    .bind(begun)
    .bind(returned)
    .bind(completed)
    .bind(refused);
    D::execute(tx, count).await.map(|_| ())
}

async fn add_attempt<D: Backend>(
    tx: &mut SqlTransaction<D>,
    fold: &Fold<'_>,
) -> Result<(), StoreError> {
    let add = Statement::new(
        "INSERT INTO login_attempts ( \
             slug, time, reason, attempt, count, last_time, fold_key, trace_id \
         ) SELECT slug, $2, $3, $4, $5, $6, $7, $8 FROM connections WHERE slug = $1 \
         ON CONFLICT (fold_key) DO UPDATE SET \
             attempt = excluded.attempt, \
             count = login_attempts.count + excluded.count, \
             last_time = excluded.last_time \
         RETURNING id, count",
    )
    .bind(fold.slug)
    .bind(fold.first_time)
    .bind(fold.latest.reason.map_or("", Reason::name))
    .bind(to_json(fold.latest)?)
    .bind(fold.count)
    .bind(fold.latest.time)
    .bind(fold.key.clone())
    .bind(fold.first_trace_id);
    let Some((id, count)) = D::fetch::<(i64, i64)>(tx, add).await?.pop() else { return Ok(()) };
    // The row has the trace id of its first.
    let was_there = from_i64(count) > fold.count;
    let first = was_there.then_some(&fold.first_trace_id);
    for trace_id in first.into_iter().chain(&fold.other_trace_ids) {
        let add =
            Statement::new("INSERT INTO attempt_traces (attempt_id, trace_id) VALUES ($1, $2)")
                .bind(id)
                .bind(*trace_id);
        D::execute(tx, add).await?;
    }
    Ok(())
}

/// Deletes an account's attempts, and trace ids of them, that exceed what is kept.
async fn trim<D: Backend>(tx: &mut SqlTransaction<D>, slug: &Slug) -> Result<(), StoreError> {
    // First: one reason, such as a stranger's error callbacks, must not push out the others.
    let share = Statement::new(
        "DELETE FROM login_attempts WHERE id IN ( \
             SELECT id FROM ( \
                 SELECT id, ROW_NUMBER() OVER ( \
                     PARTITION BY reason ORDER BY COALESCE(last_time, time) DESC, id DESC \
                 ) AS place \
                 FROM login_attempts WHERE slug = $1 AND reason <> '' \
             ) AS ranked \
             WHERE place > $2 \
         )",
    );
    D::execute(tx, share.bind(slug).bind(REFUSALS_KEPT)).await?;
    let rest = Statement::new(
        "DELETE FROM login_attempts WHERE id IN ( \
             SELECT id FROM ( \
                 SELECT id, ROW_NUMBER() OVER ( \
                     ORDER BY COALESCE(last_time, time) DESC, id DESC \
                 ) AS place \
                 FROM login_attempts WHERE slug = $1 \
             ) AS ranked \
             WHERE place > $2 \
         )",
    );
    D::execute(tx, rest.bind(slug).bind(ATTEMPTS_KEPT)).await?;
    // The latest of each attempt stays, since it is the one that is shown.
    let traces = Statement::new(
        "DELETE FROM attempt_traces WHERE id IN ( \
             SELECT id FROM ( \
                 SELECT \
                     trace.id, \
                     ROW_NUMBER() OVER (PARTITION BY reason ORDER BY trace.id DESC) AS place, \
                     ROW_NUMBER() OVER (PARTITION BY attempt_id ORDER BY trace.id DESC) AS own_place \
                 FROM attempt_traces trace JOIN login_attempts attempt ON attempt.id = attempt_id \
                 WHERE slug = $1 \
             ) AS ranked \
             WHERE place > $2 AND own_place > 1 \
         )",
    );
    D::execute(tx, traces.bind(slug).bind(TRACES_KEPT)).await.map(|_| ())
}

/// One of another version, which can't be read, hides no other.
fn recorded(row: AttemptRow) -> Option<RecordedAttempt> {
    let attempt = from_json(&row.attempt);
    let attempt =
        attempt.inspect_err(|error| tracing::warn!(%error, "passed over a login attempt"));
    Some(RecordedAttempt {
        slug: Slug::parse(&row.slug)?,
        attempt: attempt.ok()?,
        count: from_i64(row.count),
        first_time: millis(row.time),
        last_time: millis(row.last_time.unwrap_or(row.time)),
    })
}

/// What a batch adds to the counts of an account.
#[derive(Debug, Default, PartialEq, Eq)]
struct AddedCounts {
    tally: LoginTally,
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
    for (slug, tally) in &batch.tallies {
        counts.entry(slug).or_default().tally = *tally;
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
fn summaries(
    counts: Vec<CountRow>,
    failures: Vec<FailureRow>,
    hours: Vec<HoursRow>,
) -> HashMap<Slug, LoginSummary> {
    let mut summaries: HashMap<Slug, LoginSummary> = HashMap::new();
    for row in counts {
        let Some(slug) = Slug::parse(&row.slug) else { continue };
        let summary = summaries.entry(slug).or_default();
        summary.last_success = row.last_success.map(millis);
        summary.unrecognized_callbacks = from_i64(row.foreign_callbacks);
        let since = row.unreturned_since.map(millis);
        let count = from_i64(row.unreturned);
        summary.unreturned = since.map(|since| Unreturned { count, since });
    }
    for row in failures {
        let Some(slug) = Slug::parse(&row.slug) else { continue };
        let reason = Reason::parse(&row.reason).unwrap_or(Reason::Internal);
        let failures = summaries.entry(slug).or_default().failures.entry(reason).or_default();
        let added = u32::try_from(row.failures).unwrap_or(u32::MAX);
        *failures = failures.saturating_add(added);
    }
    for row in hours {
        let Some(slug) = Slug::parse(&row.slug) else { continue };
        summaries.entry(slug).or_default().day = LoginCounts {
            begun: from_i64(row.begun),
            returned: from_i64(row.returned),
            completed: from_i64(row.completed),
            refused: from_i64(row.refused),
        };
    }
    summaries
}

/// The time of which failures are counted.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const TRIM_ONE_IN: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::attempt::Attempt;

    fn slug(text: &str) -> Slug {
        Slug::parse(text).expect("a slug")
    }

    fn completed(account: &str, time: u64) -> AccountAttempt {
        let attempt = Attempt {
            time: UnixMillis(time),
            stage: None,
            reason: None,
            cause: None,
            trace_id: String::new(),
            idp_error: None,
            idp_error_description: None,
            document: None,
            detail: None,
            claims_present: None,
            issuer: None,
            phases: Vec::new(),
            is_test: false,
        };
        AccountAttempt { slug: slug(account), attempt }
    }

    #[test]
    fn a_batch_is_counted_by_account() {
        let tally = LoginTally { last_success: Some(UnixMillis(3)), ..LoginTally::default() };
        let batch = AttemptBatch {
            tallies: [(slug("acme"), tally)].into(),
            unrecognized: [(slug("acme"), 2), (slug("gamma"), 5)].into(),
            ..AttemptBatch::default()
        };
        let (acme, gamma) = (slug("acme"), slug("gamma"));
        let expected = [
            (&acme, AddedCounts { tally, unrecognized: 2 }),
            (&gamma, AddedCounts { tally: LoginTally::default(), unrecognized: 5 }),
        ];
        assert_eq!(counts_by_account(&batch), expected.into());
    }

    #[test]
    fn accounts_are_trimmed_at_one_of_sixteen_attempts() {
        let attempts: Vec<_> = (1..=32)
            .map(|time| completed(if time <= 15 { "acme" } else { "beta" }, time))
            .collect();
        assert_eq!(accounts_to_trim(&attempts), [&slug("beta")].into());
        assert!(accounts_to_trim(&attempts[..15]).is_empty());
    }

    #[test]
    fn counts_failures_and_hours_become_one_summary_per_account() {
        let count = |slug: &str, last_success, foreign_callbacks| CountRow {
            slug: slug.to_owned(),
            last_success,
            foreign_callbacks,
            unreturned: 3,
            unreturned_since: last_success,
        };
        let failure = |slug: &str, reason: &str, failures| FailureRow {
            slug: slug.to_owned(),
            reason: reason.to_owned(),
            failures,
        };
        let hours = |slug: &str| HoursRow {
            slug: slug.to_owned(),
            begun: 4,
            returned: 3,
            completed: 2,
            refused: 1,
        };
        let summaries = summaries(
            vec![count("acme", Some(7), 2), count("gamma", None, 0), count("not a slug", None, 1)],
            vec![
                failure("acme", "CLAIM_MISSING", 3),
                failure("acme", "ADDED_LATER", 1),
                failure("acme", "INTERNAL", 1),
                failure("beta", "CLAIM_MISSING", i64::MAX),
            ],
            vec![hours("acme"), hours("not a slug")],
        );
        let acme = LoginSummary {
            last_success: Some(UnixMillis(7)),
            failures: [(Reason::ClaimMissing, 3), (Reason::Internal, 2)].into(),
            unrecognized_callbacks: 2,
            day: LoginCounts { begun: 4, returned: 3, completed: 2, refused: 1 },
            unreturned: Some(Unreturned { count: 3, since: UnixMillis(7) }),
        };
        let beta = LoginSummary {
            failures: [(Reason::ClaimMissing, u32::MAX)].into(),
            ..LoginSummary::default()
        };
        let gamma = LoginSummary::default();
        let expected = [(slug("acme"), acme), (slug("beta"), beta), (slug("gamma"), gamma)];
        assert_eq!(summaries, expected.into());
    }
}
