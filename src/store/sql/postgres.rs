//! The store in PostgreSQL, shared by all replicas.

use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{Executor, PgPool, Postgres};
use url::Url;

use super::rows::RowCodec;
use super::{SqlStore, unavailable};
use crate::model::address::is_loopback_host;
use crate::store::StoreError;

/// A parsed URL of PostgreSQL.
#[derive(Clone)]
pub struct PostgresUrl {
    options: PgConnectOptions,
    is_pooled: bool,
}

impl PostgresUrl {
    /// Parses the URL.
    ///
    /// # Errors
    /// It is not a PostgreSQL URL, or `pgbouncer` is neither true nor false.
    pub fn parse(url: &str) -> Result<Self, StoreError> {
        let failed = unavailable("postgresql");
        let (url, is_pooled) = without_pooler(url).map_err(&failed)?;
        let options: PgConnectOptions = url.as_str().parse().map_err(&failed)?;
        let options = options.application_name("peerpanda-sso");
        let options = if is_pooled {
            // PgBouncer refuses unknown parameters of the start-up.
            options.extra_float_digits(None).statement_cache_capacity(0)
        } else {
            options.options(SESSION_SETTINGS)
        };
        Ok(Self { options, is_pooled })
    }

    /// How sessions are opened.
    #[must_use]
    pub fn options(&self) -> &PgConnectOptions {
        &self.options
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
        let migrated = if url.is_pooled {
            migrate_pooled(&mut migrator, &migrating).await
        } else {
            migrator.run(&migrating).await.map_err(sqlx::Error::from)
        };
        migrating.close().await;
        let pool = pool(MAX_CONNECTIONS).await.map_err(&failed)?;
        if let Err(error) = migrated {
            if !is_read_only(&error) || !is_up_to_date(&migrator, &pool).await.map_err(&failed)? {
                return Err(failed(error));
            }
            tracing::warn!("the database is read-only: logins work, changes of connections fail");
        }
        Ok(Self { pool, codec, is_pooled: url.is_pooled })
    }
}

/// The URL without the parameter `pgbouncer`, which the driver doesn't know, and its value.
fn without_pooler(text: &str) -> Result<(Url, bool), sqlx::Error> {
    let mut url = Url::parse(text).map_err(|error| sqlx::Error::Configuration(error.into()))?;
    let mut is_pooled = false;
    let mut others = Vec::new();
    for (name, value) in url.query_pairs().into_owned() {
        match (name.as_str(), value.as_str()) {
            ("pgbouncer", "true") => is_pooled = true,
            ("pgbouncer", "false") => is_pooled = false,
            ("pgbouncer", _) => {
                return Err(sqlx::Error::Configuration("pgbouncer must be true or false".into()));
            }
            _ => others.push((name, value)),
        }
    }
    if others.is_empty() {
        url.set_query(None);
    } else {
        url.query_pairs_mut().clear().extend_pairs(others);
    }
    Ok((url, is_pooled))
}

/// In one transaction, so that a pooler runs it in one session. The migrator prepares statements under
/// names that a former client of the session may have used, and would lock the session.
/// Boxed, since the compiler can't see that the future is Send otherwise.
fn migrate_pooled<'a>(
    migrator: &'a mut Migrator,
    pool: &'a PgPool,
) -> BoxFuture<'a, Result<(), sqlx::Error>> {
    Box::pin(async move {
        let mut tx = pool.begin_with(BEGIN_POOLED).await?;
        tx.execute(FORGET_STATEMENTS).await?;
        tx.execute(LOCK_MIGRATIONS).await?;
        migrator.set_locking(false).run_direct(None, &mut *tx, false).await?;
        tx.execute(FORGET_STATEMENTS).await?;
        tx.commit().await
    })
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

/// Boxed for the same reason.
fn is_up_to_date<'a>(
    migrator: &'a Migrator,
    pool: &'a PgPool,
) -> BoxFuture<'a, Result<bool, sqlx::Error>> {
    Box::pin(async move {
        let mut tx = pool.begin().await?;
        let done: Vec<i64> =
            sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success")
                .persistent(false)
                .fetch_all(&mut *tx)
                .await?;
        Ok(migrator.iter().all(|migration| done.contains(&migration.version)))
    })
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
/// Behind a pooler a session can't be set up, so each transaction is.
pub(super) const BEGIN_POOLED: &str = "BEGIN; \
     SET LOCAL statement_timeout = '5s'; \
     SET LOCAL lock_timeout = '5s'; \
     SET LOCAL idle_in_transaction_session_timeout = '5s'";
const FORGET_STATEMENTS: &str = "DEALLOCATE ALL";
/// The number stands for this service's tables.
const LOCK_MIGRATIONS: &str = "SELECT pg_advisory_xact_lock(7337556)";
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// Per replica.
const MAX_CONNECTIONS: u32 = 8;
