//! CheckConnection: what is right and what is wrong at the customer's IdP, found without the customer.

use std::sync::Arc;
use std::time::Duration;

use super::{ConnectionAdmin, ConnectionError, SecretsEdit};
use crate::clock::Clock;
use crate::login::limiter::Limiter;
use crate::model::connection::{Connection, CustomerUris};
use crate::model::draft::{Draft, DraftField};
use crate::model::proving::{CheckOutcome, CheckRecord, CheckResult};
use crate::model::rate::Rate;
use crate::model::slug::Slug;
use crate::oidc::probe::{CHECK_DEADLINE, Probe, Seen};

/// What to check.
#[derive(Debug)]
pub struct CheckRequest {
    /// The account.
    pub slug: Slug,
    /// The connection as an update with these would make it.
    pub proposal: Option<Proposal>,
}

/// What an update would take.
#[derive(Debug)]
pub struct Proposal {
    /// Which settings to take from `draft`.
    pub fields: Vec<DraftField>,
    /// The new settings, unchecked.
    pub draft: Draft,
    /// The new secrets.
    pub secrets: SecretsEdit,
}

/// What is checked.
#[derive(Debug)]
pub struct ToCheck {
    /// As it is, or as it would be.
    pub connection: Connection,
    /// Whether it would be.
    is_proposal: bool,
}

/// How often an account may be checked.
pub(super) struct CheckRate(Limiter<Slug>);

impl CheckRate {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Limiter::new(CHECKS, clock))
    }
}

impl ConnectionAdmin {
    /// The connection to check, as it is or as it is proposed.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn to_check(&self, request: CheckRequest) -> Result<ToCheck, ConnectionError> {
        let mut connection = self.get(&request.slug).await?;
        let is_proposal = request.proposal.is_some();
        if let Some(Proposal { fields, draft, secrets }) = request.proposal {
            let settings = self.edited(&connection, &fields, draft)?;
            let keeps_pin = settings.has_idp_of(&connection.settings);
            connection.pinned_issuer = connection.pinned_issuer.filter(|_| keeps_pin);
            connection.settings = settings;
            connection.secrets =
                secrets.apply_to(&connection.secrets).map_err(ConnectionError::Refused)?;
        }
        self.check_rate
            .0
            .admit(&request.slug)
            .map_err(|retry_after| ConnectionError::RateLimited { retry_after })?;
        Ok(ToCheck { connection, is_proposal })
    }

    /// Checks the connection, tells each result as it is found, and keeps the whole's.
    ///
    /// # Errors
    /// The record can't be kept.
    pub async fn check(
        &self,
        to_check: &ToCheck,
        report: &mut (dyn FnMut(CheckResult) + Send),
    ) -> Result<CheckRecord, ConnectionError> {
        let ToCheck { connection, is_proposal } = to_check;
        let redirect_uri = CustomerUris::new(&self.public_origin, &connection.slug).redirect_uri();
        let last = connection.last_check.as_ref();
        let known_hosts = last.map(|last| last.hosts.clone()).unwrap_or_default();
        let probe = Probe {
            connection,
            redirect_uri: &redirect_uri,
            public_origin: &self.public_origin,
            http: &self.http,
            clock: self.clock.as_ref(),
            entropy: self.entropy.as_ref(),
            known_hosts: &known_hosts,
        };
        let (mut failed, mut passed, mut has_warned, mut undecided) =
            (Vec::new(), Vec::new(), false, false);
        let mut noted = |result: CheckResult| {
            match result.outcome {
                CheckOutcome::Fail => failed.push(result.id.to_owned()),
                CheckOutcome::Pass => passed.push(result.id.to_owned()),
                CheckOutcome::Warn => has_warned = true,
                CheckOutcome::Inconclusive => undecided |= result.id.starts_with("client."),
            }
            report(result);
        };
        let seen = match tokio::time::timeout(CHECK_DEADLINE, probe.run(&mut noted)).await {
            Ok(seen) => seen,
            Err(_) => {
                noted(CheckResult {
                    id: "check.deadline",
                    outcome: CheckOutcome::Fail,
                    expected: "the IdP answers all requests in time".to_owned(),
                    found: format!("it took more than {CHECK_DEADLINE:?}"),
                    remedy: None,
                });
                Seen::default()
            }
        };
        let outcome = match (failed.is_empty(), undecided, has_warned) {
            (false, ..) => CheckOutcome::Fail,
            (true, true, _) => CheckOutcome::Inconclusive,
            (true, false, true) => CheckOutcome::Warn,
            (true, false, false) => CheckOutcome::Pass,
        };
        let record = CheckRecord {
            time: self.clock.unix_millis(),
            revision: connection.revision,
            proof: connection.proof_digest(),
            outcome,
            hosts: if failed.is_empty() { seen.hosts } else { known_hosts },
            failed,
            passed,
        };
        self.connections
            .record_check(&connection.slug, connection.incarnation, &record, *is_proposal)
            .await?;
        Ok(record)
    }
}

const CHECKS: Rate = Rate {
    count: std::num::NonZeroU32::new(6).expect("not zero"),
    period: Duration::from_secs(60),
};
