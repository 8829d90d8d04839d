//! The store in a SQLite file: for development, tests, and a single small replica.

use std::path::Path;
use std::time::Duration;

use sqlx::Sqlite;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::rows::RowCodec;
use super::{SqlStore, unavailable};
use crate::store::StoreError;

/// The store in a SQLite file.
pub type SqliteConnections = SqlStore<Sqlite>;

impl SqliteConnections {
    /// Opens the file, creates it if necessary, and migrates its tables.
    ///
    /// # Errors
    /// The file can't be opened or created, or is not a database of this service.
    pub async fn open(file: &Path, codec: RowCodec) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let failed = unavailable("sqlite");
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_with(options)
            .await
            .map_err(&failed)?;
        let mut migrator = sqlx::migrate!("migrations/sqlite");
        // After a rollback the database may have the migrations of a newer version.
        migrator.set_ignore_missing(true);
        // SQLite has no lock for migrations: if two processes start at the same time, one fails, and finds
        // the work done when it tries again.
        if migrator.run(&pool).await.is_err() {
            tokio::time::sleep(MIGRATION_RETRY_DELAY).await;
            migrator.run(&pool).await.map_err(|error| failed(error.into()))?;
        }
        Ok(Self { pool, codec })
    }
}

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const MIGRATION_RETRY_DELAY: Duration = Duration::from_millis(200);
