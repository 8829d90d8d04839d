//! The store in PostgreSQL, shared by all replicas.

use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{PgPool, Postgres};

use super::rows::RowCodec;
use super::{SqlStore, unavailable};
use crate::model::address::is_loopback_host;
use crate::store::StoreError;

/// A parsed URL of PostgreSQL.
#[derive(Clone)]
pub struct PostgresUrl {
    options: PgConnectOptions,
}

impl PostgresUrl {
    /// Parses the URL.
    ///
    /// # Errors
    /// It is not a PostgreSQL URL.
    pub fn parse(url: &str) -> Result<Self, StoreError> {
        let options: PgConnectOptions = url.parse().map_err(unavailable("postgresql"))?;
        let options = options.application_name("peerpanda-sso").options(SESSION_SETTINGS);
        Ok(Self { options })
    }

    /// Whether TLS is required and the server's certificate is verified for its name.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        matches!(self.options.get_ssl_mode(), PgSslMode::VerifyFull)
    }

    /// Whether the server is on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let host = self.options.get_host();
        self.options.get_socket().is_some() || host.starts_with('/') || is_loopback_host(host)
    }
}

/// The store in PostgreSQL.
pub type PostgresConnections = SqlStore<Postgres>;

impl PostgresConnections {
    /// Connects and migrates the tables. Replicas that start at the same time wait for each other (sqlx
    /// takes an advisory lock). A read-only server, such as a replica of another, is accepted if its
    /// tables are up to date.
    ///
    /// # Errors
    /// The server is unreachable, or the migration fails.
    pub async fn open(url: PostgresUrl, codec: RowCodec) -> Result<Self, StoreError> {
        let failed = unavailable("postgresql");
        let pool = |connections| {
            PgPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .connect_with(url.options.clone())
        };
        let mut migrator = sqlx::migrate!("migrations/postgres");
        // After a rollback, or during a rolling upgrade, the database may have the migrations of a newer
        // version.
        migrator.set_ignore_missing(true);
        // Migrated over a connection of its own, which is closed afterwards: if the migration fails, the
        // connection may still hold the lock for which other replicas wait.
        let migrating = pool(1).await.map_err(&failed)?;
        let migrated = migrator.run(&migrating).await.map_err(sqlx::Error::from);
        migrating.close().await;
        let pool = pool(MAX_CONNECTIONS).await.map_err(&failed)?;
        if let Err(error) = migrated {
            if !is_read_only(&error) || !is_up_to_date(&migrator, &pool).await.map_err(&failed)? {
                return Err(failed(error));
            }
            tracing::warn!("the database is read-only: logins work, changes of connections fail");
        }
        Ok(Self { pool, codec })
    }
}

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
/// What the server does with this service's sessions. It cancels a statement that takes longer, and it ends
/// the transaction of a replica that froze or whose host is gone: every change waits for its lock.
const SESSION_SETTINGS: [(&str, &str); 7] = [
    ("statement_timeout", "5s"),
    ("lock_timeout", "5s"),
    ("idle_in_transaction_session_timeout", "5s"),
    ("tcp_user_timeout", "10s"),
    ("tcp_keepalives_idle", "10s"),
    ("tcp_keepalives_interval", "5s"),
    ("tcp_keepalives_count", "3"),
];
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// Per replica.
const MAX_CONNECTIONS: u32 = 8;
