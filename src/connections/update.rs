//! UpdateConnection: changes the named fields. Login-relevant settings and the secret of an ACTIVE
//! connection change only after a check of the change has passed, or by force. An update that changes nothing writes
//! nothing.

use super::check::Proposal;
use super::{ConnectionAdmin, ConnectionError, changes};
use crate::model::Violation;
use crate::model::change::Change;
use crate::model::check::CheckRecord;
use crate::model::connection::{Connection, ConnectionState};
use crate::model::secret::ClientSecret;
use crate::model::slug::Slug;
use crate::store::{ChangeDetails, ConnectionChange};

/// What to change of a connection.
#[derive(Debug)]
pub struct ConnectionEdit {
    /// The account.
    pub slug: Slug,
    /// The revision that was read.
    pub revision: u64,
    /// What to replace.
    pub proposal: Proposal,
    /// Whether a check may be skipped.
    pub force: bool,
    /// Whether to write nothing.
    pub validate_only: bool,
}

/// A created or changed connection.
#[derive(Debug)]
pub struct Updated {
    /// As stored, or as it would be.
    pub connection: Connection,
    /// Which logins are affected.
    pub effect: changes::Effect,
    /// Names of the fields that differ from before, as in the contract.
    pub changed_fields: Vec<String>,
}

impl ConnectionAdmin {
    /// Changes a connection.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn update(
        &self,
        edit: ConnectionEdit,
        actor: &str,
    ) -> Result<Updated, ConnectionError> {
        let old = self.editable(&edit.slug).await?;
        if old.revision != edit.revision {
            return Err(ConnectionError::Conflict { current: old.revision });
        }
        let Edited { connection: new, .. } = self.edited(&old, edit.proposal, None)?;
        if new.settings.state == ConnectionState::Active
            && old.settings.state != ConnectionState::Active
        {
            return Err(ConnectionError::ActivationRequired);
        }
        let how = How { action: "update", force: edit.force, validate_only: edit.validate_only };
        self.put_in_place(old, new, how, actor).await
    }

    /// Replaces a connection's settings and secrets, if they are proven or by force.
    pub(super) async fn put_in_place(
        &self,
        old: Connection,
        new: Connection,
        how: How,
        actor: &str,
    ) -> Result<Updated, ConnectionError> {
        let is_same_secret = old.secrets.active.expose() == new.secrets.active.expose();
        let fields =
            changes::fields(Some((&old.settings, &old.secrets)), (&new.settings, &new.secrets));
        if fields.is_empty() && is_same_secret {
            let (effect, changed_fields) = (changes::Effect::None, Vec::new());
            return Ok(Updated { connection: old, effect, changed_fields });
        }
        let effect = changes::Effect::of(&old.settings, &new.settings, !is_same_secret);
        // No test login precedes the change of an ACTIVE connection, so a check alone must prove it.
        let check = old.check_of(&new.settings, &new.secrets.active);
        let is_proven = check.is_some_and(CheckRecord::has_passed);
        let [was_active, is_active] =
            [&old, &new].map(|it| it.settings.state == ConnectionState::Active);
        let needs_proof = was_active && is_active && effect != changes::Effect::None && !is_proven;
        if needs_proof && !how.force {
            return Err(ConnectionError::ChangeUnproven(effect));
        }
        let changed_fields = fields.iter().map(|change| change.field.clone()).collect();
        if how.validate_only {
            return Ok(Updated { connection: new, effect, changed_fields });
        }
        let details = ChangeDetails {
            is_forced: needs_proof,
            ..ChangeDetails::new(actor, how.action, fields)
        };
        let change = ConnectionChange {
            slug: &old.slug,
            revision: old.revision,
            keep_pin: new.settings.has_idp_of(&old.settings),
            settings: &new.settings,
            secrets: &new.secrets,
            details: &details,
        };
        Ok(Updated { connection: self.replace(&change).await?, effect, changed_fields })
    }

    /// Writes a change, and drops what is cached of the account.
    pub(super) async fn replace(
        &self,
        change: &ConnectionChange<'_>,
    ) -> Result<Connection, ConnectionError> {
        let updated = self.store.call(|store| store.update(change)).await;
        self.cache.forget(change.slug).await;
        Ok(updated?)
    }

    /// The connection with the named settings and the secrets replaced. The issuer that was read at
    /// first use belongs to where it was read, and stored secrets to what they were entered for: if that
    /// changes, they must be entered again, as must secrets that can't be opened. `made_up`: takes the
    /// place of those that aren't.
    pub(super) fn edited(
        &self,
        old: &Connection,
        Proposal { fields, draft, secrets }: Proposal,
        made_up: Option<ClientSecret>,
    ) -> Result<Edited, ConnectionError> {
        let addresses = self.addresses(Some(&old.slug));
        let settings = draft.apply(Some((&old.settings, &fields)), addresses);
        let binding = old.settings.secret_binding();
        let is_elsewhere = settings.as_ref().is_ok_and(|new| new.secret_binding() != binding);
        let is_lost = |secret: &ClientSecret| is_elsewhere || secret.is_missing();
        let lacks_secret = secrets.active.is_none() && is_lost(&old.secrets.active);
        let lacks_standby = matches!(secrets.standby, Change::Keep)
            && old.secrets.standby.as_ref().is_some_and(is_lost);
        let mut violations = Vec::new();
        if made_up.is_none() {
            let why = if is_elsewhere { MOVED } else { NOT_OPENED };
            let missing = [
                (lacks_secret, "client_secret", "must be given again"),
                (lacks_standby, "standby_client_secret", "must be given again or removed"),
            ];
            let missing = missing.into_iter().filter(|(is_missing, ..)| *is_missing);
            violations.extend(
                missing
                    .map(|(_, field, rule)| Violation::new(field, format!("{rule}, since {why}"))),
            );
        }
        let (settings, mut secrets) = match (settings, secrets.apply_to(Some(&old.secrets))) {
            (Ok(settings), Ok(secrets)) if violations.is_empty() => (settings, secrets),
            (settings, secrets) => {
                violations.extend(settings.err().into_iter().chain(secrets.err()).flatten());
                return Err(ConnectionError::Invalid(violations));
            }
        };
        if let Some(made_up) = made_up.filter(|_| lacks_secret) {
            secrets.active = made_up;
        }
        if lacks_standby {
            (secrets.standby, secrets.standby_expire) = (None, None);
        }
        Ok(Edited { connection: old.with(settings, secrets), has_made_up_secret: lacks_secret })
    }
}

/// How a connection is replaced.
pub(super) struct How {
    /// Recorded of the change.
    pub(super) action: &'static str,
    pub(super) force: bool,
    pub(super) validate_only: bool,
}

/// A connection with an edit applied.
pub(super) struct Edited {
    pub(super) connection: Connection,
    /// Whether the stored secret was entered for something else, and no other one was given.
    pub(super) has_made_up_secret: bool,
}

const MOVED: &str = "client_id or the origin of the IdP's URL changes";
const NOT_OPENED: &str = "no key of the service opens the stored one";
