//! [`SigningKeys`] in SQL.

use async_trait::async_trait;

use super::SqlStore;
use super::rows::SigningKeyRow;
use super::statement::{Backend, Statement};
use crate::store::{SigningKeys, StoreError, StoredSigningKey};

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
    async fn signing_keys(&self) -> Result<Vec<StoredSigningKey>, StoreError> {
        let rows = self.signing_key_rows().await?;
        rows.iter().map(|row| self.codec.signing_key(row)).collect()
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
