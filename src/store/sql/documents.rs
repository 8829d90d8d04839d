//! [`KeptDocuments`] in SQL. The documents are public, and sealed all the same: who can write to the
//! database must not be able to choose the keys by which ID tokens are verified.

use async_trait::async_trait;
use sqlx::FromRow;

use super::rows::{RowCodec, from_json, to_json};
use super::statement::{Backend, Statement};
use super::{SqlStore, saturating_i64};
use crate::model::connection::Connection;
use crate::model::documents::{CLAIM, CLOCK_SKEW, Claim, IdpDocuments, Kept};
use crate::store::{KeptDocuments, StoreError};

/// A row of `idp_documents`.
#[derive(FromRow)]
struct DocumentsRow {
    documents: Option<Vec<u8>>,
    claimed_until: i64,
}

#[async_trait]
impl<D: Backend> KeptDocuments for SqlStore<D> {
    async fn kept(&self, connection: &Connection) -> Result<Kept, StoreError> {
        let read = Statement::new(
            "SELECT CASE WHEN LENGTH(documents) <= $4 THEN documents END AS documents, claimed_until \
             FROM idp_documents \
             WHERE slug = $1 AND incarnation = $2 AND revision = $3",
        )
        .bind(&connection.slug)
        .bind(connection.incarnation)
        .bind(connection.revision)
        .bind(MAX_SEALED);
        let Some(row) = self.fetch::<DocumentsRow>(read).await?.pop() else {
            return Ok(Kept::default());
        };
        let now = self.codec.now();
        let ends = now.after(CLAIM + CLOCK_SKEW);
        let claimed = saturating_i64(now.0)..=saturating_i64(ends.0);
        let is_claimed = claimed.contains(&row.claimed_until);
        let Some(sealed) = row.documents else {
            return Ok(Kept { documents: None, is_claimed });
        };
        let documents = match self.codec.open_documents(connection, &sealed) {
            Ok(documents) => Some(documents),
            Err(error) => {
                let slug = &connection.slug;
                tracing::warn!(account.slug = %slug, %error, "passed over kept documents of IdP");
                self.drop_documents(connection, sealed).await?;
                None
            }
        };
        Ok(Kept { documents, is_claimed })
    }

    async fn claim(&self, connection: &Connection) -> Result<Option<Claim>, StoreError> {
        let now = self.codec.now();
        let claim = Claim(now.after(CLAIM));
        // What is kept of another revision is dropped. A claim that ends too late isn't believed.
        let statement = Statement::new(
            "INSERT INTO idp_documents (slug, incarnation, revision, claimed_until) \
             SELECT slug, incarnation, revision, $4 FROM connections \
             WHERE slug = $1 AND incarnation = $2 AND revision = $3 \
             ON CONFLICT (slug) DO UPDATE SET \
                 documents = CASE \
                     WHEN idp_documents.incarnation = excluded.incarnation \
                         AND idp_documents.revision = excluded.revision \
                     THEN idp_documents.documents \
                 END, \
                 incarnation = excluded.incarnation, \
                 revision = excluded.revision, \
                 claimed_until = excluded.claimed_until \
             WHERE idp_documents.revision <> excluded.revision \
                 OR idp_documents.claimed_until < $5 \
                 OR idp_documents.claimed_until > $6",
        )
        .bind(&connection.slug)
        .bind(connection.incarnation)
        .bind(connection.revision)
        .bind(claim.0)
        .bind(now)
        .bind(now.after(CLAIM + CLOCK_SKEW));
        Ok((self.execute(statement).await? > 0).then_some(claim))
    }

    async fn keep(
        &self,
        connection: &Connection,
        documents: &IdpDocuments,
    ) -> Result<(), StoreError> {
        let keep = Statement::new(
            "INSERT INTO idp_documents (slug, incarnation, revision, documents, claimed_until) \
             SELECT slug, incarnation, revision, $4, 0 FROM connections \
             WHERE slug = $1 AND incarnation = $2 AND revision = $3 \
             ON CONFLICT (slug) DO UPDATE SET \
                 incarnation = excluded.incarnation, \
                 revision = excluded.revision, \
                 documents = excluded.documents, \
                 claimed_until = excluded.claimed_until",
        )
        .bind(&connection.slug)
        .bind(connection.incarnation)
        .bind(connection.revision)
        .bind(self.codec.seal_documents(connection, documents)?);
        self.execute(keep).await.map(|_| ())
    }

    async fn forget_deleted(&self) -> Result<(), StoreError> {
        let delete = Statement::new(
            "DELETE FROM idp_documents WHERE NOT EXISTS ( \
                 SELECT 1 FROM connections WHERE connections.slug = idp_documents.slug \
             )",
        );
        self.execute(delete).await.map(|_| ())
    }

    async fn release(&self, connection: &Connection, claim: Claim) -> Result<(), StoreError> {
        let release = Statement::new(
            "UPDATE idp_documents SET claimed_until = 0 WHERE slug = $1 AND claimed_until = $2",
        )
        .bind(&connection.slug)
        .bind(claim.0);
        self.execute(release).await.map(|_| ())
    }
}

impl<D: Backend> SqlStore<D> {
    /// Only this value: another replica may have replaced it.
    async fn drop_documents(
        &self,
        connection: &Connection,
        sealed: Vec<u8>,
    ) -> Result<(), StoreError> {
        let drop = Statement::new(
            "UPDATE idp_documents SET documents = NULL WHERE slug = $1 AND documents = $2",
        )
        .bind(&connection.slug)
        .bind(sealed);
        self.execute(drop).await.map(|_| ())
    }

    /// Drops what isn't sealed under the newest key, so that nothing is left that needs an older one.
    /// The documents are fetched again when they are due.
    pub(super) async fn drop_documents_of_older_keys(&self) -> Result<(), StoreError> {
        let newest = self.codec.keyring.newest_header();
        let drop = Statement::new(
            "UPDATE idp_documents SET documents = NULL WHERE SUBSTR(documents, 1, CAST($1 AS INTEGER)) <> $2",
        )
        .bind(u32::try_from(newest.len()).unwrap_or(u32::MAX))
        .bind(newest);
        self.execute(drop).await.map(|_| ())
    }
}

impl RowCodec {
    fn seal_documents(
        &self,
        connection: &Connection,
        documents: &IdpDocuments,
    ) -> Result<Vec<u8>, StoreError> {
        let json = to_json(documents)?;
        let context = documents_context(connection);
        Ok(self.keyring.seal(self.entropy.as_ref(), &context, json.as_bytes()))
    }

    fn open_documents(
        &self,
        connection: &Connection,
        sealed: &[u8],
    ) -> Result<IdpDocuments, StoreError> {
        let unreadable = |error: &dyn ToString| StoreError::Unreadable(error.to_string());
        let opened = self.keyring.open(&documents_context(connection), sealed);
        let opened = opened.map_err(|error| unreadable(&error))?;
        from_json(std::str::from_utf8(&opened).map_err(|error| unreadable(&error))?)
    }
}

/// The settings are part of it, since a database that went back to an earlier state uses a revision a
/// second time.
fn documents_context(connection: &Connection) -> String {
    let Connection { slug, incarnation, revision, settings, .. } = connection;
    serde_json::json!([
        "idp_documents",
        slug.as_str(),
        incarnation,
        revision,
        settings.login_digest()
    ])
    .to_string()
}

/// Bytes of a sealed value that is read. What this service keeps is smaller.
const MAX_SEALED: u32 = 1024 * 1024;
