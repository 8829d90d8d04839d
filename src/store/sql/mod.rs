//! Connections, login attempts, signing keys and IdPs' documents in SQL. The statements and their logic are the same for
//! SQLite and PostgreSQL; what differs is how a database is opened. Secrets are sealed here, bound to
//! their row and column: must never write one in the clear.

mod attempts;
mod connections;
mod documents;
mod folds;
pub mod postgres;
mod reseal;
pub mod rows;
mod signing_keys;
pub mod sqlite;
mod statement;

use sqlx::Transaction;
use sqlx::pool::{Pool, PoolConnection};

use self::rows::RowCodec;
use self::statement::{Backend, Session, SqlRow, Statement};
use super::StoreError;
use crate::telemetry::store_failed;

/// The store in one kind of database.
pub struct SqlStore<D: Backend> {
    pool: Pool<D>,
    codec: RowCodec,
    /// Whether a pooler is in between that may run each transaction in another session of the server.
    /// Then nothing of a session can be relied on: each statement is in a transaction, is not prepared for
    /// later, and gets its time limits from the transaction.
    is_pooled: bool,
}

impl<D: Backend> SqlStore<D> {
    async fn execute(&self, statement: Statement) -> Result<u64, StoreError> {
        if self.is_pooled {
            let mut tx = self.begin().await?;
            let changed = D::execute(&mut tx, statement).await?;
            return tx.commit().await.map(|()| changed);
        }
        D::execute(&mut self.connection().await?, statement).await
    }

    async fn fetch<T: SqlRow>(&self, statement: Statement) -> Result<Vec<T>, StoreError> {
        if self.is_pooled {
            let mut tx = self.begin().await?;
            let rows = D::fetch(&mut tx, statement).await?;
            return tx.commit().await.map(|()| rows);
        }
        D::fetch(&mut self.connection().await?, statement).await
    }

    async fn fetch_one<T: SqlRow>(&self, statement: Statement) -> Result<T, StoreError> {
        only(D::STORE, self.fetch(statement).await?)
    }

    async fn begin(&self) -> Result<SqlTransaction<D>, StoreError> {
        let begun = if self.is_pooled {
            self.pool.begin_with(postgres::BEGIN_POOLED).await
        } else {
            self.pool.begin().await
        };
        let inner = begun.map_err(unavailable(D::STORE))?;
        Ok(SqlTransaction { inner, is_pooled: self.is_pooled })
    }

    async fn connection(&self) -> Result<PoolConnection<D>, StoreError> {
        self.pool.acquire().await.map_err(unavailable(D::STORE))
    }
}

/// A transaction. Rolled back if it is dropped.
struct SqlTransaction<D: Backend> {
    inner: Transaction<'static, D>,
    is_pooled: bool,
}

impl<D: Backend> SqlTransaction<D> {
    async fn commit(self) -> Result<(), StoreError> {
        self.inner.commit().await.map_err(unavailable(D::STORE))
    }

    async fn rollback(self) -> Result<(), StoreError> {
        self.inner.rollback().await.map_err(unavailable(D::STORE))
    }
}

impl<D: Backend> Session<D> for SqlTransaction<D> {
    fn connection(&mut self) -> &mut D::Connection {
        &mut self.inner
    }

    fn keeps_statements(&self) -> bool {
        !self.is_pooled
    }
}

impl<D: Backend> Session<D> for PoolConnection<D> {
    fn connection(&mut self) -> &mut D::Connection {
        self
    }

    fn keeps_statements(&self) -> bool {
        true
    }
}

async fn fetch_one<D: Backend, T: SqlRow>(
    session: &mut impl Session<D>,
    statement: Statement,
) -> Result<T, StoreError> {
    only(D::STORE, D::fetch(session, statement).await?)
}

fn only<T>(store: &'static str, mut rows: Vec<T>) -> Result<T, StoreError> {
    rows.pop().ok_or(sqlx::Error::RowNotFound).map_err(unavailable(store))
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
