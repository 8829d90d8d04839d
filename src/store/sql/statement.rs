//! A statement with its values, and how each database runs one. sqlx's traits can't say "either
//! database", so [`Backend`] is implemented for both by a macro that binds, runs and maps rows, and does
//! nothing else.

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Arguments, Encode, FromRow, Postgres, Sqlite, Type};

use super::{saturating_i64, unavailable};
use crate::model::slug::Slug;
use crate::model::time::UnixMillis;
use crate::store::StoreError;

/// SQL and the values of its parameters `$1`, `$2`, ….
pub struct Statement {
    sql: &'static str,
    values: Vec<Value>,
}

impl Statement {
    pub(super) fn new(sql: &'static str) -> Self {
        Self { sql, values: Vec::new() }
    }

    /// Adds the value of the next parameter.
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }
}

/// The value of a parameter.
pub(super) enum Value {
    Integer(Option<i64>),
    Text(Option<String>),
    Blob(Option<Vec<u8>>),
    Boolean(bool),
}

macro_rules! value_from {
    ($($type:ty: $value:ident => $into:expr;)*) => {
        $(impl From<$type> for Value {
            fn from($value: $type) -> Self {
                $into
            }
        })*
    };
}

value_from! {
    i64: value => Self::Integer(Some(value));
    u32: value => Self::Integer(Some(value.into()));
    u64: value => Self::Integer(Some(saturating_i64(value)));
    UnixMillis: value => value.0.into();
    Option<UnixMillis>: value => Self::Integer(value.map(|time| saturating_i64(time.0)));
    &str: value => Self::Text(Some(value.to_owned()));
    String: value => Self::Text(Some(value));
    Option<String>: value => Self::Text(value);
    &Slug: value => value.as_str().into();
    Vec<u8>: value => Self::Blob(Some(value));
    Option<Vec<u8>>: value => Self::Blob(value);
    bool: value => Self::Boolean(value);
}

/// A row that both databases can return.
pub trait SqlRow:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

impl<T> SqlRow for T where
    T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

/// Where statements run: a connection or a transaction.
pub trait Session<D: Backend>: Send {
    /// The connection.
    fn connection(&mut self) -> &mut D::Connection;

    /// Whether a prepared statement can be used again, under its name.
    fn keeps_statements(&self) -> bool;
}

/// Runs statements on one kind of database.
pub trait Backend: sqlx::Database {
    /// The store's name in errors and metrics.
    const STORE: &'static str;

    /// Runs a statement and returns how many rows it changed.
    fn execute(
        session: &mut impl Session<Self>,
        statement: Statement,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Runs a statement and returns its rows.
    fn fetch<T: SqlRow>(
        session: &mut impl Session<Self>,
        statement: Statement,
    ) -> impl Future<Output = Result<Vec<T>, StoreError>> + Send;
}

macro_rules! backend {
    ($database:ty, $name:literal) => {
        impl Backend for $database {
            const STORE: &'static str = $name;

            async fn execute(
                session: &mut impl Session<Self>,
                Statement { sql, values }: Statement,
            ) -> Result<u64, StoreError> {
                let failed = unavailable($name);
                let query = sqlx::query_with(sql, arguments::<Self>(values).map_err(&failed)?)
                    .persistent(session.keeps_statements());
                Ok(query.execute(session.connection()).await.map_err(&failed)?.rows_affected())
            }

            async fn fetch<T: SqlRow>(
                session: &mut impl Session<Self>,
                Statement { sql, values }: Statement,
            ) -> Result<Vec<T>, StoreError> {
                let failed = unavailable($name);
                let query = sqlx::query_as_with(sql, arguments::<Self>(values).map_err(&failed)?)
                    .persistent(session.keeps_statements());
                query.fetch_all(session.connection()).await.map_err(&failed)
            }
        }
    };
}

backend!(Sqlite, "sqlite");
backend!(Postgres, "postgresql");

fn arguments<D: sqlx::Database>(values: Vec<Value>) -> Result<D::Arguments, sqlx::Error>
where
    for<'q> Option<i64>: Encode<'q, D> + Type<D>,
    for<'q> Option<String>: Encode<'q, D> + Type<D>,
    for<'q> Option<Vec<u8>>: Encode<'q, D> + Type<D>,
    for<'q> bool: Encode<'q, D> + Type<D>,
{
    let mut arguments = D::Arguments::default();
    for value in values {
        let added = match value {
            Value::Integer(value) => arguments.add(value),
            Value::Text(value) => arguments.add(value),
            Value::Blob(value) => arguments.add(value),
            Value::Boolean(value) => arguments.add(value),
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}
