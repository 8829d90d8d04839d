//! The law of what is kept of IdPs' documents. Implemented by [`super::sql`], called by `app` for
//! [`crate::oidc`], which knows no store.

use async_trait::async_trait;

use super::StoreError;
use crate::model::connection::Connection;
use crate::model::documents::{Claim, IdpDocuments, Kept};

/// Keeps what IdPs published last, for all replicas. A cache: nothing depends on what it has.
///
/// Law: documents are read only for exactly the connection, of the same revision and settings, for which
/// they were kept, whoever changed the row in between. Of the replicas that claim at the same time, one
/// gets the claim.
#[async_trait]
pub trait KeptDocuments: Send + Sync {
    /// What is kept for this connection. Documents that can't be opened are dropped, and logged.
    async fn kept(&self, connection: &Connection) -> Result<Kept, StoreError>;

    /// The right to ask the connection's IdP. `None`: another replica has it, or the stored connection
    /// is another one.
    async fn claim(&self, connection: &Connection) -> Result<Option<Claim>, StoreError>;

    /// Replaces what is kept, and ends the claim. Nothing is kept if the stored connection is another one.
    async fn keep(
        &self,
        connection: &Connection,
        documents: &IdpDocuments,
    ) -> Result<(), StoreError>;

    /// Deletes what is left of connections that are gone: of one that was deleted while its documents were
    /// being kept, or by an earlier version.
    async fn forget_deleted(&self) -> Result<(), StoreError>;

    /// Ends this claim.
    async fn release(&self, connection: &Connection, claim: Claim) -> Result<(), StoreError>;
}
