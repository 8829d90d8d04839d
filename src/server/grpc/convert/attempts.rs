//! Login attempts and their summary, as support sees them.

use std::time::Duration;

use super::timestamp_millis;
use crate::model::attempt::{Attempt, LoginSummary, PhaseMicros};
use crate::model::cause::Cause;
use crate::model::identity::IdentityClaim;
use crate::model::reason::Reason;
use crate::oidc::idps::{self, IdpProduct};
use crate::pb;

impl From<LoginSummary> for pb::LoginSummary {
    fn from(summary: LoginSummary) -> Self {
        Self {
            last_success_time: summary.last_success.map(timestamp_millis),
            failures: summary
                .failures
                .into_iter()
                .map(|(reason, count)| (reason.to_string(), count))
                .collect(),
            unrecognized_callbacks: summary.unrecognized_callbacks,
            ..Self::default()
        }
    }
}

pub(in crate::server) fn attempt_to_pb(
    attempt: Attempt,
    redirect_uri: &str,
    method: &str,
) -> pb::LoginAttempt {
    let product = IdpProduct::of(attempt.issuer.as_deref().unwrap_or_default());
    // An attempt recorded by an older version has no cause: any cause of its reason will do.
    let causes = || Cause::ALL.iter().find(|cause| Some(cause.reason()) == attempt.reason);
    let cause = attempt.cause.or_else(|| causes().copied());
    let remedy = cause.map(|cause| idps::remedy(cause.remedy(), product, redirect_uri, method));
    let names = |claims: Vec<IdentityClaim>| claims.iter().map(IdentityClaim::to_string).collect();
    let missing = attempt.claims_present.as_ref().map(|present| {
        let all = IdentityClaim::ALL.iter().copied();
        all.filter(|claim| !present.contains(claim)).collect()
    });
    pb::LoginAttempt {
        time: Some(timestamp_millis(attempt.time)),
        reason: attempt.reason.map(Reason::name).unwrap_or_default().to_owned(),
        owner: cause.map(|cause| cause.owner().name()).unwrap_or_default().to_owned(),
        trace_id: attempt.trace_id,
        idp_error: attempt.idp_error.unwrap_or_default(),
        claims_present: names(attempt.claims_present.unwrap_or_default()),
        claims_missing: names(missing.unwrap_or_default()),
        issuer: attempt.issuer.unwrap_or_default(),
        phases: attempt
            .phases
            .into_iter()
            .map(|PhaseMicros { phase, micros }| pb::PhaseDuration {
                phase,
                duration: prost_types::Duration::try_from(Duration::from_micros(micros)).ok(),
            })
            .collect(),
        is_test: attempt.is_test,
        remedy: remedy.unwrap_or_default(),
        cause: attempt.cause.map(Cause::code).unwrap_or_default().to_owned(),
        ..pb::LoginAttempt::default()
    }
}
