//! [`Connections`] in SQL. A change takes the next number of `change_counter` first, in the same
//! transaction: that row's lock makes changes visible in the order of their numbers.

use async_trait::async_trait;
use sqlx::FromRow;

use super::rows::{ConnectionRow, change_record, replaced_settings, to_json};
use super::statement::{Backend, Statement};
use super::{SqlStore, SqlTransaction, fetch_one, from_i64, saturating_i64};
use crate::model::check::CheckRecord;
use crate::model::connection::{Connection, ConnectionSettings, Issuer};
use crate::model::secret::ClientSecrets;
use crate::model::slug::Slug;
use crate::model::time::UnixMillis;
use crate::model::unreadable::StoredConnection;
use crate::store::{
    CHECKS_KEPT, ChangeDetails, ChangeError, Changes, ConnectionChange, Connections, Position,
    REVISIONS_KEPT, SlugChange, StoreError, StoredChange,
};

/// Named instead of `*`: a column added by a later version must not change the result of a statement
/// that is already prepared.
macro_rules! columns {
    () => {
        "slug, incarnation, revision, settings, pinned_issuer, client_secret, standby_secret, \
         secret_expire, standby_expire, secret_switched, last_check, last_proposal, \
         test_login_digest, test_login_time, create_time, update_time"
    };
}

/// A row of `connection_log`.
#[derive(FromRow)]
struct LogRow {
    id: i64,
    record: String,
}

/// A change after a position, with where the history ends and the mark that the position has in it. A
/// history without changes after the position has one row, without a change.
#[derive(FromRow)]
struct ChangeRow {
    latest: i64,
    seen_mark: Option<String>,
    change: Option<i64>,
    slug: Option<String>,
    mark: Option<String>,
}

/// Where the history ends.
#[derive(FromRow)]
struct LatestRow {
    latest: i64,
    mark: Option<String>,
}

impl<D: Backend> SqlStore<D> {
    /// Begins a change and returns its number.
    async fn begin_change(&self) -> Result<(SqlTransaction<D>, i64), StoreError> {
        let mut tx = self.begin().await?;
        let statement = Statement::new(
            "UPDATE change_counter SET latest = latest + 1 \
             WHERE id = 1 \
             RETURNING latest",
        );
        let (number,) = fetch_one::<D, (i64,)>(&mut tx, statement).await?;
        Ok((tx, number))
    }

    /// Commits a change: records it with the revision that results, and announces it to other replicas.
    async fn commit_change(
        &self,
        mut tx: SqlTransaction<D>,
        slug: &Slug,
        number: i64,
        revision: i64,
        details: &ChangeDetails,
    ) -> Result<(), StoreError> {
        let log = Statement::new(
            "INSERT INTO connection_log (slug, record, change, mark) \
             VALUES ($1, $2, $3, $4)",
        )
        .bind(slug)
        .bind(self.codec.change_record(details, revision)?)
        .bind(number)
        .bind(self.codec.mark());
        D::execute(&mut tx, log).await?;
        let announce = Statement::new(
            "INSERT INTO connection_changes (slug, change) VALUES ($1, $2) \
             ON CONFLICT (slug) DO UPDATE SET change = excluded.change",
        )
        .bind(slug)
        .bind(number);
        D::execute(&mut tx, announce).await?;
        tx.commit().await
    }

    async fn row(&self, slug: &Slug) -> Result<Option<ConnectionRow>, StoreError> {
        let statement =
            Statement::new(concat!("SELECT ", columns!(), " FROM connections WHERE slug = $1"))
                .bind(slug);
        Ok(self.fetch(statement).await?.pop())
    }

    /// Keeps this revision, which the transaction is about to replace.
    async fn keep_revision(
        tx: &mut SqlTransaction<D>,
        slug: &Slug,
        revision: u64,
    ) -> Result<(), StoreError> {
        let keep = Statement::new(
            "INSERT INTO connection_revisions ( \
                 slug, revision, settings, client_secret, standby_secret, secret_expire, standby_expire \
             ) SELECT \
                 slug, revision, settings, client_secret, standby_secret, secret_expire, standby_expire \
             FROM connections WHERE slug = $1 AND revision = $2 \
             ON CONFLICT (slug, revision) DO NOTHING",
        )
        .bind(slug)
        .bind(revision);
        D::execute(tx, keep).await?;
        let trim = Statement::new(
            "DELETE FROM connection_revisions \
             WHERE slug = $1 AND revision <= ( \
                 SELECT revision FROM connection_revisions \
                 WHERE slug = $1 \
                 ORDER BY revision DESC \
                 LIMIT 1 OFFSET $2 \
             )",
        )
        .bind(slug)
        .bind(REVISIONS_KEPT);
        D::execute(tx, trim).await.map(|_| ())
    }

    /// A connection that was written just now.
    fn written(&self, row: ConnectionRow) -> Result<Connection, StoreError> {
        self.codec.connection(row)?.map_err(StoreError::from)
    }

    /// Rolls back a change of a revision that is not the current one, and says why.
    async fn conflict_or_not_found(
        &self,
        tx: SqlTransaction<D>,
        slug: &Slug,
    ) -> Result<ChangeError, StoreError> {
        tx.rollback().await?;
        Ok(match self.row(slug).await? {
            Some(row) => ChangeError::Conflict { current: from_i64(row.revision) },
            None => ChangeError::NotFound,
        })
    }
}

#[async_trait]
impl<D: Backend> Connections for SqlStore<D> {
    async fn create(
        &self,
        slug: &Slug,
        settings: &ConnectionSettings,
        secrets: &ClientSecrets,
        details: &ChangeDetails,
    ) -> Result<Connection, ChangeError> {
        let (mut tx, number) = self.begin_change().await?;
        let insert = Statement::new(concat!(
            "INSERT INTO connections ( \
                 slug, incarnation, revision, settings, \
                 client_secret, standby_secret, secret_expire, standby_expire, \
                 create_time, update_time \
             ) VALUES ($1, $2, $2, $3, $4, $5, $6, $7, $8, $8) \
             ON CONFLICT (slug) DO NOTHING \
             RETURNING ",
            columns!()
        ))
        .bind(slug)
        .bind(number)
        .bind(to_json(settings)?)
        .bind(self.codec.seal_secret(slug, settings, &secrets.active))
        .bind(secrets.standby.as_ref().map(|it| self.codec.seal_secret(slug, settings, it)))
        .bind(secrets.active_expire)
        .bind(secrets.standby_expire)
        .bind(self.codec.now());
        let row = D::fetch(&mut tx, insert).await?.pop().ok_or(ChangeError::Exists)?;
        self.commit_change(tx, slug, number, number, details).await?;
        Ok(self.written(row)?)
    }

    async fn get(&self, slug: &Slug) -> Result<Option<StoredConnection>, StoreError> {
        self.row(slug).await?.map(|row| self.codec.connection(row)).transpose()
    }

    async fn list(
        &self,
        after: Option<&Slug>,
        limit: u32,
    ) -> Result<Vec<StoredConnection>, StoreError> {
        let page = Statement::new(concat!(
            "SELECT ",
            columns!(),
            " FROM connections \
             WHERE slug > $1 \
             ORDER BY slug \
             LIMIT $2"
        ))
        .bind(after.map_or("", Slug::as_str))
        .bind(limit);
        let rows: Vec<ConnectionRow> = self.fetch(page).await?;
        let readable = |row| {
            let read = self.codec.connection(row);
            read.inspect_err(|error| tracing::error!(%error, "passed over a connection")).ok()
        };
        Ok(rows.into_iter().filter_map(readable).collect())
    }

    async fn update(&self, change: &ConnectionChange<'_>) -> Result<Connection, ChangeError> {
        let ConnectionChange { slug, settings, secrets, .. } = change;
        let (mut tx, number) = self.begin_change().await?;
        let stored =
            Statement::new("SELECT settings FROM connections WHERE slug = $1 AND revision = $2")
                .bind(*slug)
                .bind(change.revision);
        let stored: Vec<(String,)> = D::fetch(&mut tx, stored).await?;
        let Some((stored,)) = stored.first() else {
            return Err(self.conflict_or_not_found(tx, slug).await?);
        };
        Self::keep_revision(&mut tx, slug, change.revision).await?;
        let update = Statement::new(concat!(
            "UPDATE connections SET \
                 revision = $1, \
                 settings = $2, \
                 pinned_issuer = CASE WHEN $3 THEN pinned_issuer ELSE NULL END, \
                 client_secret = $4, \
                 standby_secret = $5, \
                 secret_expire = $6, \
                 standby_expire = $7, \
                 update_time = $8 \
             WHERE slug = $9 AND revision = $10 \
             RETURNING ",
            columns!()
        ))
        .bind(number)
        .bind(replaced_settings(stored, settings)?)
        .bind(change.keep_pin)
        .bind(self.codec.seal_secret(slug, settings, &secrets.active))
        .bind(secrets.standby.as_ref().map(|it| self.codec.seal_secret(slug, settings, it)))
        .bind(secrets.active_expire)
        .bind(secrets.standby_expire)
        .bind(self.codec.now())
        .bind(*slug)
        .bind(change.revision);
        let Some(row) = D::fetch(&mut tx, update).await?.pop() else {
            return Err(self.conflict_or_not_found(tx, slug).await?);
        };
        self.commit_change(tx, slug, number, number, change.details).await?;
        Ok(self.written(row)?)
    }

    async fn earlier_revisions(&self, slug: &Slug) -> Result<Vec<u64>, StoreError> {
        let kept = Statement::new("SELECT revision FROM connection_revisions WHERE slug = $1");
        let rows: Vec<(i64,)> = self.fetch(kept.bind(slug)).await?;
        Ok(rows.into_iter().map(|(revision,)| from_i64(revision)).collect())
    }

    async fn earlier_revision(
        &self,
        slug: &Slug,
        revision: u64,
    ) -> Result<Option<StoredConnection>, StoreError> {
        let earlier = Statement::new(
            "SELECT kept.slug, now.incarnation, kept.revision, kept.settings, now.pinned_issuer, \
                 kept.client_secret, kept.standby_secret, kept.secret_expire, kept.standby_expire, \
                 now.secret_switched, now.last_check, now.last_proposal, now.test_login_digest, \
                 now.test_login_time, now.create_time, now.update_time \
             FROM connection_revisions kept JOIN connections now ON now.slug = kept.slug \
             WHERE kept.slug = $1 AND kept.revision = $2",
        )
        .bind(slug)
        .bind(revision);
        let row = self.fetch(earlier).await?.pop();
        row.map(|row| self.codec.connection(row)).transpose()
    }

    async fn delete(
        &self,
        slug: &Slug,
        revision: u64,
        details: &ChangeDetails,
    ) -> Result<(), ChangeError> {
        let (mut tx, number) = self.begin_change().await?;
        let delete = Statement::new("DELETE FROM connections WHERE slug = $1 AND revision = $2")
            .bind(slug)
            .bind(revision);
        if D::execute(&mut tx, delete).await? == 0 {
            return Err(self.conflict_or_not_found(tx, slug).await?);
        }
        for delete in [
            "DELETE FROM login_counts WHERE slug = $1",
            "DELETE FROM login_hours WHERE slug = $1",
            "DELETE FROM login_attempts WHERE slug = $1",
            "DELETE FROM connection_revisions WHERE slug = $1",
            "DELETE FROM idp_documents WHERE slug = $1",
        ] {
            D::execute(&mut tx, Statement::new(delete).bind(slug)).await?;
        }
        Ok(self.commit_change(tx, slug, number, 0, details).await?)
    }

    async fn switch_secret(
        &self,
        slug: &Slug,
        revision: u64,
        details: &ChangeDetails,
    ) -> Result<bool, StoreError> {
        let (mut tx, number) = self.begin_change().await?;
        Self::keep_revision(&mut tx, slug, revision).await?;
        // Every expression sees the values before the update, so the columns swap.
        let switch = Statement::new(
            "UPDATE connections SET \
                 client_secret = standby_secret, \
                 standby_secret = client_secret, \
                 secret_expire = standby_expire, \
                 standby_expire = secret_expire, \
                 secret_switched = $1, \
                 revision = $2 \
             WHERE slug = $3 AND revision = $4 \
                 AND standby_secret IS NOT NULL \
                 AND (standby_expire IS NULL OR standby_expire > $1)",
        )
        .bind(self.codec.now())
        .bind(number)
        .bind(slug)
        .bind(revision);
        if D::execute(&mut tx, switch).await? == 0 {
            tx.rollback().await?;
            return Ok(false);
        }
        self.commit_change(tx, slug, number, number, details).await?;
        Ok(true)
    }

    async fn record_check(
        &self,
        slug: &Slug,
        incarnation: u64,
        check: &CheckRecord,
        is_proposal: bool,
        details: &ChangeDetails,
    ) -> Result<(), StoreError> {
        let sql = if is_proposal {
            "UPDATE connections SET last_proposal = $1 WHERE slug = $2 AND incarnation = $3"
        } else {
            "UPDATE connections SET last_check = $1 WHERE slug = $2 AND incarnation = $3"
        };
        let mut tx = self.begin().await?;
        let record = Statement::new(sql).bind(to_json(check)?).bind(slug).bind(incarnation);
        D::execute(&mut tx, record).await?;
        let log = Statement::new(
            "INSERT INTO connection_log (slug, record, is_check) VALUES ($1, $2, TRUE)",
        )
        .bind(slug)
        .bind(self.codec.change_record(details, saturating_i64(check.revision))?);
        D::execute(&mut tx, log).await?;
        let trim = Statement::new(
            "DELETE FROM connection_log \
             WHERE slug = $1 AND is_check AND id <= ( \
                 SELECT id FROM connection_log \
                 WHERE slug = $1 AND is_check \
                 ORDER BY id DESC \
                 LIMIT 1 OFFSET $2 \
             )",
        )
        .bind(slug)
        .bind(CHECKS_KEPT);
        D::execute(&mut tx, trim).await?;
        tx.commit().await
    }

    async fn changes_of(
        &self,
        slug: &Slug,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<StoredChange>, StoreError> {
        let page = Statement::new(
            "SELECT id, record FROM connection_log \
             WHERE slug = $1 AND id < $2 \
             ORDER BY id DESC \
             LIMIT $3",
        )
        .bind(slug)
        .bind(before.unwrap_or(i64::MAX))
        .bind(limit);
        let rows: Vec<LogRow> = self.fetch(page).await?;
        let stored = |LogRow { id, record }| StoredChange { id, record: change_record(&record) };
        Ok(rows.into_iter().map(stored).collect())
    }

    async fn secrets_expiring_before(&self, time: UnixMillis) -> Result<u64, StoreError> {
        let count = Statement::new(
            "SELECT COUNT(*) FROM connections \
             WHERE secret_expire < $1 OR standby_expire < $1",
        )
        .bind(time);
        let (count,): (i64,) = self.fetch_one(count).await?;
        Ok(from_i64(count))
    }

    async fn pin_issuer(
        &self,
        slug: &Slug,
        revision: u64,
        issuer: &Issuer,
        details: &ChangeDetails,
    ) -> Result<(), StoreError> {
        let (mut tx, number) = self.begin_change().await?;
        let pin = Statement::new(
            "UPDATE connections SET pinned_issuer = $1 \
             WHERE slug = $2 AND revision = $3 AND pinned_issuer IS NULL",
        )
        .bind(issuer.as_str())
        .bind(slug)
        .bind(revision);
        if D::execute(&mut tx, pin).await? == 0 {
            return tx.rollback().await;
        }
        self.commit_change(tx, slug, number, saturating_i64(revision), details).await
    }

    async fn latest_change(&self) -> Result<Position, StoreError> {
        let latest = Statement::new(
            "SELECT latest, ( \
                 SELECT mark FROM connection_log \
                 WHERE change = latest \
                 ORDER BY id DESC LIMIT 1 \
             ) AS mark \
             FROM change_counter WHERE id = 1",
        );
        let LatestRow { latest, mark } = self.fetch_one(latest).await?;
        Ok(Position { change: from_i64(latest), mark })
    }

    async fn changes_since(&self, seen: &Position) -> Result<Changes, StoreError> {
        // One statement, so that all its parts see the same state of the database.
        let page = Statement::new(
            "SELECT counter.latest, \
                 ( \
                     SELECT mark FROM connection_log \
                     WHERE change = $1 \
                     ORDER BY id DESC LIMIT 1 \
                 ) AS seen_mark, \
                 changed.change, \
                 changed.slug, \
                 ( \
                     SELECT mark FROM connection_log \
                     WHERE change = changed.change \
                     ORDER BY id DESC LIMIT 1 \
                 ) AS mark \
             FROM change_counter counter \
             LEFT JOIN connection_changes changed ON changed.change > $1 \
             WHERE counter.id = 1 \
             ORDER BY changed.change \
             LIMIT 1000",
        )
        .bind(seen.change);
        let rows: Vec<ChangeRow> = self.fetch(page).await?;
        let is_other = |row: &ChangeRow| {
            from_i64(row.latest) < seen.change || seen.mark.is_some() && row.seen_mark != seen.mark
        };
        if rows.first().is_none_or(is_other) {
            return Ok(Changes::OtherHistory(self.latest_change().await?));
        }
        let change = |row: ChangeRow| {
            let position = Position { change: from_i64(row.change?), mark: row.mark };
            Some(SlugChange { position, slug: Slug::parse(&row.slug?)? })
        };
        Ok(Changes::Following(rows.into_iter().filter_map(change).collect()))
    }
}
