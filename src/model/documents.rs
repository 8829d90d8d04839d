//! What an IdP published, as it sent it, and when it was read: what replicas share. Kept by
//! [`crate::store`], read and used by [`crate::oidc`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::UnixMillis;

/// An IdP's metadata document and key set, unread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdpDocuments {
    /// The metadata document; `None`: the connection's endpoints are manual.
    pub metadata: Option<String>,
    /// The key set.
    pub keys: String,
    /// When both were fetched, and for how long they are fresh.
    pub read: DocumentsRead,
    /// How long they are fresh after that.
    pub fresh_for: Duration,
}

/// When documents were fetched, by the wall clock of the replica that fetched them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentsRead {
    /// All of them.
    pub all: UnixMillis,
    /// The keys, which may have been fetched alone since.
    pub keys: UnixMillis,
}

impl IdpDocuments {
    /// Bytes of both.
    #[must_use]
    pub fn size(&self) -> usize {
        self.metadata.as_ref().map_or(0, String::len) + self.keys.len()
    }
}

impl DocumentsRead {
    /// Whether these were read after `other`.
    #[must_use]
    pub fn is_newer_than(&self, other: &Self) -> bool {
        self.keys > other.keys && self.all >= other.all
    }
}

/// What is kept of an IdP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// What was fetched last, by any replica.
    pub documents: Option<IdpDocuments>,
    /// Whether a replica is asking the IdP.
    pub is_claimed: bool,
}

/// The right to ask the IdP for all replicas, until this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim(pub UnixMillis);

/// How long a claim lasts, and how long the other replicas wait for what it brings.
pub const CLAIM: Duration = Duration::from_secs(3);
/// How far the clocks of replicas may differ. What lies further in the future isn't believed.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);
