//! Connections in PostgreSQL, shared by all replicas.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

pub use super::sql::RowCodec;
use super::{ChangeError, ConnectionChange, Connections, Reseal, Resealed, SigningKeys, StoreError, StoredSigningKey, sql};
use crate::model::connection::{ClientSecret, Connection, ConnectionSettings, Issuer};
use crate::model::slug::Slug;
use crate::seal::CannotOpen;

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
        Ok(options
            .application_name("peerpanda-sso")
            .options([("statement_timeout", STATEMENT_TIMEOUT), ("lock_timeout", STATEMENT_TIMEOUT)]))
    }

    /// Connects, and brings the tables up to date; replicas that start at once wait for each other (sqlx takes an
    /// advisory lock).
    ///
    /// # Errors
    /// The server is unreachable, or the migration fails.
    pub async fn open(options: PgConnectOptions, codec: RowCodec) -> Result<Self, StoreError> {
        let failed = sql::unavailable("postgresql");
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .acquire_timeout(Duration::from_secs(3))
            .connect_with(options)
            .await
            .map_err(&failed)?;
        sqlx::migrate!("migrations/postgres").run(&pool).await.map_err(|error| failed(error.into()))?;
        Ok(Self { pool, codec })
    }
}

sql::connections_in_sql!(PostgresConnections, "postgresql");

/// The server gives up on a statement of ours after this.
const STATEMENT_TIMEOUT: &str = "5s";
