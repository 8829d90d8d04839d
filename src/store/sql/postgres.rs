//! Connections in PostgreSQL, shared by all replicas.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::PgPool;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::{self as sql, RowCodec};
use crate::model::attempt::{Attempt, LoginSummary};
use crate::model::check::CheckRecord;
use crate::model::connection::{Connection, ConnectionSettings, Issuer};
use crate::model::reason::Reason;
use crate::model::secret::ClientSecrets;
use crate::model::slug::Slug;
use crate::model::time::UnixMillis;
use crate::store::seal::CannotOpen;
use crate::store::{
    ATTEMPTS_KEPT, AccountAttempt, AttemptBatch, ChangeDetails, ChangeError, ConnectionChange,
    Connections, LoginAttempts, ProvenLogin, Reseal, Resealed, SigningKeys, SlugChange, StoreError,
    StoredChange, StoredSigningKey,
};

/// The store; see [`Connections`] for its law.
pub struct PostgresConnections {
    pool: PgPool,
    codec: RowCodec,
}

impl PostgresConnections {
    /// Reads the URL.
    ///
    /// # Errors
    /// It isn't one of PostgreSQL.
    pub fn options(url: &str) -> Result<PgConnectOptions, StoreError> {
        let options: PgConnectOptions = url.parse().map_err(sql::unavailable("postgresql"))?;
        Ok(options.application_name("peerpanda-sso").options([
            ("statement_timeout", STATEMENT_TIMEOUT),
            ("lock_timeout", STATEMENT_TIMEOUT),
        ]))
    }

    /// Connects, and brings the tables up to date; replicas that start at once wait for each other (sqlx takes an
    /// advisory lock). A server that takes no writes, as one that replicates another, serves where its tables are up to
    /// date already.
    ///
    /// # Errors
    /// The server is unreachable, or the migration fails.
    pub async fn open(options: PgConnectOptions, codec: RowCodec) -> Result<Self, StoreError> {
        let failed = sql::unavailable("postgresql");
        let pool = |connections| {
            PgPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(Duration::from_secs(3))
                .connect_with(options.clone())
        };
        let mut migrator = sqlx::migrate!("migrations/postgres");
        // A newer version may have been here: after a rollback, or before the rollout has come to this replica.
        migrator.set_ignore_missing(true);
        // By a connection that ends with them: where they fail it may still hold the lock for which other replicas wait.
        let alone = pool(1).await.map_err(&failed)?;
        let migrated = migrator.run(&alone).await.map_err(sqlx::Error::from);
        alone.close().await;
        let pool = pool(8).await.map_err(&failed)?;
        if let Err(error) = migrated {
            if !is_read_only(&error) || !is_up_to_date(&migrator, &pool).await.map_err(&failed)? {
                return Err(failed(error));
            }
            tracing::warn!(
                "the database takes no writes: people can log in, and support can change nothing"
            );
        }
        Ok(Self { pool, codec })
    }
}

super::connections_in_sql!(PostgresConnections, sqlx::Postgres, "postgresql");

fn is_read_only(error: &sqlx::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        let answer = current.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
        if answer
            .and_then(|answer| answer.code())
            .is_some_and(|code| code == READ_ONLY_SQL_TRANSACTION)
        {
            return true;
        }
        cause = current.source();
    }
    false
}

async fn is_up_to_date(migrator: &Migrator, pool: &PgPool) -> Result<bool, sqlx::Error> {
    let done: Vec<i64> = sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success")
        .fetch_all(pool)
        .await?;
    Ok(migrator.iter().all(|migration| done.contains(&migration.version)))
}

/// PostgreSQL, Appendix A: error codes.
const READ_ONLY_SQL_TRANSACTION: &str = "25006";
/// The server gives up on a statement of ours after this.
const STATEMENT_TIMEOUT: &str = "5s";
