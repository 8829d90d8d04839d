//! The store in a SQLite file: for development, tests, and a single small replica.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
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
    /// Opens the file, creates it if necessary, and migrates its tables. Only the owner may read it and what
    /// SQLite keeps with it.
    ///
    /// # Errors
    /// The file can't be opened or created, or is not a database of this service.
    pub async fn open(file: &Path, codec: RowCodec) -> Result<Self, StoreError> {
        let closed = keep_to_owner(file);
        closed.map_err(sqlx::Error::from).map_err(unavailable("sqlite"))?;
        let options = SqliteConnectOptions::new()
            .filename(file)
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
        Ok(Self { pool, codec, is_pooled: false })
    }
}

/// Creates the file if it is missing, and takes the permissions of others away from it, its journal and its
/// index. SQLite gives new ones the permissions of the file.
fn keep_to_owner(file: &Path) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).mode(OWNER_ONLY).open(file)?;
    for suffix in ["", "-wal", "-shm"] {
        let mut path = file.as_os_str().to_owned();
        path.push(suffix);
        let permissions = match fs::metadata(&path) {
            Ok(metadata) => metadata.permissions(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let mode = permissions.mode() & 0o777;
        if mode & !OWNER_ONLY == 0 {
            continue;
        }
        let file = Path::new(&path).display();
        match fs::set_permissions(&path, Permissions::from_mode(mode & OWNER_ONLY)) {
            Ok(()) => tracing::info!(%file, "took the permissions of other users away"),
            // It belongs to somebody else, who decides.
            Err(error) => tracing::warn!(%file, %error, "other users may read the database"),
        }
    }
    Ok(())
}

const OWNER_ONLY: u32 = 0o600;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const MIGRATION_RETRY_DELAY: Duration = Duration::from_millis(200);
