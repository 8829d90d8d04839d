//! Connections, login attempts and signing keys in SQL. The statements and their logic are the same for
//! SQLite and PostgreSQL; what differs is how a database is opened. Secrets are sealed here, bound to
//! their row and column: must never write one in the clear.

mod attempts;
mod connections;
pub mod postgres;
mod reseal;
pub mod rows;
mod signing_keys;
pub mod sqlite;
mod statement;

use sqlx::pool::{Pool, PoolConnection};

use self::rows::RowCodec;
use self::statement::{Backend, SqlRow, Statement};
use super::StoreError;
use crate::telemetry::store_failed;

/// The store in one kind of database.
pub struct SqlStore<D: Backend> {
    pool: Pool<D>,
    codec: RowCodec,
}

impl<D: Backend> SqlStore<D> {
    async fn connection(&self) -> Result<PoolConnection<D>, StoreError> {
        self.pool.acquire().await.map_err(unavailable(D::STORE))
    }

    async fn execute(&self, statement: Statement) -> Result<u64, StoreError> {
        D::execute(&mut *self.connection().await?, statement).await
    }

    async fn fetch<T: SqlRow>(&self, statement: Statement) -> Result<Vec<T>, StoreError> {
        D::fetch(&mut *self.connection().await?, statement).await
    }

    async fn fetch_one<T: SqlRow>(&self, statement: Statement) -> Result<T, StoreError> {
        fetch_one::<D, T>(&mut *self.connection().await?, statement).await
    }
}

async fn fetch_one<D: Backend, T: SqlRow>(
    connection: &mut D::Connection,
    statement: Statement,
) -> Result<T, StoreError> {
    let row = D::fetch(connection, statement).await?.pop();
    row.ok_or(sqlx::Error::RowNotFound).map_err(unavailable(D::STORE))
}

fn unavailable(store: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| {
        store_failed(store);
        StoreError::Unavailable { store, detail: error.to_string() }
    }
}

fn saturating_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// 0 for a negative number, which no column contains.
fn from_i64(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
