//! Login attempts and their summary, as support sees them.

use std::time::Duration;

use super::connections::page_size;
use super::{Checked, Form, timestamp_millis};
use crate::connections::{ListedAttempt, Logins, Suspicion};
use crate::model::attempt::{AttemptQuery, LoginStage, PhaseMicros};
use crate::model::cause::Cause;
use crate::model::connection::CustomerUris;
use crate::model::identity::IdentityClaim;
use crate::model::reason::{Owner, Reason};
use crate::model::text::quotable;
use crate::model::time::UnixMillis;
use crate::oidc::idps::{self, IdpProduct};
use crate::pb;
use crate::store::ATTEMPTS_KEPT;

pub(in crate::server) fn attempts_request(
    message: &pb::ListLoginAttemptsRequest,
) -> Checked<AttemptQuery> {
    let mut form = Form::default();
    let slug = (!message.slug.is_empty()).then(|| form.slug(&message.slug)).flatten();
    let limit = form.valid(page_size(message.page_size, ATTEMPTS_KEPT, ATTEMPTS_KEPT));
    let trace_id = message.trace_id.trim().to_ascii_lowercase();
    let is_trace_id = trace_id.len() == 32 && trace_id.bytes().all(|b| b.is_ascii_hexdigit());
    if !trace_id.is_empty() && !is_trace_id {
        form.violation("trace_id", "must be 32 hex digits");
    }
    let reason = Reason::parse(&message.reason);
    if !message.reason.is_empty() && reason.is_none() {
        let rule = "must be a reason of a refusal, such as IDP_REFUSED, not";
        form.violation("reason", format!("{rule} {:?}", quotable(&message.reason)));
    }
    let since = message.since.and_then(|since| form.time("since", since));
    form.done(limit, |limit| AttemptQuery {
        slug,
        trace_id: is_trace_id.then_some(trace_id),
        reason,
        since,
        limit,
    })
}

impl From<Logins> for pb::LoginSummary {
    fn from(Logins { summary, suspicion }: Logins) -> Self {
        let day = summary.day;
        let failures = summary.failures.into_iter();
        Self {
            last_success_time: summary.last_success.map(timestamp_millis),
            failures: failures.map(|(reason, count)| (reason.to_string(), count)).collect(),
            unrecognized_callbacks: summary.unrecognized_callbacks,
            begun_24h: saturating_u32(day.begun),
            returned_24h: saturating_u32(day.returned),
            completed_24h: saturating_u32(day.completed),
            refused_24h: saturating_u32(day.refused),
            suspicion: suspicion.map(|suspicion| pb::LoginSuspicion {
                text: suspicion_text(&suspicion),
                owner: Owner::CustomerIdpAdmin.name().to_owned(),
            }),
        }
    }
}

fn suspicion_text(Suspicion { unreturned, now, product }: &Suspicion) -> String {
    let codes: Vec<_> = product.page_errors().collect();
    let codes =
        if codes.is_empty() { String::new() } else { format!(" ({}, …)", codes.join(", ")) };
    format!(
        "{} logins have begun since {}, and none came back: the IdP shows an error page, or does not \
         answer. Most often the redirect URI isn't registered, the person isn't assigned, or the \
         application is disabled. Ask what the page says{codes}.",
        unreturned.count,
        short_time(unreturned.since, *now),
    )
}

/// The time of day, with the date unless it is of the last 24 hours.
fn short_time(time: UnixMillis, now: UnixMillis) -> String {
    // 2027-01-15T08:00:00Z
    let text = time.to_string();
    let minutes = text.get(..16).unwrap_or(&text).replace('T', " ");
    let is_recent = now.since(time) < Duration::from_secs(24 * 60 * 60);
    let shown = if is_recent { minutes.get(11..).unwrap_or(&minutes) } else { &minutes };
    format!("{shown} UTC")
}

pub(in crate::server) fn attempt_to_pb(listed: ListedAttempt, origin: &str) -> pb::LoginAttempt {
    let ListedAttempt { recorded, auth_method, product } = listed;
    let attempt = recorded.attempt;
    let redirect_uri = CustomerUris::new(origin, &recorded.slug).redirect_uri();
    let product = match (product, &attempt.issuer) {
        (IdpProduct::Generic, Some(issuer)) => IdpProduct::of(issuer),
        (product, _) => product,
    };
    // An attempt recorded by an older version has no cause: any cause of its reason will do.
    let causes = || Cause::ALL.iter().find(|cause| Some(cause.reason()) == attempt.reason);
    let cause = attempt.cause.or_else(|| causes().copied());
    let remedy =
        cause.map(|cause| idps::remedy(cause.remedy(), product, &redirect_uri, auth_method));
    let names = |claims: Vec<IdentityClaim>| claims.iter().map(IdentityClaim::to_string).collect();
    let missing = attempt.claims_present.as_ref().map(|present| {
        let all = IdentityClaim::ALL.iter().copied();
        all.filter(|claim| !present.contains(claim)).collect()
    });
    pb::LoginAttempt {
        time: Some(timestamp_millis(recorded.first_time)),
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
        stage: stage_to_pb(attempt.stage).into(),
        idp_error_description: attempt.idp_error_description.unwrap_or_default(),
        count: saturating_u32(recorded.count),
        last_time: Some(timestamp_millis(recorded.last_time)),
        slug: recorded.slug.to_string(),
        document: attempt.document.unwrap_or_default(),
        detail: attempt.detail.unwrap_or_default(),
    }
}

fn stage_to_pb(stage: Option<LoginStage>) -> pb::LoginStage {
    match stage {
        None => pb::LoginStage::Unspecified,
        Some(LoginStage::Begin) => pb::LoginStage::Begin,
        Some(LoginStage::Complete) => pb::LoginStage::Complete,
    }
}

fn saturating_u32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::tests::fields;
    use super::*;
    use crate::model::attempt::Unreturned;

    #[test]
    fn attempts_are_asked_for_by_account_trace_reason_and_time() {
        let query = attempts_request(&pb::ListLoginAttemptsRequest::default()).expect("all");
        assert_eq!(query, AttemptQuery { limit: 200, ..AttemptQuery::default() });
        let good = pb::ListLoginAttemptsRequest {
            slug: "acme".to_owned(),
            page_size: 5,
            trace_id: " 0AF7651916CD43DD8448EB211C80319C".to_owned(),
            reason: "IDP_REFUSED".to_owned(),
            since: Some(prost_types::Timestamp { seconds: 9, nanos: 0 }),
        };
        let query = attempts_request(&good).expect("a query");
        assert_eq!(query.trace_id.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!((query.reason, query.since), (Some(Reason::IdpRefused), Some(UnixMillis(9000))));
        let bad = pb::ListLoginAttemptsRequest {
            slug: "Acme".to_owned(),
            page_size: -1,
            trace_id: "%".repeat(32),
            reason: "idp_refused".to_owned(),
            since: Some(prost_types::Timestamp { seconds: -1, nanos: 0 }),
        };
        let violations = fields(attempts_request(&bad));
        assert_eq!(violations, ["slug", "page_size", "trace_id", "reason", "since"]);
    }

    #[test]
    fn a_suspicion_names_the_codes_of_the_product() {
        let since = UnixMillis(1_800_000_000_000);
        let text = |product, age| {
            let unreturned = Unreturned { count: 3, since };
            suspicion_text(&Suspicion { unreturned, now: since.after(age), product })
        };
        let entra = text(IdpProduct::Entra, Duration::from_secs(300));
        assert!(
            entra.starts_with("3 logins have begun since 08:00 UTC, and none came back"),
            "{entra}"
        );
        assert!(entra.ends_with("what the page says (AADSTS50011, AADSTS50105, …)."), "{entra}");
        let generic = text(IdpProduct::Generic, Duration::from_secs(25 * 3600));
        assert!(generic.contains("since 2027-01-15 08:00 UTC"), "{generic}");
        assert!(generic.ends_with("what the page says."), "{generic}");
    }
}
