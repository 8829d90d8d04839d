//! CheckConnection: what is right and what is wrong at the customer's IdP, found without a person.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::update::Edited;
use super::{ConnectionAdmin, ConnectionError, changes};
use crate::model::change::{CHECK, CHECK_OF_PROPOSAL, FieldChange};
use crate::model::check::{CheckId, CheckOutcome, CheckRecord, CheckResult};
use crate::model::connection::{Connection, CustomerUris};
use crate::model::draft::{Draft, DraftField};
use crate::model::rate::Rate;
use crate::model::secret::{ClientSecret, SecretsEdit};
use crate::model::slug::Slug;
use crate::oidc::probe::Probe;
use crate::store::{ChangeDetails, StoredChange};

/// What to check.
#[derive(Debug)]
pub struct CheckRequest {
    /// The account.
    pub slug: Slug,
    /// `Some`: check the connection as an update with these fields would make it.
    pub proposal: Option<Proposal>,
}

/// What an update would change.
#[derive(Debug)]
pub struct Proposal {
    /// Which settings to take from `draft`.
    pub fields: Vec<DraftField>,
    /// The new settings, unchecked.
    pub draft: Draft,
    /// The new secrets.
    pub secrets: SecretsEdit,
}

/// The connection that a check looks at.
#[derive(Debug)]
pub struct CheckTarget {
    /// As it is, or as it is proposed.
    pub connection: Connection,
    is_proposal: bool,
    /// Whether the account has no connection yet: nothing of the check is kept.
    is_unknown: bool,
    has_made_up_secret: bool,
    /// What is proposed to change.
    fields: Vec<FieldChange>,
    actor: String,
}

impl ConnectionAdmin {
    /// Reads what to check; counts against the account's rate of checks.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn check_target(
        &self,
        request: CheckRequest,
        actor: &str,
    ) -> Result<CheckTarget, ConnectionError> {
        let limited = |retry_after| ConnectionError::RateLimited { retry_after };
        let stored = match &request.proposal {
            None => self.get(&request.slug).await?,
            Some(_) => match self.editable(&request.slug).await {
                Err(ConnectionError::NotFound) => {
                    let target = self.new_target(request, actor)?;
                    self.check_rate.admit(&target.connection.slug).map_err(limited)?;
                    return Ok(target);
                }
                stored => stored?,
            },
        };
        let mut target = CheckTarget {
            connection: stored.clone(),
            is_proposal: request.proposal.is_some(),
            is_unknown: false,
            has_made_up_secret: false,
            fields: Vec::new(),
            actor: actor.to_owned(),
        };
        if let Some(proposal) = request.proposal {
            let edited = self.edited(&stored, proposal, Some(self.made_up_secret()))?;
            let Edited { connection, has_made_up_secret } = edited;
            let secrets = if has_made_up_secret { &stored.secrets } else { &connection.secrets };
            let before = (&stored.settings, &stored.secrets);
            target.fields = changes::fields(Some(before), (&connection.settings, secrets));
            target = CheckTarget { connection, has_made_up_secret, ..target };
        }
        self.check_rate.admit(&request.slug).map_err(limited)?;
        Ok(target)
    }

    /// The connection that an account without one would get by a create.
    fn new_target(
        &self,
        CheckRequest { slug, proposal }: CheckRequest,
        actor: &str,
    ) -> Result<CheckTarget, ConnectionError> {
        let Some(Proposal { draft, secrets, .. }) = proposal else {
            return Err(ConnectionError::NotFound);
        };
        let settings = draft.apply(None, self.addresses(Some(&slug)));
        let (settings, secrets) = match (settings, secrets.apply_to(None)) {
            (Ok(settings), Ok(secrets)) => (settings, secrets),
            (settings, secrets) => {
                let violations = settings.err().into_iter().chain(secrets.err()).flatten();
                return Err(ConnectionError::Invalid(violations.collect()));
            }
        };
        Ok(CheckTarget {
            connection: self.preview(slug, settings, secrets),
            is_proposal: true,
            is_unknown: true,
            has_made_up_secret: false,
            fields: Vec::new(),
            actor: actor.to_owned(),
        })
    }

    /// Whether people have logged in, and never with the client id that is checked: it is proposed, or
    /// was changed after the last login.
    async fn has_new_client(&self, target: &CheckTarget) -> Result<bool, ConnectionError> {
        let slug = &target.connection.slug;
        let is_client = |field: &FieldChange| field.field == "client_id";
        let now = self.clock.unix_millis();
        let summaries = self.attempts.call(|store| store.login_summaries(slug, slug, now)).await?;
        let summary = summaries.get(slug).cloned().unwrap_or_default();
        let Some(last_login) = summary.last_success else { return Ok(false) };
        if target.fields.iter().any(is_client) {
            return Ok(true);
        }
        let changes = self.store.call(|store| store.changes_of(slug, None, LATEST_CHANGES)).await?;
        Ok(changes.iter().any(|StoredChange { record, .. }| {
            !record.is_check() && record.time > last_login && record.fields.iter().any(is_client)
        }))
    }

    /// For a proposal that names another IdP or client without a secret: the stored one must not be sent
    /// there.
    fn made_up_secret(&self) -> ClientSecret {
        let mut bytes = [0; 32];
        self.entropy.fill(&mut bytes);
        ClientSecret::from_store(hex::encode(bytes))
    }

    /// Checks the connection, reports each result as it is found, and keeps the record of the whole.
    ///
    /// # Errors
    /// The record can't be kept.
    pub async fn check(
        &self,
        target: &CheckTarget,
        report: &mut (dyn FnMut(CheckResult) + Send),
    ) -> Result<CheckRecord, ConnectionError> {
        let CheckTarget { connection, is_proposal, is_unknown, has_made_up_secret, fields, actor } =
            target;
        tracing::info!(actor, is_proposal, "checking connection");
        let uris = CustomerUris::new(&self.public_origin, &connection.slug);
        let (redirect_uri, post_logout_redirect_uri) = (uris.redirect_uri(), uris.login_uri());
        let has_new_client = !is_unknown && self.has_new_client(target).await?;
        let last = connection.last_check.as_ref();
        let known_hosts = last.map(|last| last.hosts.clone()).unwrap_or_default();
        let probe = Probe {
            connection,
            redirect_uri: &redirect_uri,
            post_logout_redirect_uri: &post_logout_redirect_uri,
            public_origin: &self.public_origin,
            http: &self.providers.http().of(Some(&connection.slug)).recording(),
            clock: self.clock.as_ref(),
            entropy: self.entropy.as_ref(),
            known_hosts: &known_hosts,
            has_made_up_secret: *has_made_up_secret,
            has_new_client,
            asked: &Mutex::default(),
        };
        let mut by_outcome: [Vec<CheckId>; 5] = Default::default();
        let [passed, warned, failed, inconclusive, skipped] = &mut by_outcome;
        let mut record = |result: CheckResult| {
            let ids: &mut Vec<CheckId> = match result.outcome {
                CheckOutcome::Pass => passed,
                CheckOutcome::Warn => warned,
                CheckOutcome::Fail => failed,
                CheckOutcome::Inconclusive => inconclusive,
                CheckOutcome::Skipped => skipped,
            };
            ids.push(result.id);
            report(result);
        };
        let seen = probe.run(&mut record).await;
        let hosts_asked = probe.hosts_asked();
        let [passed, warned, failed, inconclusive, skipped] = by_outcome;
        let is_undecided = inconclusive.iter().any(|id| id.is_decisive());
        let outcome = match (failed.is_empty(), is_undecided, warned.is_empty()) {
            (false, ..) => CheckOutcome::Fail,
            (true, true, _) => CheckOutcome::Inconclusive,
            (true, false, false) => CheckOutcome::Warn,
            (true, false, true) => CheckOutcome::Pass,
        };
        let record = CheckRecord {
            time: self.clock.unix_millis(),
            revision: connection.revision,
            proof: connection.proof_digest(),
            outcome,
            hosts: if failed.is_empty() { seen.hosts } else { known_hosts },
            failed,
            passed,
            warned,
            inconclusive,
            skipped,
        };
        if *is_unknown {
            return Ok(record);
        }
        let (slug, incarnation) = (&connection.slug, connection.incarnation);
        let action = if *is_proposal { CHECK_OF_PROPOSAL } else { CHECK };
        let details = ChangeDetails {
            hosts: hosts_asked,
            ..ChangeDetails::new(actor, action, fields.clone())
        };
        let kept = self
            .store
            .call(|store| store.record_check(slug, incarnation, &record, *is_proposal, &details));
        kept.await?;
        if !is_proposal {
            // What the check has read is what the next login uses. The fetch goes on by itself.
            let connection = Arc::new(connection.clone());
            let _ = tokio::time::timeout(RENEWAL_WAIT, self.providers.renew(&connection)).await;
        }
        Ok(record)
    }
}

/// Changes in which a check looks for another client id.
const LATEST_CHANGES: u32 = 50;
/// How long a check waits for the documents to be replaced in the cache.
const RENEWAL_WAIT: Duration = Duration::from_secs(3);
/// How often an account may be checked.
pub(super) const RATE: Rate =
    Rate { count: NonZeroU32::new(6).expect("not zero"), period: Duration::from_secs(60) };
