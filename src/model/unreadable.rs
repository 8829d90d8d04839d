//! A stored connection that can't be used: its row can't be read by this version, or its secrets can't
//! be opened with the present keys. It is the matter of its account alone.

use super::cause::Cause;
use super::connection::Connection;
use super::slug::Slug;
use super::time::UnixMillis;

/// A connection as the store found it.
pub type StoredConnection = Result<Connection, Box<UnreadableConnection>>;

/// A stored connection that can't be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{why}: {detail}")]
pub struct UnreadableConnection {
    /// The account.
    pub slug: Slug,
    /// The present revision, for a change or a deletion.
    pub revision: u64,
    /// When the connection was created.
    pub create_time: UnixMillis,
    /// When the connection last changed.
    pub update_time: UnixMillis,
    /// What is wrong.
    pub why: Unreadable,
    /// What exactly, for the log.
    pub detail: String,
    /// The connection, if all that is missing are secrets; these are empty then
    /// ([`ClientSecret::is_missing`](super::secret::ClientSecret::is_missing)).
    pub without_secrets: Option<Connection>,
}

/// The account of a stored connection.
#[must_use]
pub fn slug_of(stored: &StoredConnection) -> &Slug {
    match stored {
        Ok(connection) => &connection.slug,
        Err(unreadable) => &unreadable.slug,
    }
}

/// What can be read of a stored connection.
#[must_use]
pub fn readable(stored: &StoredConnection) -> Option<&Connection> {
    stored.as_ref().map_or_else(|unreadable| unreadable.without_secrets.as_ref(), Some)
}

/// Why a stored connection can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// No configured key opens a client secret for these settings.
    #[error("no key of the service opens the stored client secret")]
    Secret,
    /// The stored settings don't have the form that this version writes.
    #[error("the stored settings are damaged")]
    Settings,
    /// A newer version wrote what this version would get wrong.
    #[error("a newer version of the service wrote the settings")]
    NewerVersion,
}

impl Unreadable {
    /// What exactly happened.
    #[must_use]
    pub fn cause(self) -> Cause {
        match self {
            Self::Secret => Cause::SecretUnreadable,
            Self::Settings => Cause::SettingsUnreadable,
            Self::NewerVersion => Cause::NewerVersion,
        }
    }
}
