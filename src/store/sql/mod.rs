//! Connections in SQL: the statements and rows that SQLite and PostgreSQL share, as a macro over the pool's type, since
//! sqlx's traits can't say "either". Client secrets are sealed here, bound to their row and column.

pub mod postgres;
pub mod sqlite;

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::model::attempt::TestLogin;
use crate::model::change::ChangeRecord;
use crate::model::connection::{Connection, ConnectionSettings, Issuer};
use crate::model::secret::{ClientSecret, ClientSecrets};
use crate::model::slug::Slug;
use crate::model::time::{UnixMillis, UnixSeconds};
use crate::store::seal::{CannotOpen, Keyring};
use crate::store::{ChangeDetails, StoreError, StoredSigningKey};
use crate::telemetry::store_failed;

/// What turns rows into connections and back.
#[derive(Clone)]
pub struct RowCodec {
    /// Seals and opens the secrets.
    pub keyring: Arc<Keyring>,
    /// For the seal's nonces.
    pub entropy: Arc<dyn Entropy>,
    /// For the times of a change.
    pub clock: Arc<dyn Clock>,
}

/// A row of `connections`.
#[derive(sqlx::FromRow)]
pub(super) struct Row {
    slug: String,
    incarnation: i64,
    pub(super) revision: i64,
    settings: String,
    pinned_issuer: Option<String>,
    client_secret: Vec<u8>,
    standby_secret: Option<Vec<u8>>,
    secret_expire: Option<i64>,
    standby_expire: Option<i64>,
    secret_switched: Option<i64>,
    last_check: Option<String>,
    last_proposal: Option<String>,
    test_login_digest: Option<String>,
    test_login_time: Option<i64>,
    create_time: i64,
    update_time: i64,
}

impl RowCodec {
    pub(super) fn connection(&self, row: Row) -> Result<Connection, StoreError> {
        let slug = Slug::parse(&row.slug)
            .ok_or_else(|| StoreError::Unreadable("its slug isn't one".to_owned()))?;
        let unreadable = |what: &str| StoreError::Unreadable(format!("{slug}: {what}"));
        let settings: ConnectionSettings = serde_json::from_str(&row.settings)
            .map_err(|error| unreadable(&format!("settings: {error}")))?;
        let opened = |sealed: &[u8]| -> Result<ClientSecret, StoreError> {
            let secret = self.keyring.open(&secret_context(slug.as_str()), sealed);
            let secret = secret.map_err(|error| unreadable(&format!("client secret: {error}")))?;
            let secret =
                std::str::from_utf8(&secret).map_err(|_| unreadable("client secret: not text"))?;
            Ok(ClientSecret::from_store(secret.to_owned()))
        };
        let secrets = ClientSecrets {
            active: opened(&row.client_secret)?,
            active_expire: row.secret_expire.map(time_from_sql),
            standby: row.standby_secret.as_deref().map(opened).transpose()?,
            standby_expire: row.standby_expire.map(time_from_sql),
        };
        let check = |text: &Option<String>| {
            let check = text.as_deref().map(serde_json::from_str).transpose();
            check.map_err(|error| unreadable(&format!("a check: {error}")))
        };
        let (last_check, last_proposal) = (check(&row.last_check)?, check(&row.last_proposal)?);
        Ok(Connection {
            incarnation: from_sql(row.incarnation),
            revision: from_sql(row.revision),
            settings,
            pinned_issuer: row.pinned_issuer.map(Issuer::new),
            secrets,
            secret_switched: row.secret_switched.map(time_from_sql),
            last_check,
            last_proposal,
            test_login: row
                .test_login_digest
                .zip(row.test_login_time)
                .map(|(proof, time)| TestLogin { proof, time: time_from_sql(time) }),
            create_time: time_from_sql(row.create_time),
            update_time: time_from_sql(row.update_time),
            slug,
        })
    }

    pub(super) fn sealed(&self, slug: &Slug, secret: &ClientSecret) -> Vec<u8> {
        self.keyring.seal(
            self.entropy.as_ref(),
            &secret_context(slug.as_str()),
            secret.expose().as_bytes(),
        )
    }

    /// What a change leaves in the log.
    pub(super) fn record(
        &self,
        details: &ChangeDetails,
        revision: i64,
    ) -> Result<String, StoreError> {
        let record = ChangeRecord {
            time: self.clock.unix_millis(),
            actor: details.actor.clone(),
            action: details.action.to_owned(),
            revision: from_sql(revision),
            fields: details.fields.clone(),
            is_forced: details.is_forced,
        };
        to_json(&record)
    }

    pub(super) fn signing_key(
        &self,
        row: (i64, i64, Vec<u8>),
    ) -> Result<StoredSigningKey, StoreError> {
        let (generation, create_time, sealed) = row;
        let opened = self.keyring.open(&signing_key_context(generation), &sealed);
        let pkcs8 = opened.map_err(|error| {
            StoreError::Unreadable(format!("signing key {generation}: {error}"))
        })?;
        Ok(StoredSigningKey {
            generation: from_sql(generation),
            created_at: UnixSeconds(from_sql(create_time)),
            pkcs8,
        })
    }

    pub(super) fn sealed_signing_key(&self, key: &StoredSigningKey) -> Vec<u8> {
        self.keyring.seal(
            self.entropy.as_ref(),
            &signing_key_context(to_sql(key.generation)),
            &key.pkcs8,
        )
    }

    /// The same value under the newest key; `None`: it is under it already.
    pub(super) fn resealed(
        &self,
        context: &str,
        sealed: &[u8],
    ) -> Result<Option<Vec<u8>>, CannotOpen> {
        if self.keyring.is_newest(sealed) {
            return Ok(None);
        }
        let opened = self.keyring.open(context, sealed)?;
        Ok(Some(self.keyring.seal(self.entropy.as_ref(), context, &opened)))
    }

    pub(super) fn now(&self) -> i64 {
        to_sql(self.clock.unix_millis().0)
    }
}

pub(super) fn to_json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unreadable(error.to_string()))
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Unreadable(error.to_string()))
}

pub(super) fn unavailable(store: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| {
        store_failed(store);
        StoreError::Unavailable { store, detail: error.to_string() }
    }
}

pub(super) fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn time_to_sql(time: UnixMillis) -> i64 {
    to_sql(time.0)
}

pub(super) fn time_from_sql(millis: i64) -> UnixMillis {
    UnixMillis(from_sql(millis))
}

pub(super) fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// Where a sealed value stands: the context under which it was sealed.
pub(super) fn secret_context(slug: &str) -> String {
    format!("connections/{slug}/client_secret")
}

pub(super) fn signing_key_context(generation: i64) -> String {
    format!("signing_keys/{generation}/private_key")
}

/// Named, not `*`: what a later version adds must not change the shape of a statement that is prepared already.
macro_rules! columns {
    () => {
        "slug, incarnation, revision, settings, pinned_issuer, client_secret, standby_secret, secret_expire, standby_expire, secret_switched, last_check, last_proposal, test_login_digest, test_login_time, create_time, update_time"
    };
}

pub(super) const NEXT_CHANGE: &str =
    "UPDATE change_counter SET latest = latest + 1 WHERE id = 1 RETURNING latest";
pub(super) const RECORD_CHANGE: &str = "INSERT INTO connection_changes (slug, change) VALUES ($1, $2) \
     ON CONFLICT (slug) DO UPDATE SET change = excluded.change";
pub(super) const INSERT: &str = concat!(
    "INSERT INTO connections (slug, incarnation, revision, settings, client_secret, create_time, update_time, standby_secret, secret_expire, standby_expire) VALUES ($1, $2, $2, $3, $4, $5, $5, $6, $7, $8) ON CONFLICT (slug) DO NOTHING RETURNING ",
    columns!()
);
pub(super) const SELECT: &str = concat!("SELECT ", columns!(), " FROM connections WHERE slug = $1");
pub(super) const SELECT_PAGE: &str =
    concat!("SELECT ", columns!(), " FROM connections WHERE slug > $1 ORDER BY slug LIMIT $2");
pub(super) const UPDATE: &str = concat!(
    "UPDATE connections SET revision = $1, settings = $2, client_secret = $3, pinned_issuer = CASE WHEN $4 THEN pinned_issuer ELSE NULL END, update_time = $5, standby_secret = $8, secret_expire = $9, standby_expire = $10 WHERE slug = $6 AND revision = $7 RETURNING ",
    columns!()
);
pub(super) const DELETE: &str = "DELETE FROM connections WHERE slug = $1 AND revision = $2";
pub(super) const PIN_ISSUER: &str = "UPDATE connections SET pinned_issuer = $1 WHERE slug = $2 AND revision = $3 AND pinned_issuer IS NULL";
pub(super) const LOG: &str = "INSERT INTO connection_log (slug, record) VALUES ($1, $2)";
/// Each column takes the other's value of before.
pub(super) const SWITCH_SECRET: &str = "UPDATE connections SET client_secret = standby_secret, standby_secret = client_secret, \
     secret_expire = standby_expire, standby_expire = secret_expire, secret_switched = $1, revision = $2 \
     WHERE slug = $3 AND revision = $4 AND standby_secret IS NOT NULL AND (standby_expire IS NULL OR standby_expire > $1) \
     AND (secret_switched IS NULL OR secret_switched <= $5)";
pub(super) const RECORD_CHECK: &str =
    "UPDATE connections SET last_check = $1 WHERE slug = $2 AND incarnation = $3";
pub(super) const RECORD_PROPOSAL: &str =
    "UPDATE connections SET last_proposal = $1 WHERE slug = $2 AND incarnation = $3";
pub(super) const CHANGES_OF: &str =
    "SELECT id, record FROM connection_log WHERE slug = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
pub(super) const SECRETS_EXPIRING: &str =
    "SELECT COUNT(*) FROM connections WHERE secret_expire < $1 OR standby_expire < $1";
pub(super) const ADD_ATTEMPT: &str =
    "INSERT INTO login_attempts (slug, time, reason, attempt) VALUES ($1, $2, $3, $4)";
/// Of so many attempts one has its account's old ones cut.
pub(super) const CUT_ONE_IN: u64 = 16;
/// The latest ones stay.
pub(super) const CUT_ATTEMPTS: &str = "DELETE FROM login_attempts WHERE slug = $1 AND id <= \
     (SELECT id FROM login_attempts WHERE slug = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)";
pub(super) const COUNT_LOGINS: &str = "INSERT INTO login_counts (slug, last_success, foreign_callbacks) \
     SELECT slug, $2, $3 FROM connections WHERE slug = $1 ON CONFLICT (slug) DO UPDATE SET last_success = COALESCE(excluded.last_success, login_counts.last_success), \
     foreign_callbacks = login_counts.foreign_callbacks + excluded.foreign_callbacks";
pub(super) const RECORD_TEST: &str = "UPDATE connections SET test_login_digest = $1, test_login_time = $2 WHERE slug = $3 AND incarnation = $4";
pub(super) const ATTEMPTS: &str =
    "SELECT attempt FROM login_attempts WHERE slug = $1 ORDER BY id DESC LIMIT $2";
pub(super) const COUNTS: &str = "SELECT slug, last_success, foreign_callbacks FROM login_counts WHERE slug >= $1 AND slug <= $2";
pub(super) const FAILURES: &str = "SELECT slug, reason, COUNT(*) FROM login_attempts \
     WHERE slug >= $1 AND slug <= $2 AND time >= $3 AND reason <> '' GROUP BY slug, reason";
pub(super) const FORGET_ATTEMPTS: &str = "DELETE FROM login_attempts WHERE time < $1";
pub(super) const FORGET_ATTEMPTS_OF: &str = "DELETE FROM login_attempts WHERE slug = $1";
pub(super) const FORGET_COUNTS_OF: &str = "DELETE FROM login_counts WHERE slug = $1";

pub(super) const LATEST_CHANGE: &str = "SELECT latest FROM change_counter WHERE id = 1";
pub(super) const CHANGES_SINCE: &str =
    "SELECT change, slug FROM connection_changes WHERE change > $1 ORDER BY change LIMIT 1000";

pub(super) const SIGNING_KEYS: &str =
    "SELECT generation, create_time, private_key FROM signing_keys ORDER BY generation";
pub(super) const ADD_SIGNING_KEY: &str = "INSERT INTO signing_keys (generation, create_time, private_key) VALUES ($1, $2, $3) ON CONFLICT (generation) DO NOTHING";
pub(super) const FORGET_SIGNING_KEY: &str = "DELETE FROM signing_keys WHERE generation = $1";
pub(super) const SEALED_SECRETS: &str = "SELECT slug, client_secret, standby_secret FROM connections WHERE slug > $1 ORDER BY slug LIMIT 500";
/// Of either column: which one a value stands in can change meanwhile.
pub(super) const RESEAL_SECRET: &str = "UPDATE connections SET \
     client_secret = CASE WHEN client_secret = $3 THEN $1 ELSE client_secret END, \
     standby_secret = CASE WHEN standby_secret = $3 THEN $1 ELSE standby_secret END \
     WHERE slug = $2 AND (client_secret = $3 OR standby_secret = $3)";
pub(super) const RESEAL_SIGNING_KEY: &str =
    "UPDATE signing_keys SET private_key = $1 WHERE generation = $2 AND private_key = $3";
/// How often the store is gone through, until nothing is left to do.
pub(super) const RESEAL_PASSES: u32 = 5;

/// Implements [`Connections`](crate::store::Connections), [`SigningKeys`](crate::store::SigningKeys) and [`Reseal`](crate::store::Reseal) for a
/// type with fields `pool` and `codec`.
macro_rules! connections_in_sql {
    ($store:ty, $database:ty, $name:literal) => {
        impl $store {
            /// Ends the change with this number: it is told to other replicas, and recorded with the revision that holds from then on.
            async fn commit(
                &self,
                mut tx: sqlx::Transaction<'_, $database>,
                slug: &Slug,
                change: i64,
                revision: i64,
                details: &ChangeDetails,
            ) -> Result<(), StoreError> {
                let failed = sql::unavailable($name);
                let record = self.codec.record(details, revision)?;
                sqlx::query(sql::LOG).bind(slug.as_str()).bind(record).execute(&mut *tx).await.map_err(&failed)?;
                sqlx::query(sql::RECORD_CHANGE).bind(slug.as_str()).bind(change).execute(&mut *tx).await.map_err(&failed)?;
                tx.commit().await.map_err(&failed)
            }

            /// Why an update or delete of this revision met no row.
            async fn conflict_or_not_found(&self, slug: &Slug) -> Result<ChangeError, StoreError> {
                let row: Option<sql::Row> = sqlx::query_as(sql::SELECT)
                    .bind(slug.as_str())
                    .fetch_optional(&self.pool)
                    .await
                    .map_err(sql::unavailable($name))?;
                Ok(row.map_or(ChangeError::NotFound, |row| ChangeError::Conflict { current: sql::from_sql(row.revision) }))
            }
        }

        #[async_trait]
        impl Connections for $store {
            async fn create(
                &self,
                slug: &Slug,
                settings: &ConnectionSettings,
                secrets: &ClientSecrets,
                details: &ChangeDetails,
            ) -> Result<Connection, ChangeError> {
                let failed = sql::unavailable($name);
                let mut tx = self.pool.begin().await.map_err(&failed)?;
                let change: i64 = sqlx::query_scalar(sql::NEXT_CHANGE).fetch_one(&mut *tx).await.map_err(&failed)?;
                let row: Option<sql::Row> = sqlx::query_as(sql::INSERT)
                    .bind(slug.as_str())
                    .bind(change)
                    .bind(sql::to_json(settings)?)
                    .bind(self.codec.sealed(slug, &secrets.active))
                    .bind(self.codec.now())
                    .bind(secrets.standby.as_ref().map(|secret| self.codec.sealed(slug, secret)))
                    .bind(secrets.active_expire.map(sql::time_to_sql))
                    .bind(secrets.standby_expire.map(sql::time_to_sql))
                    .fetch_optional(&mut *tx)
                    .await
                    .map_err(&failed)?;
                let row = row.ok_or(ChangeError::Exists)?;
                self.commit(tx, slug, change, change, details).await?;
                Ok(self.codec.connection(row)?)
            }

            async fn get(&self, slug: &Slug) -> Result<Option<Connection>, StoreError> {
                let row: Option<sql::Row> = sqlx::query_as(sql::SELECT)
                    .bind(slug.as_str())
                    .fetch_optional(&self.pool)
                    .await
                    .map_err(sql::unavailable($name))?;
                row.map(|row| self.codec.connection(row)).transpose()
            }

            async fn list(&self, after: Option<&str>, limit: u32) -> Result<Vec<Connection>, StoreError> {
                let rows: Vec<sql::Row> = sqlx::query_as(sql::SELECT_PAGE)
                    .bind(after.unwrap_or_default())
                    .bind(i64::from(limit))
                    .fetch_all(&self.pool)
                    .await
                    .map_err(sql::unavailable($name))?;
                rows.into_iter().map(|row| self.codec.connection(row)).collect()
            }

            async fn update(&self, change: &ConnectionChange<'_>) -> Result<Connection, ChangeError> {
                let failed = sql::unavailable($name);
                let mut tx = self.pool.begin().await.map_err(&failed)?;
                let number: i64 = sqlx::query_scalar(sql::NEXT_CHANGE).fetch_one(&mut *tx).await.map_err(&failed)?;
                let row: Option<sql::Row> = sqlx::query_as(sql::UPDATE)
                    .bind(number)
                    .bind(sql::to_json(change.settings)?)
                    .bind(self.codec.sealed(change.slug, &change.secrets.active))
                    .bind(change.keep_pin)
                    .bind(self.codec.now())
                    .bind(change.slug.as_str())
                    .bind(sql::to_sql(change.revision))
                    .bind(change.secrets.standby.as_ref().map(|secret| self.codec.sealed(change.slug, secret)))
                    .bind(change.secrets.active_expire.map(sql::time_to_sql))
                    .bind(change.secrets.standby_expire.map(sql::time_to_sql))
                    .fetch_optional(&mut *tx)
                    .await
                    .map_err(&failed)?;
                let Some(row) = row else {
                    tx.rollback().await.map_err(&failed)?;
                    return Err(self.conflict_or_not_found(change.slug).await?);
                };
                self.commit(tx, change.slug, number, number, change.details).await?;
                Ok(self.codec.connection(row)?)
            }

            async fn delete(&self, slug: &Slug, revision: u64, details: &ChangeDetails) -> Result<(), ChangeError> {
                let failed = sql::unavailable($name);
                let mut tx = self.pool.begin().await.map_err(&failed)?;
                let change: i64 = sqlx::query_scalar(sql::NEXT_CHANGE).fetch_one(&mut *tx).await.map_err(&failed)?;
                let deleted = sqlx::query(sql::DELETE)
                    .bind(slug.as_str())
                    .bind(sql::to_sql(revision))
                    .execute(&mut *tx)
                    .await
                    .map_err(&failed)?;
                if deleted.rows_affected() == 0 {
                    tx.rollback().await.map_err(&failed)?;
                    return Err(self.conflict_or_not_found(slug).await?);
                }
                for forget in [sql::FORGET_ATTEMPTS_OF, sql::FORGET_COUNTS_OF] {
                    sqlx::query(forget).bind(slug.as_str()).execute(&mut *tx).await.map_err(&failed)?;
                }
                self.commit(tx, slug, change, 0, details).await?;
                Ok(())
            }

            async fn pin_issuer(&self, slug: &Slug, revision: u64, issuer: &Issuer, details: &ChangeDetails) -> Result<(), StoreError> {
                let failed = sql::unavailable($name);
                let mut tx = self.pool.begin().await.map_err(&failed)?;
                let change: i64 = sqlx::query_scalar(sql::NEXT_CHANGE).fetch_one(&mut *tx).await.map_err(&failed)?;
                let pinned = sqlx::query(sql::PIN_ISSUER)
                    .bind(issuer.as_str())
                    .bind(slug.as_str())
                    .bind(sql::to_sql(revision))
                    .execute(&mut *tx)
                    .await
                    .map_err(&failed)?;
                if pinned.rows_affected() == 0 {
                    return tx.rollback().await.map_err(&failed);
                }
                self.commit(tx, slug, change, sql::to_sql(revision), details).await
            }

            async fn switch_secret(
                &self,
                slug: &Slug,
                revision: u64,
                not_since: UnixMillis,
                details: &ChangeDetails,
            ) -> Result<bool, StoreError> {
                let failed = sql::unavailable($name);
                let mut tx = self.pool.begin().await.map_err(&failed)?;
                let change: i64 = sqlx::query_scalar(sql::NEXT_CHANGE).fetch_one(&mut *tx).await.map_err(&failed)?;
                let switched = sqlx::query(sql::SWITCH_SECRET)
                    .bind(self.codec.now())
                    .bind(change)
                    .bind(slug.as_str())
                    .bind(sql::to_sql(revision))
                    .bind(sql::time_to_sql(not_since))
                    .execute(&mut *tx)
                    .await
                    .map_err(&failed)?;
                if switched.rows_affected() == 0 {
                    tx.rollback().await.map_err(&failed)?;
                    return Ok(false);
                }
                self.commit(tx, slug, change, change, details).await?;
                Ok(true)
            }

            async fn record_check(
                &self,
                slug: &Slug,
                incarnation: u64,
                check: &CheckRecord,
                is_proposal: bool,
            ) -> Result<(), StoreError> {
                sqlx::query(if is_proposal { sql::RECORD_PROPOSAL } else { sql::RECORD_CHECK })
                    .bind(sql::to_json(check)?)
                    .bind(slug.as_str())
                    .bind(sql::to_sql(incarnation))
                    .execute(&self.pool)
                    .await
                    .map_err(sql::unavailable($name))?;
                Ok(())
            }

            async fn changes_of(
                &self,
                slug: &Slug,
                before: Option<i64>,
                limit: u32,
            ) -> Result<Vec<StoredChange>, StoreError> {
                let rows: Vec<(i64, String)> = sqlx::query_as(sql::CHANGES_OF)
                    .bind(slug.as_str())
                    .bind(before.unwrap_or(i64::MAX))
                    .bind(i64::from(limit))
                    .fetch_all(&self.pool)
                    .await
                    .map_err(sql::unavailable($name))?;
                rows.into_iter().map(|(id, record)| Ok(StoredChange { id, record: sql::from_json(&record)? })).collect()
            }

            async fn secrets_expiring_before(&self, time: UnixMillis) -> Result<u64, StoreError> {
                let count: i64 = sqlx::query_scalar(sql::SECRETS_EXPIRING)
                    .bind(sql::time_to_sql(time))
                    .fetch_one(&self.pool)
                    .await
                    .map_err(sql::unavailable($name))?;
                Ok(sql::from_sql(count))
            }

            async fn latest_change(&self) -> Result<u64, StoreError> {
                let latest: i64 =
                    sqlx::query_scalar(sql::LATEST_CHANGE).fetch_one(&self.pool).await.map_err(sql::unavailable($name))?;
                Ok(sql::from_sql(latest))
            }

            async fn changes_since(&self, seen: u64) -> Result<Vec<SlugChange>, StoreError> {
                let rows: Vec<(i64, String)> = sqlx::query_as(sql::CHANGES_SINCE)
                    .bind(sql::to_sql(seen))
                    .fetch_all(&self.pool)
                    .await
                    .map_err(sql::unavailable($name))?;
                let change = |(change, slug): (i64, String)| Some(SlugChange { change: sql::from_sql(change), slug: Slug::parse(&slug)? });
                Ok(rows.into_iter().filter_map(change).collect())
            }
        }

        #[async_trait]
        impl LoginAttempts for $store {
            async fn add_attempts(&self, batch: &AttemptBatch) -> Result<(), StoreError> {
                let failed = sql::unavailable($name);
                let mut tx = self.pool.begin().await.map_err(&failed)?;
                let mut counts: BTreeMap<&Slug, (Option<i64>, u64)> = BTreeMap::new();
                let mut to_cut: BTreeSet<&Slug> = BTreeSet::new();
                for AccountAttempt { slug, attempt } in &batch.attempts {
                    sqlx::query(sql::ADD_ATTEMPT)
                        .bind(slug.as_str())
                        .bind(sql::time_to_sql(attempt.time))
                        .bind(attempt.reason.map_or("", Reason::name))
                        .bind(sql::to_json(attempt)?)
                        .execute(&mut *tx)
                        .await
                        .map_err(&failed)?;
                    // Whoever reads takes the latest ones; what is too much needn't go at once.
                    if attempt.time.0 % sql::CUT_ONE_IN == 0 {
                        to_cut.insert(slug);
                    }
                    if attempt.reason.is_none() {
                        counts.entry(slug).or_default().0 = Some(sql::time_to_sql(attempt.time));
                    }
                }
                for (slug, unrecognized) in &batch.unrecognized {
                    counts.entry(slug).or_default().1 += unrecognized;
                }
                for slug in to_cut {
                    sqlx::query(sql::CUT_ATTEMPTS)
                        .bind(slug.as_str())
                        .bind(i64::from(ATTEMPTS_KEPT))
                        .execute(&mut *tx)
                        .await
                        .map_err(&failed)?;
                }
                for (slug, (last_success, unrecognized)) in counts {
                    sqlx::query(sql::COUNT_LOGINS)
                        .bind(slug.as_str())
                        .bind(last_success)
                        .bind(sql::to_sql(unrecognized))
                        .execute(&mut *tx)
                        .await
                        .map_err(&failed)?;
                }
                for ProvenLogin { slug, incarnation, test_login } in &batch.tested {
                    sqlx::query(sql::RECORD_TEST)
                        .bind(&test_login.proof)
                        .bind(sql::time_to_sql(test_login.time))
                        .bind(slug.as_str())
                        .bind(sql::to_sql(*incarnation))
                        .execute(&mut *tx)
                        .await
                        .map_err(&failed)?;
                }
                tx.commit().await.map_err(&failed)
            }

            async fn attempts(&self, slug: &Slug, limit: u32) -> Result<Vec<Attempt>, StoreError> {
                let rows: Vec<String> = sqlx::query_scalar(sql::ATTEMPTS)
                    .bind(slug.as_str())
                    .bind(i64::from(limit))
                    .fetch_all(&self.pool)
                    .await
                    .map_err(sql::unavailable($name))?;
                rows.iter().map(|row| sql::from_json(row)).collect()
            }

            async fn login_summaries(
                &self,
                first: &Slug,
                last: &Slug,
                since: UnixMillis,
            ) -> Result<HashMap<Slug, LoginSummary>, StoreError> {
                let failed = sql::unavailable($name);
                let counts: Vec<(String, Option<i64>, i64)> = sqlx::query_as(sql::COUNTS)
                    .bind(first.as_str())
                    .bind(last.as_str())
                    .fetch_all(&self.pool)
                    .await
                    .map_err(&failed)?;
                let failures: Vec<(String, String, i64)> = sqlx::query_as(sql::FAILURES)
                    .bind(first.as_str())
                    .bind(last.as_str())
                    .bind(sql::time_to_sql(since))
                    .fetch_all(&self.pool)
                    .await
                    .map_err(&failed)?;
                let mut summaries: HashMap<Slug, LoginSummary> = HashMap::new();
                for (slug, last_success, unrecognized) in counts {
                    let Some(slug) = Slug::parse(&slug) else { continue };
                    let summary = summaries.entry(slug).or_default();
                    summary.last_success = last_success.map(sql::time_from_sql);
                    summary.unrecognized_callbacks = sql::from_sql(unrecognized);
                }
                for (slug, reason, count) in failures {
                    let Some(slug) = Slug::parse(&slug) else { continue };
                    let count = u32::try_from(count).unwrap_or(u32::MAX);
                    let reason = Reason::parse(&reason).unwrap_or(Reason::Internal);
                    *summaries.entry(slug).or_default().failures.entry(reason).or_default() += count;
                }
                Ok(summaries)
            }

            async fn forget_attempts_before(&self, time: UnixMillis) -> Result<(), StoreError> {
                let forget = sqlx::query(sql::FORGET_ATTEMPTS).bind(sql::time_to_sql(time));
                forget.execute(&self.pool).await.map_err(sql::unavailable($name))?;
                Ok(())
            }
        }

        #[async_trait]
        impl SigningKeys for $store {
            async fn signing_keys(&self) -> Result<Vec<StoredSigningKey>, StoreError> {
                let rows: Vec<(i64, i64, Vec<u8>)> =
                    sqlx::query_as(sql::SIGNING_KEYS).fetch_all(&self.pool).await.map_err(sql::unavailable($name))?;
                rows.into_iter().map(|row| self.codec.signing_key(row)).collect()
            }

            async fn add_signing_key(&self, key: &StoredSigningKey) -> Result<(), StoreError> {
                sqlx::query(sql::ADD_SIGNING_KEY)
                    .bind(sql::to_sql(key.generation))
                    .bind(sql::to_sql(key.created_at.0))
                    .bind(self.codec.sealed_signing_key(key))
                    .execute(&self.pool)
                    .await
                    .map_err(sql::unavailable($name))?;
                Ok(())
            }

            async fn forget_signing_key(&self, generation: u64) -> Result<(), StoreError> {
                sqlx::query(sql::FORGET_SIGNING_KEY)
                    .bind(sql::to_sql(generation))
                    .execute(&self.pool)
                    .await
                    .map_err(sql::unavailable($name))?;
                Ok(())
            }
        }

        impl $store {
            /// Goes through all that is sealed, once; whether a value was found under an older key.
            async fn reseal_once(&self, resealed: &mut Resealed) -> Result<bool, StoreError> {
                let failed = sql::unavailable($name);
                let mut was_older = false;
                (resealed.all, resealed.unreadable) = (0, Vec::new());
                let mut after = String::new();
                loop {
                    let page: Vec<(String, Vec<u8>, Option<Vec<u8>>)> =
                        sqlx::query_as(sql::SEALED_SECRETS).bind(&after).fetch_all(&self.pool).await.map_err(&failed)?;
                    let Some((last, ..)) = page.last() else { break };
                    after.clone_from(last);
                    let secrets = page.into_iter().flat_map(|(slug, active, standby)| {
                        [Some(active), standby].into_iter().flatten().map(move |sealed| (slug.clone(), sealed))
                    });
                    for (slug, sealed) in secrets {
                        resealed.all += 1;
                        match self.codec.resealed(&sql::secret_context(&slug), &sealed) {
                            Ok(None) => {}
                            Ok(Some(new)) => {
                                was_older = true;
                                let update = sqlx::query(sql::RESEAL_SECRET).bind(new).bind(slug).bind(sealed);
                                resealed.changed += update.execute(&self.pool).await.map_err(&failed)?.rows_affected();
                            }
                            Err(CannotOpen) => resealed.unreadable.push(format!("a client secret of {slug}")),
                        }
                    }
                }
                let keys: Vec<(i64, i64, Vec<u8>)> =
                    sqlx::query_as(sql::SIGNING_KEYS).fetch_all(&self.pool).await.map_err(&failed)?;
                for (generation, _, sealed) in keys {
                    resealed.all += 1;
                    match self.codec.resealed(&sql::signing_key_context(generation), &sealed) {
                        Ok(None) => {}
                        Ok(Some(new)) => {
                            was_older = true;
                            let update = sqlx::query(sql::RESEAL_SIGNING_KEY).bind(new).bind(generation).bind(sealed);
                            resealed.changed += update.execute(&self.pool).await.map_err(&failed)?.rows_affected();
                        }
                        Err(CannotOpen) => resealed.unreadable.push(format!("the signing key {generation}")),
                    }
                }
                Ok(was_older)
            }
        }

        #[async_trait]
        impl Reseal for $store {
            async fn reseal(&self) -> Result<Resealed, StoreError> {
                let mut resealed = Resealed::default();
                for _ in 0..sql::RESEAL_PASSES {
                    if !self.reseal_once(&mut resealed).await? {
                        return Ok(resealed);
                    }
                }
                let detail = "values are being sealed under an older key: does every replica have the newest one first?";
                Err(StoreError::Unavailable { store: $name, detail: detail.to_owned() })
            }
        }
    };
}
pub(super) use connections_in_sql;
