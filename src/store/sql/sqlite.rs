//! Connections in a SQLite file: for development, tests, and a single small replica.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

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
pub struct SqliteConnections {
    pool: SqlitePool,
    codec: RowCodec,
}

impl SqliteConnections {
    /// Opens the file, creating it where it isn't, and brings its tables up to date.
    ///
    /// # Errors
    /// The file can't be opened or created, or is no database of this service.
    pub async fn open(file: &Path, codec: RowCodec) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let failed = sql::unavailable("sqlite");
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_with(options)
            .await
            .map_err(&failed)?;
        // SQLite has no lock for migrations: of two processes that start at once the slower one fails, and then finds
        // the work done.
        let mut migrator = sqlx::migrate!("migrations/sqlite");
        // A newer version may have been here: after a rollback.
        migrator.set_ignore_missing(true);
        if migrator.run(&pool).await.is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
            migrator.run(&pool).await.map_err(|error| failed(error.into()))?;
        }
        Ok(Self { pool, codec })
    }
}

super::connections_in_sql!(SqliteConnections, sqlx::Sqlite, "sqlite");

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
