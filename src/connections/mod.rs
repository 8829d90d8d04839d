//! What support does with the accounts' connections: create, get, list, update, delete, check, activate, and the texts for
//! customers. All but the check depends on no IdP being up. Must never give a client secret out.

mod changes;
mod check;
mod guide;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::login::attempts::AttemptLog;
use crate::model::Violation;
use crate::model::connection::{
    ClientSecret, ClientSecrets, Connection, ConnectionSettings, ConnectionState,
};
use crate::model::draft::{Draft, DraftField, check_client_secret};
use crate::model::proving::{Attempt, ChangeRecord, CheckRecord, LoginSummary};
use crate::model::slug::Slug;
use crate::oidc::http::HttpClient;
use crate::store::cache::KnownConnections;
use crate::store::{ChangeError, ChangeNote, ConnectionChange, StoreError};

pub use check::{CheckRequest, Proposal, ToCheck};

use check::CheckRate;

/// The verbs; one for the process.
pub struct ConnectionAdmin {
    connections: Arc<KnownConnections>,
    attempts: Arc<AttemptLog>,
    http: HttpClient,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    public_origin: String,
    check_rate: CheckRate,
}

/// A connection to add.
#[derive(Debug)]
pub struct NewConnection {
    /// The account.
    pub slug: Slug,
    /// Its settings, unchecked.
    pub draft: Draft,
    /// Its secrets.
    pub secrets: SecretsEdit,
}

/// Secrets as they come, unchecked; `None`: not named.
#[derive(Debug, Default)]
pub struct SecretsEdit {
    /// The one in use.
    pub active: Option<ClientSecret>,
    /// When it expires, in milliseconds since the Unix epoch; within: nothing is known.
    pub active_expire: Option<Option<u64>>,
    /// The other one; empty: none.
    pub standby: Option<ClientSecret>,
    /// When that one expires.
    pub standby_expire: Option<Option<u64>>,
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
    /// The new secrets.
    pub secrets: SecretsEdit,
    /// Whether a check may be skipped.
    pub force: bool,
}

/// A page of connections.
#[derive(Debug)]
pub struct Page {
    /// By slug.
    pub connections: Vec<Connection>,
    /// The last slug of this page, where there is more.
    pub next: Option<Slug>,
}

impl ConnectionAdmin {
    /// `http`: the one client that calls IdPs, which knows where they may be.
    #[must_use]
    pub fn new(
        connections: Arc<KnownConnections>,
        attempts: Arc<AttemptLog>,
        http: HttpClient,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        public_origin: String,
    ) -> Self {
        let check_rate = CheckRate::new(Arc::clone(&clock));
        Self { connections, attempts, http, clock, entropy, public_origin, check_rate }
    }

    /// Adds a connection. It isn't ACTIVE yet, since nothing of it is proven.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn create(
        &self,
        new: NewConnection,
        actor: &str,
    ) -> Result<Connection, ConnectionError> {
        let settings = new.draft.check(self.http.addresses());
        // One that isn't given is refused as an empty one is.
        let none_yet = ClientSecrets::one(ClientSecret::new(String::new()));
        let given = SecretsEdit {
            active: new.secrets.active.or(Some(none_yet.active.clone())),
            ..new.secrets
        };
        let (settings, secrets) = match (settings, given.apply_to(&none_yet)) {
            (Ok(settings), Ok(secrets)) => (settings, secrets),
            (settings, secrets) => {
                let violations = settings.err().into_iter().chain(secrets.err());
                return Err(ConnectionError::Refused(violations.flatten().collect()));
            }
        };
        if settings.state == ConnectionState::Active {
            return Err(ConnectionError::CheckRequired(
                "a new connection is TESTING; ActivateConnection makes it ACTIVE".to_owned(),
            ));
        }
        let fields = changes::fields(None, (&settings, &secrets));
        let note =
            ChangeNote { actor: actor.to_owned(), action: "create", fields, is_forced: false };
        Ok(self.connections.create(&new.slug, &settings, &secrets, &note).await?)
    }

    /// One connection, as stored now.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn get(&self, slug: &Slug) -> Result<Connection, ConnectionError> {
        self.connections.read(slug).await?.ok_or(ConnectionError::NotFound)
    }

    /// Connections by slug, after `after`.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn list(
        &self,
        after: Option<&Slug>,
        page_size: u32,
    ) -> Result<Page, ConnectionError> {
        let one_more = page_size.saturating_add(1);
        let mut connections = self.connections.list(after.map(Slug::as_str), one_more).await?;
        let is_more = connections.len() > page_size as usize;
        connections.truncate(page_size as usize);
        let next = connections.last().filter(|_| is_more).map(|last| last.slug.clone());
        Ok(Page { connections, next })
    }

    /// Changes the named fields. What logins hang on is changed of an ACTIVE connection only where it has passed a check.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn update(
        &self,
        edit: ConnectionEdit,
        actor: &str,
    ) -> Result<Updated, ConnectionError> {
        let old = self.get(&edit.slug).await?;
        if old.revision != edit.revision {
            return Err(ConnectionError::Conflict { current: old.revision });
        }
        let settings = self.edited(&old, &edit.fields, edit.draft)?;
        let secrets = edit.secrets.apply_to(&old.secrets).map_err(ConnectionError::Refused)?;
        let was_active = old.settings.state == ConnectionState::Active;
        if settings.state == ConnectionState::Active && !was_active {
            return Err(ConnectionError::CheckRequired(
                "only ActivateConnection makes a connection ACTIVE".to_owned(),
            ));
        }
        let effect = changes::effect(&old, &settings);
        // Nobody tests it before it is everybody's, so the check alone must have proven it.
        let is_proven =
            old.check_of(&settings, &secrets.active).is_some_and(CheckRecord::has_passed);
        let needs_proof = was_active
            && settings.state == ConnectionState::Active
            && !effect.is_empty()
            && !is_proven;
        if needs_proof && !edit.force {
            return Err(ConnectionError::CheckRequired(format!(
                "{effect}. Check the change first (CheckConnection with the proposal), set state to TESTING with it, or force it"
            )));
        }
        let fields = changes::fields(Some((&old.settings, &old.secrets)), (&settings, &secrets));
        let note = ChangeNote {
            actor: actor.to_owned(),
            action: "update",
            fields,
            is_forced: needs_proof,
        };
        let change = ConnectionChange {
            slug: &edit.slug,
            revision: edit.revision,
            // The issuer that was read belongs to where it was read.
            keep_pin: settings.has_idp_of(&old.settings),
            settings: &settings,
            secrets: &secrets,
            note: &note,
        };
        Ok(Updated { connection: self.connections.update(&change).await?, effect })
    }

    /// Makes a connection ACTIVE: its present settings have passed a check, and a person has logged in by them; or by force.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn activate(
        &self,
        slug: &Slug,
        revision: u64,
        force: bool,
        actor: &str,
    ) -> Result<Connection, ConnectionError> {
        // The test login may have ended just now.
        self.attempts.flush().await;
        let old = self.get(slug).await?;
        if old.revision != revision {
            return Err(ConnectionError::Conflict { current: old.revision });
        }
        let digest = old.proof_digest();
        let is_tested = old.test_login.as_ref().is_some_and(|(tested, _)| *tested == digest);
        let missing = match (is_checked(&old), is_tested) {
            (true, true) => None,
            (false, true) => Some("a check of these settings that passes is missing"),
            (true, false) => Some("a test login by these settings is missing"),
            (false, false) => {
                Some("a check of these settings that passes, and a test login by them, are missing")
            }
        };
        if let Some(missing) = missing.filter(|_| !force) {
            return Err(ConnectionError::CheckRequired(missing.to_owned()));
        }
        let settings =
            ConnectionSettings { state: ConnectionState::Active, ..old.settings.clone() };
        let fields =
            changes::fields(Some((&old.settings, &old.secrets)), (&settings, &old.secrets));
        let note = ChangeNote {
            actor: actor.to_owned(),
            action: "activate",
            fields,
            is_forced: missing.is_some(),
        };
        let change = ConnectionChange {
            slug,
            revision,
            keep_pin: true,
            settings: &settings,
            secrets: &old.secrets,
            note: &note,
        };
        Ok(self.connections.update(&change).await?)
    }

    /// Deletes a connection.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn delete(
        &self,
        slug: &Slug,
        revision: u64,
        actor: &str,
    ) -> Result<(), ConnectionError> {
        let note =
            ChangeNote { actor: actor.to_owned(), action: "delete", ..ChangeNote::default() };
        Ok(self.connections.delete(slug, revision, &note).await?)
    }

    /// What was changed, newest first, before `before`; and where the next page begins.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn changes(
        &self,
        slug: &Slug,
        before: Option<i64>,
        page_size: u32,
    ) -> Result<(Vec<ChangeRecord>, Option<i64>), ConnectionError> {
        let mut found =
            self.connections.changes_of(slug, before, page_size.saturating_add(1)).await?;
        let is_more = found.len() > page_size as usize;
        found.truncate(page_size as usize);
        let next = found.last().filter(|_| is_more).map(|(id, _)| *id);
        Ok((found.into_iter().map(|(_, record)| record).collect(), next))
    }

    /// The account's latest attempts, newest first, and how its logins went; `None` beside them: no connection is set up.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn attempts(
        &self,
        slug: &Slug,
        limit: u32,
    ) -> Result<(Vec<Attempt>, LoginSummary, Connection), ConnectionError> {
        let connection = self.get(slug).await?;
        let attempts = self.attempts.of(slug, limit).await?;
        let summary = self.attempts.summaries(slug, slug).await?.remove(slug).unwrap_or_default();
        Ok((attempts, summary, connection))
    }

    /// How logins went at these connections, which are in order.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn summaries(
        &self,
        connections: &[Connection],
    ) -> Result<HashMap<Slug, LoginSummary>, ConnectionError> {
        match (connections.first(), connections.last()) {
            (Some(first), Some(last)) => {
                Ok(self.attempts.summaries(&first.slug, &last.slug).await?)
            }
            _ => Ok(HashMap::new()),
        }
    }

    /// The settings with these fields taken from `draft`.
    fn edited(
        &self,
        old: &Connection,
        fields: &[DraftField],
        draft: Draft,
    ) -> Result<ConnectionSettings, ConnectionError> {
        let mut edited = Draft::from(&old.settings);
        edited.take(fields, draft);
        edited.check(self.http.addresses()).map_err(ConnectionError::Refused)
    }
}

/// Whether the connection as it is has not failed its last check: what that couldn't tell, a test login does.
fn is_checked(connection: &Connection) -> bool {
    let check = connection.check_of(&connection.settings, &connection.secrets.active);
    check.is_some_and(CheckRecord::has_not_failed)
}

impl SecretsEdit {
    fn apply_to(self, old: &ClientSecrets) -> Result<ClientSecrets, Vec<Violation>> {
        let mut violations = Vec::new();
        let mut checked = |secret: ClientSecret, field: &'static str| match check_client_secret(
            secret.expose(),
        ) {
            Ok(text) => Some(ClientSecret::new(text)),
            Err(violation) => {
                violations.push(Violation { field: field.into(), ..violation });
                None
            }
        };
        let mut secrets = old.clone();
        if let Some(active) = self.active.and_then(|secret| checked(secret, "client_secret")) {
            // What was known of the old one says nothing of the new one.
            if active.expose() != old.active.expose() {
                secrets.active_expire = None;
            }
            secrets.active = active;
        }
        match self.standby {
            None => {}
            Some(secret) if secret.expose().trim().is_empty() => {
                (secrets.standby, secrets.standby_expire) = (None, None);
            }
            Some(secret) => {
                secrets.standby = checked(secret, "standby_client_secret");
                secrets.standby_expire = None;
            }
        }
        secrets.active_expire = self.active_expire.unwrap_or(secrets.active_expire);
        secrets.standby_expire = self.standby_expire.unwrap_or(secrets.standby_expire);
        if secrets.standby.is_none() && secrets.standby_expire.is_some() && violations.is_empty() {
            violations.push(Violation::new(
                "standby_client_secret_expire_time",
                "needs standby_client_secret",
            ));
        }
        if violations.is_empty() { Ok(secrets) } else { Err(violations) }
    }
}

/// A changed connection.
#[derive(Debug)]
pub struct Updated {
    /// As stored.
    pub connection: Connection,
    /// Which logins are affected, for a person; empty: none.
    pub effect: String,
}

/// Why support's call was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
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
    /// Something isn't proven yet.
    #[error("{0}")]
    CheckRequired(String),
    /// Too many checks.
    #[error("too many checks of this account")]
    RateLimited {
        /// How long to wait.
        retry_after: Duration,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ChangeError> for ConnectionError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Exists => Self::Exists,
            ChangeError::NotFound => Self::NotFound,
            ChangeError::Conflict { current } => Self::Conflict { current },
            ChangeError::Store(error) => Self::Store(error),
        }
    }
}
