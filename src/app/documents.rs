//! Joins what [`crate::oidc`] shares between replicas with the store that keeps it. Must never delay a
//! login for long, nor take the database's connections from others: whoever doesn't get an answer asks
//! the IdP.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use crate::model::connection::Connection;
use crate::model::documents::{Claim, IdpDocuments, Kept};
use crate::oidc::documents::{Claimed, SharedDocuments};
use crate::store::{DeferredStore, KeptDocuments, StoreError};

/// [`SharedDocuments`] in SQL.
pub(super) struct StoredDocuments {
    stored: Arc<DeferredStore<dyn KeptDocuments>>,
    /// Room for calls that a fetch waits for.
    looks: Semaphore,
    /// Room for calls that nothing waits for, and for those of them that wait.
    writes: Semaphore,
    queue: Semaphore,
}

impl StoredDocuments {
    pub(super) fn new(stored: Arc<DeferredStore<dyn KeptDocuments>>) -> Self {
        Self {
            stored,
            looks: Semaphore::new(LOOKS),
            writes: Semaphore::new(WRITES),
            queue: Semaphore::new(QUEUED_WRITES),
        }
    }

    /// `None`: the store is away or busy.
    async fn look<T>(
        &self,
        connection: &Connection,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Option<T> {
        let bounded = async {
            let _place = self.looks.acquire().await;
            call.await
        };
        match tokio::time::timeout(LOOK_DEADLINE, bounded).await {
            Ok(Ok(found)) => Some(found),
            Ok(Err(error)) => {
                let slug = &connection.slug;
                tracing::debug!(account.slug = %slug, %error, "failed to read kept documents of IdP");
                None
            }
            Err(_) => None,
        }
    }

    async fn write(
        &self,
        connection: &Connection,
        call: impl Future<Output = Result<(), StoreError>>,
    ) {
        // A document that isn't kept is fetched once more; nothing depends on it.
        let Ok(_queued) = self.queue.try_acquire() else { return };
        let _place = self.writes.acquire().await;
        if let Err(error) = call.await {
            let slug = &connection.slug;
            tracing::debug!(account.slug = %slug, %error, "failed to keep documents of IdP");
        }
    }
}

#[async_trait]
impl SharedDocuments for StoredDocuments {
    async fn kept(&self, connection: &Connection) -> Option<Kept> {
        self.look(connection, self.stored.call(|store| store.kept(connection))).await
    }

    async fn claim(&self, connection: &Connection) -> Claimed {
        match self.look(connection, self.stored.call(|store| store.claim(connection))).await {
            Some(Some(claim)) => Claimed::Ours(claim),
            Some(None) => Claimed::Theirs,
            None => Claimed::Unknown,
        }
    }

    async fn keep(&self, connection: &Connection, documents: &IdpDocuments) {
        let keep = self.stored.call(|store| store.keep(connection, documents));
        self.write(connection, keep).await;
    }

    async fn release(&self, connection: &Connection, claim: Claim) {
        let release = self.stored.call(|store| store.release(connection, claim));
        self.write(connection, release).await;
    }
}

const LOOK_DEADLINE: Duration = Duration::from_secs(1);
/// Calls of the database at once: together fewer than its connections.
const LOOKS: usize = 4;
const WRITES: usize = 2;
/// Documents that wait to be written.
const QUEUED_WRITES: usize = 64;
