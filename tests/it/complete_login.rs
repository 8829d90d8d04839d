//! CompleteLogin: refusals first, then completed logins.

use std::time::Duration;

use peerpanda_sso::pb;
use serde_json::{Value, json};
use tonic::Code;

use crate::fake_idp::{Signer, no_claims};
use crate::harness::{Service, begin_request, complete_request, eventually, reason, refused};

#[tokio::test]
async fn a_malformed_callback_is_refused_and_does_not_spend_the_state() {
    let mut service = Service::start().await;
    let callback = service.approved().await;
    let good = complete_request(&callback);
    for bad in [
        pb::CompleteLoginRequest::default(),
        pb::CompleteLoginRequest { code: String::new(), ..good.clone() },
        pb::CompleteLoginRequest { code: "a\nb".to_owned(), ..good.clone() },
        pb::CompleteLoginRequest { code: "x".repeat(4097), ..good.clone() },
        pb::CompleteLoginRequest { state: String::new(), ..good.clone() },
        pb::CompleteLoginRequest { state: "x".repeat(513), ..good.clone() },
        pb::CompleteLoginRequest { error: Some("access_denied".to_owned()), ..good.clone() },
        pb::CompleteLoginRequest { slug: "%FF".to_owned(), ..good.clone() },
    ] {
        assert_eq!(reason(service.complete(bad).await), "BAD_REQUEST");
    }
    service.complete(good).await.expect("the login is still there for its owner");
}

/// RFC 9700 4.7.
#[tokio::test]
async fn a_state_that_is_not_ours_is_refused() {
    let mut service = Service::start().await;
    let other = pb::Connection { slug: "other".to_owned(), ..service.connection() };
    service.create(other).await.expect("created");
    let callback = service.approved().await;
    let good = complete_request(&callback);
    let mut tampered = callback.state.clone().into_bytes();
    tampered[20] = if tampered[20] == b'A' { b'B' } else { b'A' };
    for state in [
        "x".to_owned(),
        "\u{ff}\u{0}".to_owned(),
        String::from_utf8(tampered).expect("ASCII"),
        format!("{}A", callback.state),
    ] {
        let refused =
            refused(service.complete(pb::CompleteLoginRequest { state, ..good.clone() }).await);
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::FailedPrecondition, "STATE_INVALID")
        );
        assert_eq!(refused.retry, "login");
    }
    let of_another = pb::CompleteLoginRequest { slug: "other".to_owned(), ..good.clone() };
    assert_eq!(reason(service.complete(of_another).await), "STATE_INVALID");
    service.complete(good).await.expect("the login is still there for its owner");
}

/// RFC 9700 4.7.
#[tokio::test]
async fn a_login_ends_in_the_browser_in_which_it_began() {
    let mut service = Service::start().await;
    let callback = service.approved().await;
    let good = complete_request(&callback);
    for browser_binding in [
        None,
        Some(String::new()),
        Some("x\u{0}".to_owned()),
        Some("another-browser-0123".to_owned()),
    ] {
        let refused = refused(
            service.complete(pb::CompleteLoginRequest { browser_binding, ..good.clone() }).await,
        );
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::PermissionDenied, "BROWSER_MISMATCH")
        );
    }
    service.complete(good).await.expect("the login is still there for its owner");

    let unbound = service
        .begin(pb::BeginLoginRequest { browser_binding: None, ..begin_request() })
        .await
        .expect("begun");
    let callback = service.idp.approve(&unbound.redirect_url, "alice");
    assert_eq!(reason(service.complete(complete_request(&callback)).await), "BROWSER_MISMATCH");
}

#[tokio::test]
async fn a_state_is_used_once_and_expires() {
    // Without the answer to a repeated callback.
    let mut service = Service::start_with(|config| config.answer_ttl = Duration::ZERO).await;
    let callback = service.approved().await;
    service.complete(complete_request(&callback)).await.expect("a login");
    let used = refused(service.complete(complete_request(&callback)).await);
    assert_eq!(
        (used.code, used.reason.as_str(), used.retry.as_str()),
        (Code::FailedPrecondition, "STATE_USED", "login")
    );

    let late = service.approved().await;
    service.clock.advance(Duration::from_secs(900));
    assert_eq!(reason(service.complete(complete_request(&late)).await), "STATE_EXPIRED");
}

/// RFC 9700 4.7.
#[tokio::test]
async fn a_failed_login_has_spent_its_state() {
    let mut service = Service::start().await;
    let callback = service.approved().await;
    let wrong_code =
        pb::CompleteLoginRequest { code: "wrong".to_owned(), ..complete_request(&callback) };
    assert_eq!(reason(service.complete(wrong_code).await), "CODE_REJECTED");
    assert_eq!(reason(service.complete(complete_request(&callback)).await), "STATE_USED");
}

/// RFC 6749 4.1.2.1: error texts as injection.
#[tokio::test]
async fn the_idps_refusal_is_one_of_a_known_login() {
    let mut service = Service::start().await;
    let callback = service.approved().await;
    let request = pb::CompleteLoginRequest {
        code: String::new(),
        error: Some("access_denied\r\nforged: line".to_owned()),
        error_description: Some("<script>".to_owned()),
        ..complete_request(&callback)
    };
    let stranger = pb::CompleteLoginRequest { state: "made-up".to_owned(), ..request.clone() };
    assert_eq!(reason(service.complete(stranger).await), "STATE_INVALID");
    let refused = refused(service.complete(request).await);
    assert_eq!((refused.code, refused.reason.as_str()), (Code::PermissionDenied, "IDP_REFUSED"));
    assert_eq!(refused.metadata["idp_error"], "other");
    assert!(!refused.message.contains("script"), "the IdP's text goes to the log only");
}

/// RFC 6749 4.1.2.1 bounds neither the error nor its description.
#[tokio::test]
async fn an_error_of_the_idp_is_cut_whatever_its_length() {
    let mut service = Service::start().await;
    for (error, shown) in
        [("x".repeat(300), "other"), ("access_denied".to_owned(), "access_denied")]
    {
        let callback = service.approved().await;
        let request = pb::CompleteLoginRequest {
            code: String::new(),
            error: Some(error),
            error_description: Some("y".repeat(5000)),
            ..complete_request(&callback)
        };
        let refused = refused(service.complete(request).await);
        assert_eq!(refused.reason, "IDP_REFUSED");
        assert_eq!(refused.metadata["idp_error"], shown);
        let attempt = service.attempts().await.attempts.remove(0);
        assert_eq!((attempt.reason.as_str(), attempt.idp_error.as_str()), ("IDP_REFUSED", shown));
        assert_eq!(attempt.trace_id, refused.metadata["trace_id"]);
        assert_eq!(reason(service.complete(complete_request(&callback)).await), "STATE_USED");
    }
}

/// FAPI 2: iss of the callback (RFC 9207); RFC 9700 4.4, RFC 9207.
#[tokio::test]
async fn the_callbacks_issuer_is_the_connections() {
    let mut service = Service::start().await;
    for iss in [None, Some(String::new()), Some("http://localhost:1".to_owned())] {
        let callback = service.approved().await;
        let refused = refused(
            service.complete(pb::CompleteLoginRequest { iss, ..complete_request(&callback) }).await,
        );
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::PermissionDenied, "ISSUER_MISMATCH")
        );
    }
    assert_eq!(
        service.idp.count("/token"),
        0,
        "no code goes to an IdP that may not have issued it"
    );
}

/// RFC 9207 2.4; the fake IdP advertises the parameter.
#[tokio::test]
async fn an_error_without_the_issuer_is_the_idps_and_one_with_another_issuer_is_not() {
    let mut service = Service::start().await;
    for (iss, expected) in [
        (None, "IDP_REFUSED"),
        (Some(service.idp.issuer.clone()), "IDP_REFUSED"),
        (Some("http://localhost:1".to_owned()), "ISSUER_MISMATCH"),
    ] {
        let callback = service.approved().await;
        let request = pb::CompleteLoginRequest {
            iss,
            code: String::new(),
            error: Some("access_denied".to_owned()),
            ..complete_request(&callback)
        };
        assert_eq!(reason(service.complete(request).await), expected);
    }
}

#[tokio::test]
async fn a_claim_that_is_present_but_unusable_is_not_called_missing() {
    let mut service = Service::start().await;
    for (claims, cause, message) in [
        (
            json!({ "email": "Ada <ada@example.com>" }),
            "claim_unusable",
            "email is present but is not a single e-mail address",
        ),
        (
            json!({ "email": "a\u{200b}da@example.com" }),
            "claim_unusable",
            "email is present but is not a single e-mail address",
        ),
        (
            json!({ "email": ["a@example.com"], "given_name": " " }),
            "claim_unusable",
            "email is present but is not a single e-mail address; given_name is present but is not a \
             text that is not empty",
        ),
        (
            json!({ "email": "x", "family_name": null }),
            "claim_missing",
            "neither the ID token nor UserInfo has family_name; email is present but is not a single \
             e-mail address",
        ),
    ] {
        service.idp.behave().claims = claims;
        let refused = refused(service.log_in().await);
        assert_eq!(
            (refused.reason.as_str(), refused.metadata["cause"].as_str(), refused.message.as_str()),
            ("CLAIM_MISSING", cause, message)
        );
    }
    service.idp.behave().claims = json!({ "email": "\u{a0} ada@example.com\r\n" });
    let identity = service.log_in().await.expect("a login").identity.expect("an identity");
    assert_eq!(identity.email, "ada@example.com");
    assert_eq!(identity.email_verification(), pb::EmailVerification::Verified);
}

/// OIDC Core 2: `auth_time` is required only if it was requested.
#[tokio::test]
async fn an_auth_time_that_nobody_asked_for_never_refuses_a_login() {
    let mut service = Service::start().await;
    for (auth_time, expected) in [
        (json!(1_700_000_000), Some(1_700_000_000)),
        (json!(1_700_000_000_000_u64), None),
        (json!("1700000000"), None),
        (json!([null]), None),
    ] {
        service.idp.behave().claims = json!({ "auth_time": auth_time });
        let completed = service.log_in().await.expect("a login");
        let shown = completed.identity.expect("an identity").auth_time;
        assert_eq!(shown.map(|time| time.seconds), expected, "{auth_time}");
    }
}

/// The connection changed between begin and complete.
#[tokio::test]
async fn a_connection_that_changed_its_client_ends_the_logins_begun_before() {
    let mut service = Service::start().await;
    let (before_name, before_client) = (service.approved().await, service.approved().await);
    service
        .edit(&["display_name"], |connection| connection.display_name = "New".to_owned())
        .await
        .expect("edited");
    service
        .complete(complete_request(&before_name))
        .await
        .expect("a new display name does not affect logins");
    service
        .edit(&["client_id", "client_secret"], |connection| {
            connection.client_id = "another".to_owned();
            connection.client_secret = "CANARYanother".to_owned();
        })
        .await
        .expect("edited");
    let refused = refused(service.complete(complete_request(&before_client)).await);
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (Code::FailedPrecondition, "CONNECTION_CHANGED")
    );
}

/// The connection changed between begin and complete.
#[tokio::test]
async fn a_connection_deleted_disabled_or_created_again_ends_the_logins_begun_before() {
    let mut service = Service::start().await;
    let (first, second, third) =
        (service.approved().await, service.approved().await, service.approved().await);
    let disabled = service
        .edit(&["state"], |connection| connection.state = pb::ConnectionState::Disabled.into())
        .await;
    let revision = disabled.expect("disabled").revision;
    assert_eq!(reason(service.complete(complete_request(&first)).await), "CONNECTION_DISABLED");
    let deletion = pb::DeleteConnectionRequest { slug: "acme".to_owned(), revision };
    service.admin.delete_connection(deletion).await.expect("deleted");
    assert_eq!(reason(service.complete(complete_request(&second)).await), "CONNECTION_NOT_FOUND");
    let again = service.connection();
    service.create(again).await.expect("created");
    assert_eq!(reason(service.complete(complete_request(&third)).await), "CONNECTION_CHANGED");
}

/// RFC 6749 5.2; a redirect of the token endpoint (RFC 9700 4.12).
#[tokio::test]
async fn the_token_endpoints_refusals_are_told_apart() {
    let mut service = Service::start().await;
    let html = "<html>CANARYhtml</html>";
    for (status, body, code, expected) in [
        (
            401,
            r#"{"error":"invalid_client","error_description":"AADSTS7000222"}"#,
            Code::FailedPrecondition,
            "CLIENT_REJECTED",
        ),
        (400, r#"{"error":"unauthorized_client"}"#, Code::FailedPrecondition, "CLIENT_REJECTED"),
        (401, html, Code::FailedPrecondition, "CLIENT_REJECTED"),
        (
            400,
            r#"{"error":"invalid_grant","error_codes":[54005]}"#,
            Code::PermissionDenied,
            "CODE_REJECTED",
        ),
        (400, r#"{"errorCode":"E0000011"}"#, Code::FailedPrecondition, "TOKEN_RESPONSE_INVALID"),
        (200, html, Code::FailedPrecondition, "TOKEN_RESPONSE_INVALID"),
        (200, "[]", Code::FailedPrecondition, "TOKEN_RESPONSE_INVALID"),
        (200, r#"{"access_token":"a"}"#, Code::FailedPrecondition, "TOKEN_RESPONSE_INVALID"),
        (
            200,
            r#"{"access_token":"a","id_token":"b","id_token":"c"}"#,
            Code::FailedPrecondition,
            "TOKEN_RESPONSE_INVALID",
        ),
        (
            200,
            "{\"access_token\":\"a\\nb\",\"id_token\":\"b\"}",
            Code::FailedPrecondition,
            "TOKEN_RESPONSE_INVALID",
        ),
        (500, html, Code::Aborted, "PROVIDER_UNAVAILABLE"),
        (429, html, Code::Aborted, "PROVIDER_UNAVAILABLE"),
    ] {
        let callback = service.approved().await;
        service.idp.behave().token_answer = Some((status, body.to_owned()));
        let refused = refused(service.complete(complete_request(&callback)).await);
        assert_eq!((refused.code, refused.reason.as_str()), (code, expected), "{status} {body}");
        assert!(
            refused.retry == "login" || refused.retry == "never",
            "the state is spent: {}",
            refused.retry
        );
        assert!(!refused.message.contains("CANARY"), "{}", refused.message);
    }
    service.idp.behave().token_answer = None;
    service
        .idp
        .behave()
        .answers
        .insert("/token", (307, String::new(), "https://evil.example/token".to_owned()));
    let callback = service.approved().await;
    let refused = refused(service.complete(complete_request(&callback)).await);
    assert_eq!(refused.reason, "TOKEN_RESPONSE_INVALID");
    assert!(refused.message.contains("evil.example"), "{}", refused.message);
}

/// OIDC Core 3.1.3.7; each refusal has the reason of the reference table.
#[tokio::test]
async fn an_id_token_with_wrong_claims_is_refused() {
    let mut service = Service::start().await;
    let now = peerpanda_sso::clock::Clock::unix_seconds(service.clock.as_ref()).0;
    let client_id = service.idp.client_id.clone();
    for (claims, expected) in [
        (json!({ "iss": format!("{}1", service.idp.issuer) }), "ID_TOKEN_INVALID"),
        (json!({ "iss": null }), "ID_TOKEN_INVALID"),
        (json!({ "sub": null }), "ID_TOKEN_INVALID"),
        (json!({ "sub": "" }), "ID_TOKEN_INVALID"),
        (json!({ "sub": 7 }), "ID_TOKEN_INVALID"),
        (json!({ "sub": "x".repeat(256) }), "ID_TOKEN_INVALID"),
        (json!({ "aud": format!("{client_id}1") }), "ID_TOKEN_INVALID"),
        (json!({ "aud": [client_id, "stranger"] }), "ID_TOKEN_INVALID"),
        (json!({ "aud": null }), "ID_TOKEN_INVALID"),
        (json!({ "azp": "stranger" }), "ID_TOKEN_INVALID"),
        (json!({ "exp": now - 60 }), "ID_TOKEN_INVALID"),
        (json!({ "exp": null }), "ID_TOKEN_INVALID"),
        (json!({ "exp": 253_402_300_800_u64 }), "ID_TOKEN_INVALID"),
        (json!({ "exp": 1e300 }), "ID_TOKEN_INVALID"),
        (json!({ "nbf": -1 }), "ID_TOKEN_INVALID"),
        (json!({ "exp": "2099" }), "ID_TOKEN_INVALID"),
        (json!({ "iat": null }), "ID_TOKEN_INVALID"),
        (json!({ "iat": now + 61 }), "ID_TOKEN_INVALID"),
        (json!({ "iat": now - 661, "exp": now + 300 }), "ID_TOKEN_INVALID"),
        (json!({ "nbf": now + 61 }), "ID_TOKEN_INVALID"),
        (json!({ "at_hash": "AAAA" }), "ID_TOKEN_INVALID"),
        (
            json!({ "events": { "http://schemas.openid.net/event/backchannel-logout": {} } }),
            "ID_TOKEN_INVALID",
        ),
        (json!({ "nonce": "another" }), "NONCE_MISMATCH"),
        (json!({ "nonce": null }), "NONCE_MISMATCH"),
        (json!({ "nonce": 1 }), "ID_TOKEN_INVALID"),
    ] {
        service.idp.behave().claims = claims.clone();
        assert_eq!(reason(service.log_in().await), expected, "{claims}");
    }
    for claims in [
        json!({ "exp": now - 59 }),
        json!({ "iat": now + 60 }),
        json!({ "nbf": now + 60 }),
        json!({ "iat": now - 600 }),
        json!({ "iat": now - 660 }),
        json!({ "aud": [client_id], "azp": client_id }),
    ] {
        service.idp.behave().claims = claims.clone();
        service.log_in().await.unwrap_or_else(|status| panic!("{claims}: {status}"));
    }
}

/// OIDC Core 3.1.3.7 (6)-(8), RFC 8725 3.1.
#[tokio::test]
async fn an_id_token_signed_by_nobody_or_by_another_is_refused() {
    let mut service = Service::start().await;
    service.idp.behave().foreign_key = true;
    let refused = refused(service.log_in().await);
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (Code::PermissionDenied, "ID_TOKEN_SIGNATURE_INVALID")
    );
    service.idp.behave().foreign_key = false;
    for header in [
        json!({ "alg": "none" }),
        json!({ "alg": "HS256" }),
        json!({ "alg": "ES256" }),
        json!({ "alg": null }),
        json!({ "kid": "unknown" }),
    ] {
        service.idp.behave().header = header.clone();
        assert_eq!(reason(service.log_in().await), "ID_TOKEN_SIGNATURE_INVALID", "{header}");
    }
    for header in [
        json!({ "typ": "at+jwt" }),
        json!({ "typ": "logout+jwt" }),
        json!({ "crit": ["exp"] }),
        json!({ "kid": 1 }),
    ] {
        service.idp.behave().header = header.clone();
        assert_eq!(reason(service.log_in().await), "ID_TOKEN_INVALID", "{header}");
    }
    service.idp.behave().header = no_claims();
    for token in ["", "a.b", "a.b.c", "a.b.c.d.e", "....", "é.é.é"] {
        service.idp.behave().id_token = Some(token.to_owned());
        assert_eq!(reason(service.log_in().await), "ID_TOKEN_INVALID", "{token}");
    }
}

/// oidcc-client-test-signing-key-rotation, -just-before-signing.
#[tokio::test]
async fn keys_that_were_rotated_are_fetched_once() {
    let mut service = Service::start().await;
    service.idp.behave().answers.insert("/keys", (200, r#"{"keys":[]}"#.to_owned(), String::new()));
    assert_eq!(reason(service.begin(begin_request()).await), "PROVIDER_METADATA_INVALID");
    service.clock.advance(Duration::from_secs(2));
    // The IdP publishes only its old key at first, and signs with a new one afterwards.
    service.idp.behave().answers.remove("/keys");
    let only_ec = service.idp.published_keys(|kid| kid == "ec");
    service.idp.behave().answers.insert("/keys", (200, only_ec.to_string(), String::new()));
    service.idp.behave().signer = Signer::Es256;
    service.log_in().await.expect("the old key");
    service.idp.behave().signer = Signer::Rs256;
    let fetched = service.idp.count("/keys");
    for fetches in [1, 2, 3, 3] {
        assert_eq!(reason(service.log_in().await), "ID_TOKEN_SIGNATURE_INVALID");
        assert_eq!(service.idp.count("/keys"), fetched + fetches, "three in a row, one per 30 s");
    }
    service.clock.advance(Duration::from_secs(30));
    service.idp.behave().answers.remove("/keys");
    service.log_in().await.expect("the new key, within the same login");
    assert_eq!(service.idp.count("/keys"), fetched + 4);
}

/// oidcc-client-test-signing-key-rotation, -just-before-signing.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_one_login_fetched_serve_another_that_was_under_way() {
    let mut service = Service::start().await;
    let only_ec = service.idp.published_keys(|kid| kid == "ec");
    service.idp.behave().answers.insert("/keys", (200, only_ec.to_string(), String::new()));
    let slow = service.approved().await;
    service.idp.behave().answers.remove("/keys");
    service.idp.behave().token_delay = Duration::from_secs(1);
    let mut login = service.login.clone();
    let running = tokio::spawn(async move { login.complete_login(complete_request(&slow)).await });
    eventually("the slow login is running", || async { service.idp.count("/token") == 1 }).await;
    service.idp.behave().token_delay = Duration::ZERO;
    let fetched = service.idp.count("/keys");
    service.log_in().await.expect("a login that fetches the new keys");
    running.await.expect("ended").expect("the slow login uses them too");
    assert_eq!(service.idp.count("/keys"), fetched + 1);
}

/// max_age (OIDC Core 3.1.3.7-13).
#[tokio::test]
async fn max_age_demands_a_recent_auth_time() {
    let mut service = Service::start().await;
    let now = peerpanda_sso::clock::Clock::unix_seconds(service.clock.as_ref()).0;
    for (auth_time, is_recent) in [
        (json!(now - 100), true),
        (json!(now - 160), true),
        (json!(now - 161), false),
        (Value::Null, false),
    ] {
        service.idp.behave().claims = json!({ "auth_time": auth_time });
        let request = pb::BeginLoginRequest {
            max_age: Some(prost_types::Duration { seconds: 100, nanos: 0 }),
            ..begin_request()
        };
        let begun = service.begin(request).await.expect("begun");
        let callback = service.idp.approve(&begun.redirect_url, "alice");
        let completed = service.complete(complete_request(&callback)).await;
        assert_eq!(completed.is_ok(), is_recent, "{auth_time}: {completed:?}");
        if let Ok(completed) = completed {
            let actual = completed.identity.expect("an Identity").auth_time.expect("a time");
            assert_eq!(json!(actual.seconds), auth_time);
        }
    }
}

/// oidcc-client-test; oidcc-client-test-discovery-openid-config, -jwks-uri-keys.
#[tokio::test]
async fn a_login_answers_with_the_identity() {
    let mut service = Service::start().await;
    let request =
        pb::BeginLoginRequest { return_to: Some("/reports?q=1".to_owned()), ..begin_request() };
    let begun = service.begin(request).await.expect("begun");
    let callback = service.idp.approve(&begun.redirect_url, "alice");
    let completed = service.complete(complete_request(&callback)).await.expect("a login");
    let identity = completed.identity.expect("an Identity");
    assert_eq!((identity.slug.as_str(), identity.subject.as_str()), ("acme", "sub-alice"));
    assert_eq!(identity.issuer, service.idp.issuer);
    assert_eq!(
        (identity.email.as_str(), identity.given_name.as_str()),
        ("alice@example.com", "alice")
    );
    assert_eq!(identity.email_verification, pb::EmailVerification::Verified as i32);
    assert_eq!(
        (identity.amr, identity.session_id.as_deref()),
        (vec!["pwd".to_owned()], Some("session-1"))
    );
    assert_eq!(identity.claim_sources["email"], "id_token.email");
    let claims = identity.claims.expect("claims").fields;
    assert!(
        claims.contains_key("tid")
            && !claims.contains_key("nonce")
            && !claims.contains_key("at_hash")
    );
    assert_eq!(completed.return_to, "/reports?q=1");
    assert_eq!(completed.id_token, service.idp.last_id_token());
    assert_eq!(completed.connection_state, pb::ConnectionState::Active as i32);
    assert_eq!(service.idp.count("/userinfo"), 0, "UserInfo is not called if nothing is missing");
    let (admin, issuer) = (service.admin.clone(), service.idp.issuer.clone());
    eventually("the issuer was pinned at first use", || {
        let (mut admin, issuer) = (admin.clone(), issuer.clone());
        let request = pb::GetConnectionRequest { slug: "acme".to_owned() };
        async move {
            let read = admin.get_connection(request).await.expect("there").into_inner();
            read.connection.expect("a connection").issuer == issuer
        }
    })
    .await;
}

/// oidcc-client-test-client-secret-basic.
#[tokio::test]
async fn the_client_authenticates_by_exactly_one_method() {
    let mut service = Service::start().await;
    service.log_in().await.expect("basic");
    assert_eq!(reason_after_post(&mut service).await, "CLIENT_REJECTED");
    service
        .edit(&["token_endpoint_auth_method"], |connection| {
            connection.token_endpoint_auth_method =
                pb::TokenEndpointAuthMethod::ClientSecretPost.into();
        })
        .await
        .expect("edited");
    service.log_in().await.expect("post");
    for seen in service.idp.seen().iter().filter(|seen| seen.path == "/token") {
        assert!(
            seen.headers.contains_key("authorization") != seen.form.contains_key("client_secret")
        );
    }
}

/// OIDC Discovery 3: `token_endpoint_auth_methods_supported`.
#[tokio::test]
async fn the_metadata_decides_the_method_that_support_did_not_state() {
    use pb::TokenEndpointAuthMethod::{ClientSecretBasic, ClientSecretPost, Unspecified};
    let mut service = Service::start().await;
    for (stated, listed, is_post) in [
        (Unspecified, json!(["client_secret_post"]), true),
        (Unspecified, json!(["client_secret_post", "client_secret_basic"]), false),
        (Unspecified, json!([]), false),
        (Unspecified, json!(["private_key_jwt"]), false),
        (ClientSecretBasic, json!(["client_secret_post"]), false),
        (ClientSecretPost, json!(["private_key_jwt"]), true),
    ] {
        service.idp.behave().metadata = json!({ "token_endpoint_auth_methods_supported": listed });
        service.idp.behave().expects_post = is_post;
        let edited = service.edit(&["token_endpoint_auth_method", "display_name"], |connection| {
            connection.token_endpoint_auth_method = stated.into();
            connection.display_name = format!("{stated:?} {listed}");
        });
        assert_eq!(edited.await.expect("edited").token_endpoint_auth_method(), stated);
        service.log_in().await.unwrap_or_else(|error| panic!("{stated:?}, {listed}: {error}"));
    }
}

async fn reason_after_post(service: &mut Service) -> String {
    service.idp.behave().expects_post = true;
    reason(service.log_in().await)
}

/// OIDC Core 3.1.3.7 (3): a further audience passes only where the connection lists it.
#[tokio::test]
async fn a_further_audience_passes_where_it_is_listed() {
    let mut service = Service::start().await;
    let client_id = service.idp.client_id.clone();
    let listed = service.edit(&["additional_audiences"], |connection| {
        connection.additional_audiences = vec!["api".to_owned()]
    });
    listed.await.expect("edited");
    for (audience, passes) in [
        (json!([client_id, "api"]), true),
        (json!([client_id, "stranger"]), false),
        (json!(["api"]), false),
    ] {
        service.idp.behave().claims = json!({ "aud": audience });
        assert_eq!(service.log_in().await.is_ok(), passes, "{audience}");
    }
}

/// Claims that are fields of the Identity, or mapped to one, are not repeated among the other
/// claims. Required claims can be of any scalar type.
#[tokio::test]
async fn other_claims_exclude_the_fields_of_the_identity() {
    let mut service = Service::start().await;
    service
        .edit(&["claim_mapping", "required_claims"], |connection| {
            connection.claim_mapping = Some(pb::ClaimMapping {
                email: vec!["email".to_owned(), "mail".to_owned()],
                groups: "grp".to_owned(),
                ..pb::ClaimMapping::default()
            });
            let required = |name: &str, value: &str| pb::RequiredClaim {
                name: name.to_owned(),
                values: vec![value.to_owned()],
            };
            connection.required_claims =
                vec![required("level", "3"), required("active", "true"), required("orgs", "o2")];
        })
        .await
        .expect("edited");
    let good = json!({
        "name": "Ada L", "mail": "ada@example.com", "grp": ["g"], "level": 3, "active": true, "orgs": ["o1", "o2"], "other": 7,
    });
    service.idp.behave().claims = good.clone();
    let identity = service.log_in().await.expect("a login").identity.expect("an Identity");
    let mut others: Vec<String> = identity.claims.expect("claims").fields.into_keys().collect();
    others.sort();
    assert_eq!(others, ["active", "email_verified", "level", "orgs", "other", "tid"]);
    for (name, wrong) in [
        ("level", json!(4)),
        ("active", json!(false)),
        ("orgs", json!(["o1"])),
        ("level", json!({ "3": 3 })),
    ] {
        let mut claims = good.clone();
        claims[name] = wrong;
        service.idp.behave().claims = claims;
        let refusal = refused(service.log_in().await);
        assert_eq!(
            (refusal.reason.as_str(), refusal.metadata["claim"].as_str()),
            ("CLAIM_NOT_ALLOWED", name)
        );
    }
}

/// OIDC Core 5.3: UserInfo is called if any claim is missing, and only then.
#[tokio::test]
async fn userinfo_is_called_if_a_single_claim_is_missing() {
    let mut service = Service::start().await;
    service
        .edit(&["claim_mapping", "required_claims"], |connection| {
            connection.claim_mapping = Some(pb::ClaimMapping {
                groups: "groups".to_owned(),
                ..pb::ClaimMapping::default()
            });
            connection.required_claims =
                vec![pb::RequiredClaim { name: "org".to_owned(), values: vec!["o1".to_owned()] }];
        })
        .await
        .expect("edited");
    let all = json!({
        "email": "ada@example.com", "given_name": "Ada", "family_name": "Lovelace", "groups": ["g"], "org": "o1",
    });
    for missing in ["nothing", "email", "given_name", "family_name", "groups", "org"] {
        let mut in_token = all.clone();
        in_token.as_object_mut().expect("an object").remove(missing);
        service.idp.behave().claims = in_token;
        service.idp.behave().userinfo = all.clone();
        let asked = service.idp.count("/userinfo");
        let identity = service.log_in().await.expect(missing).identity.expect("an Identity");
        assert_eq!(
            service.idp.count("/userinfo") - asked,
            usize::from(missing != "nothing"),
            "{missing}"
        );
        assert_eq!(
            (identity.email.as_str(), identity.given_name.as_str()),
            ("ada@example.com", "Ada")
        );
        assert_eq!(
            (identity.family_name.as_str(), identity.groups),
            ("Lovelace", vec!["g".to_owned()])
        );
        if missing != "nothing" && missing != "org" {
            assert_eq!(identity.claim_sources[missing], format!("userinfo.{missing}"));
        }
    }
}

#[tokio::test]
async fn a_failure_of_userinfo_refuses_only_logins_that_need_it() {
    let mut service = Service::start().await;
    let map_groups = |connection: &mut pb::Connection| {
        connection.claim_mapping =
            Some(pb::ClaimMapping { groups: "groups".to_owned(), ..pb::ClaimMapping::default() });
    };
    service.edit(&["claim_mapping"], map_groups).await.expect("edited");
    let failures = [
        (500, "", "http_5xx"),
        (403, "", "userinfo_status"),
        (200, "<html>", "userinfo_malformed"),
        (200, r#"{"sub":"sub-eve","groups":["admins"]}"#, "userinfo_subject"),
    ];
    let fail = |service: &Service, status, body: &str| {
        let answer = (status, body.to_owned(), String::new());
        service.idp.behave().answers.insert("/userinfo", answer);
    };
    for (status, body, cause) in failures {
        fail(&service, status, body);
        let identity = service.log_in().await.expect(cause).identity.expect("an Identity");
        assert!(identity.groups.is_empty(), "{cause}");
        let source = &identity.claim_sources["groups"];
        assert_eq!(*source, format!("unavailable: UserInfo failed ({cause})"));
    }
    // The connection needs the groups, or the ID token lacks a name.
    let require = |connection: &mut pb::Connection| {
        connection.required_claims =
            vec![pb::RequiredClaim { name: "groups".to_owned(), values: vec!["g".to_owned()] }];
    };
    service.edit(&["required_claims"], require).await.expect("edited");
    for (status, body, cause) in failures {
        fail(&service, status, body);
        assert_eq!(refused(service.log_in().await).metadata["cause"], cause);
    }
    service.edit(&["required_claims"], |it| it.required_claims.clear()).await.expect("edited");
    service.idp.behave().claims = json!({ "family_name": null });
    fail(&service, 403, "");
    assert_eq!(reason(service.log_in().await), "USERINFO_INVALID");
}

/// oidcc-client-test-userinfo-invalid-sub; oidcc-client-test-scope-userinfo-claims.
#[tokio::test]
async fn userinfo_fills_in_what_the_id_token_lacks() {
    let mut service = Service::start().await;
    let all = json!({ "email": "a@example.com", "given_name": "A", "family_name": "B", "nonce": "overridden", "name": "A B" });
    service.idp.behave().userinfo = all;
    let identity = service.log_in().await.expect("a login").identity.expect("an Identity");
    assert_eq!(
        (identity.email.as_str(), identity.email_verification),
        ("a@example.com", pb::EmailVerification::NotStated as i32)
    );
    assert_eq!(identity.claim_sources["family_name"], "userinfo.family_name");
    let bearers: Vec<_> = service
        .idp
        .seen()
        .iter()
        .filter(|seen| seen.path == "/userinfo")
        .map(|seen| seen.headers.contains_key("authorization"))
        .collect();
    assert_eq!(bearers, [true]);

    service.idp.behave().userinfo = json!({ "sub": "somebody-else", "email": "a@example.com" });
    assert_eq!(reason(service.log_in().await), "USERINFO_INVALID");
    service.idp.behave().userinfo = json!({ "email": "a@example.com" });
    let refused = refused(service.log_in().await);
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (Code::FailedPrecondition, "CLAIM_MISSING")
    );
    assert_eq!(refused.metadata["claim"], "given_name, family_name");
    service.idp.behave().answers.insert("/userinfo", (403, String::new(), String::new()));
    assert_eq!(reason(service.log_in().await), "USERINFO_INVALID");
}

#[tokio::test]
async fn the_rules_of_a_connection_apply_to_claims() {
    let mut service = Service::start().await;
    service
        .edit(
            &["allowed_email_domains", "require_verified_email", "required_claims"],
            |connection| {
                connection.allowed_email_domains = vec!["Example.COM".to_owned()];
                connection.require_verified_email = true;
                connection.required_claims = vec![pb::RequiredClaim {
                    name: "tid".to_owned(),
                    values: vec!["tenant-1".to_owned()],
                }];
            },
        )
        .await
        .expect("edited");
    service.log_in().await.expect("a login that follows all rules");
    for (claims, expected) in [
        (json!({ "email": "a@evil.example" }), "EMAIL_DOMAIN_NOT_ALLOWED"),
        (json!({ "email": "a@sub.example.com" }), "EMAIL_DOMAIN_NOT_ALLOWED"),
        (json!({ "email_verified": false }), "EMAIL_NOT_VERIFIED"),
        (json!({ "email_verified": null }), "EMAIL_NOT_VERIFIED"),
        (json!({ "tid": "tenant-2" }), "CLAIM_NOT_ALLOWED"),
        (json!({ "tid": null }), "CLAIM_NOT_ALLOWED"),
    ] {
        service.idp.behave().claims = claims.clone();
        assert_eq!(reason(service.log_in().await), expected, "{claims}");
    }
}

#[tokio::test]
async fn an_email_from_a_mapped_claim_is_not_verified() {
    let mut service = Service::start().await;
    service
        .edit(&["claim_mapping"], |connection| {
            connection.claim_mapping = Some(pb::ClaimMapping {
                email: vec!["email".to_owned(), "preferred_username".to_owned()],
                groups: "roles".to_owned(),
                ..pb::ClaimMapping::default()
            });
        })
        .await
        .expect("edited");
    service.idp.behave().claims =
        json!({ "email": "", "preferred_username": "u@contoso.example", "roles": ["a", "b"] });
    let identity = service.log_in().await.expect("a login").identity.expect("an Identity");
    assert_eq!(identity.email, "u@contoso.example");
    assert_eq!(identity.email_verification, pb::EmailVerification::NotStated as i32);
    assert_eq!(identity.claim_sources["email"], "id_token.preferred_username");
    assert_eq!(identity.groups, ["a", "b"]);
}

/// A request has a deadline, however slowly the IdP answers.
#[tokio::test]
async fn a_slow_token_endpoint_times_out_after_ten_seconds() {
    let mut service = Service::start().await;
    let callback = service.approved().await;
    service.idp.behave().token_delay = Duration::from_secs(60);
    let began = tokio::time::Instant::now();
    let refused = refused(service.complete(complete_request(&callback)).await);
    assert_eq!(
        (refused.reason.as_str(), refused.retry.as_str()),
        ("PROVIDER_UNAVAILABLE", "login")
    );
    assert_eq!(refused.metadata["cause"], "timeout");
    assert!(began.elapsed() < Duration::from_secs(20), "within the deadline of a whole call");
}
