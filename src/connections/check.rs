//! CheckConnection: what is right and what is wrong at the customer's IdP, found without the customer.

use std::sync::Arc;
use std::time::Duration;

use super::{ConnectionDesk, DeskError};
use crate::ambient::Clock;
use crate::limiter::Limiter;
use crate::model::connection::{Connection, CustomerUris};
use crate::model::draft::{Draft, DraftField};
use crate::model::proving::{CheckOutcome, CheckRecord, CheckResult};
use crate::model::rate::Rate;
use crate::model::slug::Slug;
use crate::oidc::probe::{CHECK_DEADLINE, Probe};

/// What to check.
#[derive(Debug)]
pub struct CheckRequest {
    /// The account.
    pub slug: Slug,
    /// The connection as an update with these fields would make it.
    pub proposal: Option<(Vec<DraftField>, Draft)>,
}

/// How often an account may be checked.
pub(super) struct CheckRate(Limiter<Slug>);

impl CheckRate {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Limiter::new(CHECKS, clock))
    }
}

impl ConnectionDesk {
    /// The connection to check, as it is or as it is proposed.
    ///
    /// # Errors
    /// See [`DeskError`].
    pub async fn to_check(&self, request: CheckRequest) -> Result<Connection, DeskError> {
        let mut connection = self.get(&request.slug).await?;
        if let Some((fields, draft)) = request.proposal {
            let settings = self.edited(&connection, &fields, draft)?;
            let keeps_pin = settings.source == connection.settings.source && settings.issuer == connection.settings.issuer;
            connection.pinned_issuer = connection.pinned_issuer.filter(|_| keeps_pin);
            connection.settings = settings;
        }
        self.check_rate.0.admit(&request.slug).map_err(|retry_after| DeskError::RateLimited { retry_after })?;
        Ok(connection)
    }

    /// Checks the connection, tells each result as it is found, and keeps the whole's.
    ///
    /// # Errors
    /// The record can't be kept.
    pub async fn check(
        &self,
        connection: &Connection,
        tell: &mut (dyn FnMut(CheckResult) + Send),
    ) -> Result<CheckRecord, DeskError> {
        let redirect_uri = CustomerUris::new(&self.public_origin, &connection.slug).redirect_uri();
        let last = connection.last_check.as_ref();
        let known_hosts = last.map(|last| last.hosts.clone()).unwrap_or_default();
        let probe = Probe {
            connection,
            redirect_uri: &redirect_uri,
            http: &self.http,
            clock: self.clock.as_ref(),
            entropy: self.entropy.as_ref(),
            known_hosts: &known_hosts,
        };
        let (mut failed, mut passed, mut has_warned) = (Vec::new(), Vec::new(), false);
        let mut noted = |result: CheckResult| {
            match result.outcome {
                CheckOutcome::Fail => failed.push(result.id.to_owned()),
                CheckOutcome::Pass => passed.push(result.id.to_owned()),
                CheckOutcome::Warn => has_warned = true,
                CheckOutcome::Inconclusive => {}
            }
            tell(result);
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
                crate::oidc::probe::Seen::default()
            }
        };
        let outcome = match (failed.is_empty(), has_warned) {
            (false, _) => CheckOutcome::Fail,
            (true, true) => CheckOutcome::Warn,
            (true, false) => CheckOutcome::Pass,
        };
        let record = CheckRecord {
            time: self.clock.unix_millis(),
            revision: connection.revision,
            digest: connection.settings.login_digest(),
            secret: connection.secrets.active.fingerprint(),
            outcome,
            hosts: if failed.is_empty() { seen.hosts } else { known_hosts },
            failed,
            passed,
        };
        self.connections.record_check(&connection.slug, connection.incarnation, &record).await?;
        Ok(record)
    }
}

const CHECKS: Rate = Rate { count: std::num::NonZeroU32::new(6).expect("not zero"), period: Duration::from_secs(60) };
