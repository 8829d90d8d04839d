//! What support does with the accounts' connections: create, get, list, update, delete. Depends on no IdP being up.
//! Must never give a client secret out.

use std::sync::Arc;

use crate::model::Violation;
use crate::model::address::AddressPolicy;
use crate::model::connection::{ClientSecret, Connection};
use crate::model::draft::{Draft, DraftField, check_client_secret};
use crate::model::slug::Slug;
use crate::store::known::KnownConnections;
use crate::store::{ChangeError, ConnectionChange, StoreError};

/// The verbs; one for the process.
pub struct ConnectionDesk {
    connections: Arc<KnownConnections>,
    addresses: AddressPolicy,
}

/// A connection to add.
#[derive(Debug)]
pub struct NewConnection {
    /// The account.
    pub slug: Slug,
    /// Its settings, unchecked.
    pub draft: Draft,
    /// Its secret, unchecked; empty: none was given.
    pub client_secret: ClientSecret,
}

/// What to change of a connection.
#[derive(Debug)]
pub struct ConnectionEdit {
    /// The account.
    pub slug: Slug,
    /// The revision that was read.
    pub revision: u64,
    /// Which settings to take from `draft`.
    pub fields: Vec<DraftField>,
    /// The new settings, unchecked.
    pub draft: Draft,
    /// `Some`: replace the secret, unchecked.
    pub client_secret: Option<ClientSecret>,
}

/// A page of connections.
#[derive(Debug)]
pub struct Page {
    /// By slug.
    pub connections: Vec<Connection>,
    /// The last slug of this page, where there is more.
    pub next: Option<Slug>,
}

impl ConnectionDesk {
    /// `addresses`: where IdPs may be.
    #[must_use]
    pub fn new(connections: Arc<KnownConnections>, addresses: AddressPolicy) -> Self {
        Self { connections, addresses }
    }

    /// Adds a connection.
    ///
    /// # Errors
    /// See [`DeskError`].
    pub async fn create(&self, new: NewConnection) -> Result<Connection, DeskError> {
        let settings = new.draft.check(&self.addresses);
        let secret = check_client_secret(new.client_secret.expose());
        let (settings, secret) = match (settings, secret) {
            (Ok(settings), Ok(secret)) => (settings, ClientSecret::new(secret)),
            (settings, secret) => {
                let violations = settings.err().unwrap_or_default().into_iter().chain(secret.err());
                return Err(DeskError::Refused(violations.collect()));
            }
        };
        Ok(self.connections.create(&new.slug, &settings, &secret).await?)
    }

    /// One connection, as stored now.
    ///
    /// # Errors
    /// See [`DeskError`].
    pub async fn get(&self, slug: &Slug) -> Result<Connection, DeskError> {
        self.connections.read(slug).await?.ok_or(DeskError::NotFound)
    }

    /// Connections by slug, after `after`.
    ///
    /// # Errors
    /// See [`DeskError`].
    pub async fn list(&self, after: Option<&Slug>, page_size: u32) -> Result<Page, DeskError> {
        let one_more = page_size.saturating_add(1);
        let mut connections = self.connections.list(after.map(Slug::as_str), one_more).await?;
        let is_more = connections.len() > page_size as usize;
        connections.truncate(page_size as usize);
        let next = connections.last().filter(|_| is_more).map(|last| last.slug.clone());
        Ok(Page { connections, next })
    }

    /// Changes the named fields.
    ///
    /// # Errors
    /// See [`DeskError`].
    pub async fn update(&self, edit: ConnectionEdit) -> Result<Connection, DeskError> {
        let old = self.get(&edit.slug).await?;
        if old.revision != edit.revision {
            return Err(DeskError::Conflict { current: old.revision });
        }
        let mut draft = Draft::from(&old.settings);
        draft.take(&edit.fields, edit.draft);
        let settings = draft.check(&self.addresses).map_err(DeskError::Refused)?;
        let secret = match &edit.client_secret {
            Some(secret) => Some(check_client_secret(secret.expose()).map_err(|violation| DeskError::Refused(vec![violation]))?),
            None => None,
        };
        let secret = secret.map(ClientSecret::new);
        let change = ConnectionChange {
            slug: &edit.slug,
            revision: edit.revision,
            // The issuer that was read belongs to where it was read.
            keep_pin: settings.source == old.settings.source && settings.issuer == old.settings.issuer,
            settings: &settings,
            secret: secret.as_ref(),
        };
        Ok(self.connections.update(&change).await?)
    }

    /// Deletes a connection.
    ///
    /// # Errors
    /// See [`DeskError`].
    pub async fn delete(&self, slug: &Slug, revision: u64) -> Result<(), DeskError> {
        Ok(self.connections.delete(slug, revision).await?)
    }
}

/// Why support's call was refused.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// Fields are missing or malformed.
    #[error("the connection is malformed")]
    Refused(Vec<Violation>),
    /// The account has one.
    #[error("the account has a connection already")]
    Exists,
    /// It has none.
    #[error("no connection is set up for this account")]
    NotFound,
    /// It changed since it was read.
    #[error("the connection changed since it was read: its revision is {current}")]
    Conflict {
        /// The revision in force.
        current: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ChangeError> for DeskError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Exists => Self::Exists,
            ChangeError::NotFound => Self::NotFound,
            ChangeError::Conflict { current } => Self::Conflict { current },
            ChangeError::Store(error) => Self::Store(error),
        }
    }
}
