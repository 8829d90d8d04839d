//! CheckConnection: what is right and what is wrong at the customer's IdP, found without a person.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::update::Edited;
use super::{ConnectionAdmin, ConnectionError, changes};
use crate::model::change::FieldChange;
use crate::model::check::{CheckId, CheckOutcome, CheckRecord, CheckResult};
use crate::model::connection::{Connection, CustomerUris};
use crate::model::draft::{Draft, DraftField};
use crate::model::rate::Rate;
use crate::model::secret::{ClientSecret, SecretsEdit};
use crate::model::slug::Slug;
use crate::oidc::probe::{CHECK_DEADLINE, Probe, Seen};
use crate::store::ChangeDetails;

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
        let stored = match &request.proposal {
            None => self.get(&request.slug).await?,
            Some(_) => self.editable(&request.slug).await?,
        };
        let mut target = CheckTarget {
            connection: stored.clone(),
            is_proposal: request.proposal.is_some(),
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
        let limited = |retry_after| ConnectionError::RateLimited { retry_after };
        self.check_rate.admit(&request.slug).map_err(limited)?;
        Ok(target)
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
        let CheckTarget { connection, is_proposal, has_made_up_secret, fields, actor } = target;
        tracing::info!(actor, is_proposal, "checking connection");
        let redirect_uri = CustomerUris::new(&self.public_origin, &connection.slug).redirect_uri();
        let last = connection.last_check.as_ref();
        let known_hosts = last.map(|last| last.hosts.clone()).unwrap_or_default();
        let probe = Probe {
            connection,
            redirect_uri: &redirect_uri,
            public_origin: &self.public_origin,
            http: self.providers.http().of(Some(&connection.slug)),
            clock: self.clock.as_ref(),
            entropy: self.entropy.as_ref(),
            known_hosts: &known_hosts,
            has_made_up_secret: *has_made_up_secret,
            asked: &Mutex::default(),
        };
        let (mut failed, mut passed) = (Vec::new(), Vec::new());
        let (mut has_warned, mut is_undecided) = (false, false);
        let mut record = |result: CheckResult| {
            match result.outcome {
                CheckOutcome::Fail => failed.push(result.id),
                CheckOutcome::Pass => passed.push(result.id),
                CheckOutcome::Warn => has_warned = true,
                CheckOutcome::Inconclusive => is_undecided |= result.id.is_decisive(),
                CheckOutcome::Skipped => {}
            }
            report(result);
        };
        let seen = match tokio::time::timeout(CHECK_DEADLINE, probe.run(&mut record)).await {
            Ok(seen) => seen,
            Err(_) => {
                record(CheckResult {
                    id: CheckId::CheckDeadline,
                    outcome: CheckOutcome::Fail,
                    expected: "the IdP answers all requests in time".to_owned(),
                    found: format!("the check took more than {CHECK_DEADLINE:?}"),
                    remedy: None,
                });
                Seen::default()
            }
        };
        let outcome = match (failed.is_empty(), is_undecided, has_warned) {
            (false, ..) => CheckOutcome::Fail,
            (true, true, _) => CheckOutcome::Inconclusive,
            (true, false, true) => CheckOutcome::Warn,
            (true, false, false) => CheckOutcome::Pass,
        };
        let hosts_asked = probe.hosts_asked();
        let record = CheckRecord {
            time: self.clock.unix_millis(),
            revision: connection.revision,
            proof: connection.proof_digest(),
            outcome,
            hosts: if failed.is_empty() { seen.hosts } else { known_hosts },
            failed,
            passed,
        };
        let (slug, incarnation) = (&connection.slug, connection.incarnation);
        let action = if *is_proposal { "check_proposal" } else { "check" };
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

/// How long a check waits for the documents to be replaced in the cache.
const RENEWAL_WAIT: Duration = Duration::from_secs(3);
/// How often an account may be checked.
pub(super) const RATE: Rate =
    Rate { count: NonZeroU32::new(6).expect("not zero"), period: Duration::from_secs(60) };
