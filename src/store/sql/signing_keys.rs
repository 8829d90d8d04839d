//! [`SigningKeys`] in SQL.

use async_trait::async_trait;

use super::rows::SigningKeyRow;
use super::statement::{Backend, Statement};
use super::{SqlStore, from_i64};
use crate::store::{SigningKeyEntry, SigningKeys, StoreError, StoredSigningKey};
use crate::telemetry::store_failed;

impl<D: Backend> SqlStore<D> {
    pub(super) async fn signing_key_rows(&self) -> Result<Vec<SigningKeyRow>, StoreError> {
        self.fetch(Statement::new(
            "SELECT generation, create_time, private_key FROM signing_keys \
             ORDER BY generation",
        ))
        .await
    }
}

#[async_trait]
impl<D: Backend> SigningKeys for SqlStore<D> {
    async fn signing_keys(&self) -> Result<Vec<SigningKeyEntry>, StoreError> {
        let rows = self.signing_key_rows().await?;
        let entry = |row| match self.codec.signing_key(row) {
            Ok(key) => SigningKeyEntry::Key(key),
            Err(error) => {
                store_failed("signing keys");
                tracing::error!(%error, "passed over a signing key for identity tokens");
                SigningKeyEntry::Unreadable { generation: from_i64(row.generation) }
            }
        };
        Ok(rows.iter().map(entry).collect())
    }

    async fn add_signing_key(&self, key: &StoredSigningKey) -> Result<(), StoreError> {
        let add = Statement::new(
            "INSERT INTO signing_keys (generation, create_time, private_key) \
             VALUES ($1, $2, $3) \
             ON CONFLICT (generation) DO NOTHING",
        )
        .bind(key.generation)
        .bind(key.created_at.0)
        .bind(self.codec.seal_signing_key(key));
        self.execute(add).await.map(|_| ())
    }

    async fn forget_signing_key(&self, generation: u64) -> Result<(), StoreError> {
        let delete =
            Statement::new("DELETE FROM signing_keys WHERE generation = $1").bind(generation);
        self.execute(delete).await.map(|_| ())
    }
}
