//! Connections in SQL: the statements and rows that SQLite and PostgreSQL share, as a macro over the pool's type, since
//! sqlx's traits can't say "either". Client secrets are sealed here, bound to their row and column.

use std::sync::Arc;

use crate::ambient::{Clock, Entropy};
use crate::model::connection::{ClientSecret, Connection, ConnectionSettings, Issuer};
use crate::model::slug::Slug;
use crate::seal::{CannotOpen, Keyring};
use crate::store::{StoreError, StoredSigningKey};
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
    create_time: i64,
    update_time: i64,
}

impl RowCodec {
    pub(super) fn connection(&self, row: Row) -> Result<Connection, StoreError> {
        let slug = Slug::parse(&row.slug).ok_or_else(|| StoreError::Unreadable("its slug isn't one".to_owned()))?;
        let unreadable = |what: &str| StoreError::Unreadable(format!("{slug}: {what}"));
        let settings: ConnectionSettings =
            serde_json::from_str(&row.settings).map_err(|error| unreadable(&format!("settings: {error}")))?;
        let secret = self
            .keyring
            .open(&secret_context(slug.as_str()), &row.client_secret)
            .map_err(|error| unreadable(&format!("client_secret: {error}")))?;
        let secret = std::str::from_utf8(&secret).map_err(|_| unreadable("client_secret: not text"))?;
        Ok(Connection {
            incarnation: from_sql(row.incarnation),
            revision: from_sql(row.revision),
            settings,
            pinned_issuer: row.pinned_issuer.map(Issuer::new),
            client_secret: ClientSecret::new(secret.to_owned()),
            create_time: from_sql(row.create_time),
            update_time: from_sql(row.update_time),
            slug,
        })
    }

    pub(super) fn sealed(&self, slug: &Slug, secret: &ClientSecret) -> Vec<u8> {
        self.keyring.seal(self.entropy.as_ref(), &secret_context(slug.as_str()), secret.expose().as_bytes())
    }

    pub(super) fn signing_key(&self, row: (i64, i64, Vec<u8>)) -> Result<StoredSigningKey, StoreError> {
        let (generation, create_time, sealed) = row;
        let opened = self.keyring.open(&signing_key_context(generation), &sealed);
        let pkcs8 = opened.map_err(|error| StoreError::Unreadable(format!("signing key {generation}: {error}")))?;
        Ok(StoredSigningKey { generation: from_sql(generation), created_at: from_sql(create_time), pkcs8 })
    }

    pub(super) fn sealed_signing_key(&self, key: &StoredSigningKey) -> Vec<u8> {
        self.keyring.seal(self.entropy.as_ref(), &signing_key_context(to_sql(key.generation)), &key.pkcs8)
    }

    /// The same value under the newest key; `None`: it is under it already.
    pub(super) fn resealed(&self, context: &str, sealed: &[u8]) -> Result<Option<Vec<u8>>, CannotOpen> {
        if self.keyring.is_newest(sealed) {
            return Ok(None);
        }
        let opened = self.keyring.open(context, sealed)?;
        Ok(Some(self.keyring.seal(self.entropy.as_ref(), context, &opened)))
    }

    pub(super) fn now(&self) -> i64 {
        to_sql(self.clock.unix_millis())
    }
}

pub(super) fn settings_json(settings: &ConnectionSettings) -> Result<String, StoreError> {
    serde_json::to_string(settings).map_err(|error| StoreError::Unreadable(error.to_string()))
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
        "slug, incarnation, revision, settings, pinned_issuer, client_secret, create_time, update_time"
    };
}

pub(super) const NEXT_CHANGE: &str = "UPDATE change_counter SET latest = latest + 1 WHERE id = 1 RETURNING latest";
pub(super) const RECORD_CHANGE: &str = "INSERT INTO connection_changes (slug, change) VALUES ($1, $2) \
     ON CONFLICT (slug) DO UPDATE SET change = excluded.change";
pub(super) const INSERT: &str = concat!(
    "INSERT INTO connections (slug, incarnation, revision, settings, client_secret, create_time, update_time) VALUES ($1, $2, $2, $3, $4, $5, $5) ON CONFLICT (slug) DO NOTHING RETURNING ",
    columns!()
);
pub(super) const SELECT: &str = concat!("SELECT ", columns!(), " FROM connections WHERE slug = $1");
pub(super) const SELECT_PAGE: &str = concat!("SELECT ", columns!(), " FROM connections WHERE slug > $1 ORDER BY slug LIMIT $2");
pub(super) const UPDATE: &str = concat!(
    "UPDATE connections SET revision = $1, settings = $2, client_secret = COALESCE($3, client_secret), pinned_issuer = CASE WHEN $4 THEN pinned_issuer ELSE NULL END, update_time = $5 WHERE slug = $6 AND revision = $7 RETURNING ",
    columns!()
);
pub(super) const DELETE: &str = "DELETE FROM connections WHERE slug = $1 AND revision = $2";
pub(super) const PIN_ISSUER: &str =
    "UPDATE connections SET pinned_issuer = $1 WHERE slug = $2 AND revision = $3 AND pinned_issuer IS NULL";
pub(super) const LATEST_CHANGE: &str = "SELECT latest FROM change_counter WHERE id = 1";
pub(super) const CHANGES_SINCE: &str = "SELECT change, slug FROM connection_changes WHERE change > $1 ORDER BY change LIMIT 1000";

pub(super) const SIGNING_KEYS: &str = "SELECT generation, create_time, private_key FROM signing_keys ORDER BY generation";
pub(super) const ADD_SIGNING_KEY: &str =
    "INSERT INTO signing_keys (generation, create_time, private_key) VALUES ($1, $2, $3) ON CONFLICT (generation) DO NOTHING";
pub(super) const FORGET_SIGNING_KEY: &str = "DELETE FROM signing_keys WHERE generation = $1";
pub(super) const SEALED_SECRETS: &str = "SELECT slug, client_secret FROM connections WHERE slug > $1 ORDER BY slug LIMIT 500";
pub(super) const RESEAL_SECRET: &str = "UPDATE connections SET client_secret = $1 WHERE slug = $2 AND client_secret = $3";
pub(super) const RESEAL_SIGNING_KEY: &str = "UPDATE signing_keys SET private_key = $1 WHERE generation = $2 AND private_key = $3";
/// How often the store is gone through, until nothing is left to do.
pub(super) const RESEAL_PASSES: u32 = 5;

/// Implements [`Connections`](super::Connections), [`SigningKeys`](super::SigningKeys) and [`Reseal`](super::Reseal) for a
/// type with fields `pool` and `codec`.
macro_rules! connections_in_sql {
    ($store:ty, $name:literal) => {
        impl $store {
            /// Why an update or delete of this revision met no row.
            async fn why_untouched(&self, slug: &Slug) -> Result<ChangeError, StoreError> {
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
                secret: &ClientSecret,
            ) -> Result<Connection, ChangeError> {
                let failed = sql::unavailable($name);
                let mut tx = self.pool.begin().await.map_err(&failed)?;
                let change: i64 = sqlx::query_scalar(sql::NEXT_CHANGE).fetch_one(&mut *tx).await.map_err(&failed)?;
                let row: Option<sql::Row> = sqlx::query_as(sql::INSERT)
                    .bind(slug.as_str())
                    .bind(change)
                    .bind(sql::settings_json(settings)?)
                    .bind(self.codec.sealed(slug, secret))
                    .bind(self.codec.now())
                    .fetch_optional(&mut *tx)
                    .await
                    .map_err(&failed)?;
                let row = row.ok_or(ChangeError::Exists)?;
                sqlx::query(sql::RECORD_CHANGE).bind(slug.as_str()).bind(change).execute(&mut *tx).await.map_err(&failed)?;
                tx.commit().await.map_err(&failed)?;
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
                    .bind(sql::settings_json(change.settings)?)
                    .bind(change.secret.map(|secret| self.codec.sealed(change.slug, secret)))
                    .bind(change.keep_pin)
                    .bind(self.codec.now())
                    .bind(change.slug.as_str())
                    .bind(sql::to_sql(change.revision))
                    .fetch_optional(&mut *tx)
                    .await
                    .map_err(&failed)?;
                let Some(row) = row else {
                    tx.rollback().await.map_err(&failed)?;
                    return Err(self.why_untouched(change.slug).await?);
                };
                sqlx::query(sql::RECORD_CHANGE)
                    .bind(change.slug.as_str())
                    .bind(number)
                    .execute(&mut *tx)
                    .await
                    .map_err(&failed)?;
                tx.commit().await.map_err(&failed)?;
                Ok(self.codec.connection(row)?)
            }

            async fn delete(&self, slug: &Slug, revision: u64) -> Result<(), ChangeError> {
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
                    return Err(self.why_untouched(slug).await?);
                }
                sqlx::query(sql::RECORD_CHANGE).bind(slug.as_str()).bind(change).execute(&mut *tx).await.map_err(&failed)?;
                tx.commit().await.map_err(&failed)?;
                Ok(())
            }

            async fn pin_issuer(&self, slug: &Slug, revision: u64, issuer: &Issuer) -> Result<(), StoreError> {
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
                sqlx::query(sql::RECORD_CHANGE).bind(slug.as_str()).bind(change).execute(&mut *tx).await.map_err(&failed)?;
                tx.commit().await.map_err(&failed)
            }

            async fn latest_change(&self) -> Result<u64, StoreError> {
                let latest: i64 =
                    sqlx::query_scalar(sql::LATEST_CHANGE).fetch_one(&self.pool).await.map_err(sql::unavailable($name))?;
                Ok(sql::from_sql(latest))
            }

            async fn changes_since(&self, seen: u64) -> Result<Vec<(u64, Slug)>, StoreError> {
                let rows: Vec<(i64, String)> = sqlx::query_as(sql::CHANGES_SINCE)
                    .bind(sql::to_sql(seen))
                    .fetch_all(&self.pool)
                    .await
                    .map_err(sql::unavailable($name))?;
                let change = |(change, slug): (i64, String)| Some((sql::from_sql(change), Slug::parse(&slug)?));
                Ok(rows.into_iter().filter_map(change).collect())
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
                    .bind(sql::to_sql(key.created_at))
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
                    let page: Vec<(String, Vec<u8>)> =
                        sqlx::query_as(sql::SEALED_SECRETS).bind(&after).fetch_all(&self.pool).await.map_err(&failed)?;
                    let Some((last, _)) = page.last() else { break };
                    after.clone_from(last);
                    for (slug, sealed) in page {
                        resealed.all += 1;
                        match self.codec.resealed(&sql::secret_context(&slug), &sealed) {
                            Ok(None) => {}
                            Ok(Some(new)) => {
                                was_older = true;
                                let update = sqlx::query(sql::RESEAL_SECRET).bind(new).bind(slug).bind(sealed);
                                resealed.changed += update.execute(&self.pool).await.map_err(&failed)?.rows_affected();
                            }
                            Err(CannotOpen) => resealed.unreadable.push(format!("the client secret of {slug}")),
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
