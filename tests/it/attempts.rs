//! What support sees of an account's logins.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use peerpanda_sso::clock::SystemClock;
use peerpanda_sso::model::cause::Cause;
use peerpanda_sso::model::reason::Reason;
use peerpanda_sso::pb;
use serde_json::json;

use crate::binary::Program;
use crate::fake_idp::FakeIdp;
use crate::harness::{Service, begin_request, complete_request, eventually, reason, refused};

async fn attempts(service: &mut Service) -> Vec<pb::LoginAttempt> {
    let request = pb::ListLoginAttemptsRequest {
        slug: "acme".to_owned(),
        page_size: 0,
        ..Default::default()
    };
    let listed = service.admin.list_login_attempts(request).await.expect("listed");
    listed.into_inner().attempts
}

#[tokio::test]
async fn a_missing_claim_is_shown_as_missing_whatever_name_it_is_mapped_from() {
    let mut service = Service::start().await;
    let map = |connection: &mut pb::Connection| {
        connection.claim_mapping = Some(pb::ClaimMapping {
            given_name: vec!["vorname".to_owned(), "rufname".to_owned()],
            ..pb::ClaimMapping::default()
        });
    };
    service.edit(&["claim_mapping"], map).await.expect("edited");
    let refused = refused(service.log_in().await);
    assert_eq!(refused.reason, "CLAIM_MISSING");
    assert_eq!(refused.metadata["claim"], "vorname or rufname");
    let attempt = attempts(&mut service).await.remove(0);
    assert_eq!(attempt.claims_missing, ["given_name"]);
    assert_eq!(attempt.claims_present, ["email", "family_name"]);
}

#[tokio::test]
async fn an_attempt_has_the_reason_the_cause_and_the_owner_of_its_refusal() {
    let mut service = Service::start().await;
    service.idp.behave().claims = json!({ "aud": "somebody-else" });
    let by_token = refused(service.log_in().await);
    let begun = service.begin(begin_request()).await.expect("begun");
    let callback = service.idp.approve(&begun.redirect_url, "alice");
    let by_callback = refused(
        service
            .complete(pb::CompleteLoginRequest {
                code: String::new(),
                error: Some("invalid_scope".to_owned()),
                ..complete_request(&callback)
            })
            .await,
    );
    assert_eq!(by_callback.metadata["cause"], "invalid_scope");
    let listed = attempts(&mut service).await;
    for (attempt, refused) in listed.iter().zip([by_callback, by_token]) {
        assert_eq!(attempt.reason, refused.reason);
        assert_eq!(attempt.cause, refused.metadata["cause"]);
        assert_eq!(attempt.owner, refused.owner);
        let cause = Cause::parse(&attempt.cause).expect("a known cause");
        assert_eq!(Some(cause.reason()), Reason::parse(&attempt.reason));
        assert!(!attempt.remedy.is_empty(), "{attempt:?}");
    }
}

#[tokio::test]
async fn a_callback_with_an_unrecognized_state_is_counted_and_takes_no_row() {
    let mut service = Service::start().await;
    let callback = service.approved().await;
    let made_up = pb::CompleteLoginRequest { state: "A".repeat(75), ..complete_request(&callback) };
    assert_eq!(reason(service.complete(made_up).await), "STATE_INVALID");
    assert_eq!(attempts(&mut service).await, []);
    let logins = service.get("acme").await.expect("a connection").logins.expect("a summary");
    assert_eq!(logins.unrecognized_callbacks, 1);
}

/// A stranger can begin a login and send an error callback, as often as the rate limits allow.
#[tokio::test]
async fn refusals_of_one_kind_do_not_push_out_those_of_another() {
    let mut service = Service::start().await;
    service.idp.behave().claims = json!({ "given_name": null });
    service.idp.behave().userinfo = json!({});
    assert_eq!(reason(service.log_in().await), "CLAIM_MISSING");
    for _ in 0..250 {
        service.clock.advance(Duration::from_millis(1));
        let begun = service.begin(begin_request()).await.expect("begun");
        let callback = service.idp.approve(&begun.redirect_url, "mallory");
        let refused = pb::CompleteLoginRequest {
            code: String::new(),
            error: Some("please_call_mallory".to_owned()),
            ..complete_request(&callback)
        };
        assert_eq!(reason(service.complete(refused).await), "IDP_REFUSED");
    }
    let listed = attempts(&mut service).await;
    assert!(listed.iter().any(|attempt| attempt.reason == "CLAIM_MISSING"), "{}", listed.len());
    assert!(listed.len() < 100, "{} attempts", listed.len());
}

/// Whoever begins a login can complete it with any error.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_code_that_nobody_knows_is_in_the_log_alone() {
    let data = tempfile::tempdir().expect("a directory");
    let idp = FakeIdp::start(Arc::new(SystemClock)).await;
    let mut program = Program::serve(data.path(), &[]).await;
    program.set_up(&idp).await;
    for (error, shown) in [
        ("please_call_555", "other"),
        ("unsupported_response_mode", "unsupported_response_mode"),
        ("temporarily_unavailable", "temporarily_unavailable"),
    ] {
        let begun = program.login.begin_login(begin_request()).await.expect("begun").into_inner();
        let request = pb::CompleteLoginRequest {
            code: String::new(),
            error: Some(error.to_owned()),
            ..complete_request(&idp.approve(&begun.redirect_url, "alice"))
        };
        let refusal = refused(program.login.complete_login(request).await);
        assert_eq!(
            (refusal.reason.as_str(), &*refusal.metadata["idp_error"]),
            ("IDP_REFUSED", shown)
        );
        let trace_id = &refusal.metadata["trace_id"];
        eventually("it is shown to support", || {
            let mut admin = program.admin.clone();
            let request = pb::ListLoginAttemptsRequest {
                slug: "acme".to_owned(),
                page_size: 0,
                ..Default::default()
            };
            async move {
                let listed = admin.list_login_attempts(request).await.expect("listed").into_inner();
                let attempt = listed.attempts.first();
                attempt.is_some_and(|attempt| {
                    attempt.trace_id == *trace_id && attempt.idp_error == shown
                })
            }
        })
        .await;
        let log = program.log.lock().unwrap_or_else(PoisonError::into_inner).join("\n");
        let line = log.lines().find(|line| line.contains(trace_id)).expect("a line of the refusal");
        assert!(line.contains(error), "the operator finds what was sent: {line}");
    }
}
